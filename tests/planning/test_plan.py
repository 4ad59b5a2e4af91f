"""What a sweep would run and cost: counting, estimates on synthetic evidence, composing."""

import dataclasses
import io
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hydra import compose
from omegaconf import OmegaConf
from rich.console import Console

from gotd.cli.main import main
from gotd.cli.plan import print_plan
from gotd.data.base import SourceUnavailable
from gotd.data.hub.source import Hub
from gotd.pipeline.experiment import Cell, plan_cell
from gotd.planning.cost_model import CostModel, this_machine
from gotd.planning.estimates import (
    EARLIER,
    MODEL,
    RECORDS,
    UNKNOWN,
    Need,
    Past,
    from_model,
    from_past,
    from_records,
    likeness,
    read_past,
)
from gotd.planning.plan import lay_out, plan_steps, state
from gotd.planning.sizes import BERT_BASE
from gotd.runs import expand as expansion
from gotd.runs.expand import SweepError, compose_all, expand, expand_cells
from gotd.storage.artifacts import MANIFEST, Step, write_json
from gotd.storage.work import Work

MACHINE = CostModel(flops_per_s=1e10)
SMALL = ["experiment=glue", "task=cola,sst2", "selector=none,random,got_d", "seed=1"]


def step_of(cell: Cell, kind: str, reads: str | None = None) -> Step:
    found = [step for step in cell.record.ancestors() if step.kind == kind]
    if reads is not None:
        found = [s for s in found if reads in {i.kind for i in s.inputs.values()}]
    (step,) = found
    return step


def pretend(cell: Cell, step: Step, seconds: float, size: int = 1000, resumed: bool = False):
    """Leave a manifest as if the step had been built."""
    folder = cell.store.folder(step)
    folder.mkdir(parents=True)
    write_json(
        folder / MANIFEST,
        {
            "kind": step.kind,
            "version": step.version,
            "name": step.name,
            "key": step.key,
            "parameters": dict(step.parameters),
            "inputs": {role: needed.key for role, needed in step.inputs.items()},
            "files": {"data": {"sha256": "0", "bytes": size}},
            "cost": {"elapsed_s": seconds, "peak_memory_gib": 1.5, "resumed": resumed},
        },
    )


@pytest.fixture(scope="module")
def configs():
    """Eighteen composed cells; a test plans them into its own store."""
    return expand([*SMALL, "budget=200,400,800", "tracker=none"])


@pytest.fixture
def cells(configs, tmp_path):
    planned = []
    for config, name in configs:
        config.store = str(tmp_path / "store")
        planned.append(plan_cell(config, name))
    return planned


def cell_of(cells, arm: str, budget: int | None, task: str = "cola") -> Cell:
    wanted = {"arm": arm, "budget": budget, "task": task}
    return next(c for c in cells if wanted.items() <= dict(c.axes).items())


class TestComposing:
    def both_ways(self, overrides, monkeypatch):
        """Compose by sums and whole; say too how often Hydra was asked for the sums."""
        asked, jobs = Counter(), []

        def counting(*arguments, **named):
            asked["compose"] += 1
            return compose(*arguments, **named)

        def recording(batch):
            jobs.extend(list(job) for job in batch)
            return compose_all(batch)

        with monkeypatch.context() as patch:
            patch.setattr(expansion, "compose", counting)
            patch.setattr(expansion, "compose_all", recording)
            fast = [config for config, _ in expand(overrides)]
        with expansion._configured():
            whole = [compose("config", overrides=job) for job in jobs]
        return fast, whole, asked["compose"]

    def assert_same(self, fast, whole):
        assert len(fast) == len(whole)
        for one, other in zip(fast, whole, strict=True):
            assert OmegaConf.to_container(one) == OmegaConf.to_container(other)
            for name in other:  # a schema is made anew each time Hydra is set up
                kinds = [str(OmegaConf.get_type(c._get_node(name))) for c in (one, other)]
                assert kinds[0] == kinds[1]
            assert OmegaConf.is_struct(one)
            assert plan_cell(one).record.key == plan_cell(other).record.key

    def test_sums_of_single_changes_equal_hydras_own(self, monkeypatch):
        fast, whole, asked = self.both_ways(
            [
                "experiment=glue",
                "task=cola,mnli,stsb",
                "selector=none,got_d,oracle",
                "seed=2",
                "transport.epsilon=0.02",
                "budget=100",
            ],
            monkeypatch,
        )
        self.assert_same(fast, whole)
        assert asked <= 7  # the root, the first, four changes, the farthest; not 9
        assert {config.seed for config in fast} == {2}
        assert {config.selector.method.epsilon for config in fast if "got_d" in config.selector.arm}

    @pytest.mark.slow
    @pytest.mark.parametrize("scale", ["micro", "paper"])
    def test_the_whole_sweep_equals_hydras_own(self, scale, monkeypatch):
        monkeypatch.setattr(Hub, "identity", lambda _: {"name": "hub"})
        overrides = ["experiment=glue", f"scale={scale}", "seed=3"]
        fast, whole, _ = self.both_ways(overrides, monkeypatch)
        assert len(fast) >= 56
        self.assert_same(fast, whole)

    def test_groups_that_reach_beyond_their_node_are_composed_whole(self, monkeypatch):
        fast, whole, _ = self.both_ways(
            [
                "experiment=glue",
                "task=cola,sst2",
                "selector=none,random,got_d",
                "protocol=clean,published",
                "seed=1",
            ],
            monkeypatch,
        )
        self.assert_same(fast, whole)
        assert {c.transport.solver for c in fast} == {"semidual", "published"}

    def test_a_later_value_does_not_leak_into_other_cells(self):
        with expansion._configured():
            first, second = compose_all([["task=cola", "budget=5"], ["task=cola", "budget=7"]])
        assert (first.budget, second.budget) == (5, 7)

    def test_additions_and_deletions_are_left_to_hydra(self):
        with expansion._configured():
            (config,) = compose_all([["experiment=glue/micro", "++budget=9", "~tracker"]])
        assert config.budget == 9
        assert "tracker" not in config

    @pytest.mark.parametrize(
        ("override", "word"),
        [
            ("budget=abc", "budget=abc"),
            ("selector=nope", "nope"),
            ("buget=3", "buget"),
            ("seed=1,2,x", "seed"),
            ("source.path=a,b", "not an axis of a sweep"),
        ],
    )
    def test_a_wrong_override_is_one_line(self, override, word):
        with pytest.raises(SweepError) as error:
            expand([*SMALL, override])
        assert word in str(error.value)
        assert "\n" not in str(error.value)

    def test_what_has_a_key_of_its_own_is_told_apart(self):
        cells = expand([*SMALL, "rank_rows=1000,2000"])
        assert {variant for _, variant in cells} == {"rank_rows=1000", "rank_rows=2000"}

    def test_a_refused_value_is_an_error_of_expand_cells(self):
        with pytest.raises(ValueError, match="budget must be at least 1"):
            expand_cells(["experiment=glue", "task=cola", "selector=random", "seed=1", "budget=0"])


class TestCostModel:
    def test_berts_weights_are_the_published_number(self):
        assert BERT_BASE.weights == pytest.approx(109.5e6, rel=0.01)

    def test_training_takes_six_operations_per_weight_and_token(self, cells):
        step = step_of(cell_of(cells, "random", 400), "pre_fine_tuned")
        settings = step.parameters["settings"]
        shape = MACHINE.shape(step)
        work = MACHINE.work(step)
        assert work is not None
        head = settings["mask_probability"] * shape.hidden * (shape.vocabulary + shape.hidden)
        tokens = 400 * settings["epochs"] * MACHINE.document_tokens
        assert work.flops == pytest.approx(6 * (shape.multiplied + head) * tokens)
        assert work.steps == 25 * settings["epochs"]
        assert work.disk_bytes == 4 * shape.weights
        assert work.memory_bytes > 16 * shape.weights

    def test_twice_the_budget_is_twice_the_training(self, cells):
        small, large = (
            MACHINE.work(step_of(cell_of(cells, "random", budget), "pre_fine_tuned"))
            for budget in (400, 800)
        )
        assert small is not None
        assert large is not None
        assert large.flops == 2 * small.flops
        assert large.steps == 2 * small.steps
        assert large.disk_bytes == small.disk_bytes

    def test_transport_takes_two_m_n_d_per_pass(self, cells):
        ranked = step_of(cell_of(cells, "got_d", 400), "ranking")
        work = MACHINE.work(ranked)
        assert work is not None
        # The micro world: 500 labels less 100 held out, 30,000 documents, width 128.
        assert work.flops == MACHINE.transport_passes * 2 * 400 * 30_000 * 128
        texts_only = MACHINE.work(step_of(cell_of(cells, "random", 400), "ranking"))
        assert texts_only is not None
        assert texts_only.flops == 0

    def test_seconds_follow_the_machine(self):
        work = Work(flops=1e12)
        fast = dataclasses.replace(MACHINE, flops_per_s=2e10, seconds_per_stored_step=0.0)
        slow = dataclasses.replace(MACHINE, seconds_per_stored_step=0.0)
        assert slow.seconds(work) == pytest.approx(1e12 / (1e10 * slow.efficiency))
        assert slow.seconds(work) == pytest.approx(2 * fast.seconds(work))

    def test_a_token_mean_needs_no_network(self, cells):
        embedded = step_of(cell_of(cells, "got_d", 400), "embeddings", reads="candidates")
        work = MACHINE.work(embedded)
        assert work is not None
        assert work.flops == 0
        assert work.disk_bytes == 30_000 * 128 * 4

    def test_every_kind_of_the_protocol_is_counted(self, cells):
        for step in cell_of(cells, "got_d", 400).record.ancestors():
            estimate = from_model(step, MACHINE)
            assert estimate.basis == MODEL
            assert estimate.seconds > 0
            assert estimate.disk_gib > 0
            assert estimate.memory_gib >= MACHINE.runtime_gib

    def test_an_unknown_kind_is_said_to_be_unknown(self, cells):
        record = cells[0].record
        strange = dataclasses.replace(record, kind="strange")
        assert from_model(strange, MACHINE).basis == UNKNOWN

    def test_this_machine_multiplies(self):
        assert this_machine(seconds=0.01).flops_per_s > 1e8


class TestEarlierRuns:
    def built(self, cells, budget, seconds, **named):
        """Pretend that a cell's pre-fine-tuning and all it rests on was built."""
        cell = cell_of(cells, "random", budget)
        step = step_of(cell, "pre_fine_tuned")
        for needed in step.ancestors()[:-1]:
            if not cell.store.is_done(needed):
                pretend(cell, needed, 1.0)
        pretend(cell, step, seconds, **named)
        return step

    def kin(self, cells, step):
        past = read_past(cells[0].store)
        return [p for p in past if likeness(p.step, MACHINE) == likeness(step, MACHINE)]

    def test_time_is_scaled_by_rows(self, cells):
        self.built(cells, 400, seconds=10.0, size=5_000_000)
        wanted = step_of(cell_of(cells, "random", 800), "pre_fine_tuned")
        model = dataclasses.replace(MACHINE, seconds_per_stored_step=0.0)
        estimate = from_past(wanted, self.kin(cells, wanted), model)
        assert estimate is not None
        assert estimate.basis == EARLIER
        assert estimate.seconds == pytest.approx(20.0)
        assert estimate.disk_gib == pytest.approx(5_000_000 / 2**30)
        assert estimate.memory_gib >= 1.5

    def test_every_kind_can_be_scaled(self, tmp_path):
        """A kind that leaves next to nothing on the disk is no division by zero."""
        given = ["experiment=domain", "task=rct", "selector=got_d", "seed=1,2", "tracker=none"]
        for cell in expand_cells([*given, f"store={tmp_path}"])[0]:
            for step in cell.record.ancestors():
                past = [Past(step, seconds=1.0, memory_gib=1.0, disk_bytes=100)]
                known = MACHINE.work(step) is not None
                assert (from_past(step, past, MACHINE) is not None) == known

    def test_the_median_decides(self, cells):
        for budget, seconds in ((200, 5.0), (400, 10.0), (800, 2000.0)):
            self.built(cells, budget, seconds)
        wanted = step_of(cell_of(cells, "got_d", 400), "pre_fine_tuned")
        model = dataclasses.replace(MACHINE, seconds_per_stored_step=0.0, texts_per_s=1e12)
        estimate = from_past(wanted, self.kin(cells, wanted), model)
        assert estimate is not None
        assert estimate.seconds == pytest.approx(10.0, rel=0.05)

    def test_resumed_and_orphaned_artifacts_tell_nothing(self, cells):
        resumed = self.built(cells, 400, 10.0, resumed=True)
        assert self.kin(cells, resumed) == []
        cell = cell_of(cells, "got_d", 400, task="sst2")
        pretend(cell, step_of(cell, "ranking"), 3.0)  # what it read was never made
        assert not [p for p in read_past(cell.store) if p.step.name.startswith("got_d")]

    def test_a_ranking_of_another_method_is_not_alike(self, cells):
        ours, theirs = (step_of(cell_of(cells, a, 400), "ranking") for a in ("got_d", "random"))
        assert likeness(ours, MACHINE) != likeness(theirs, MACHINE)

    def test_an_older_version_tells_nothing(self, cells):
        step = self.built(cells, 400, 1e6)
        path = cells[0].store.folder(step) / MANIFEST
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps({**manifest, "version": 0, "parameters": {}}))
        lines = plan_steps(cells, read_past(cells[0].store), [], MACHINE)
        assert {b for line in lines if line.kind == "pre_fine_tuned" for b in line.bases} == {MODEL}


class TestRecords:
    def record(self, arm="random", budget=400, scale="micro", model="micro", **seconds):
        return {
            "scale": scale,
            "axes": {"task": "cola", "arm": arm, "model": model, "budget": budget},
            "cost": {"stages_s": seconds, "peak_memory_gib": 1.25},
        }

    def need(self, cells, kind, arm="random", budget=400, share=1.0):
        cell = cell_of(cells, arm, budget)
        return Need(step_of(cell, kind), cell.axes, "micro", share)

    def test_time_is_scaled_by_the_budget(self, cells):
        need = self.need(cells, "pre_fine_tuned", budget=800)
        estimate = from_records(need, [self.record(pre_fine_tuned=3.0)], MACHINE)
        assert estimate is not None
        assert estimate.basis == RECORDS
        assert estimate.seconds == pytest.approx(6.0)
        assert estimate.memory_gib == 1.25

    def test_a_need_without_a_budget_takes_the_time_as_it_is(self, cells):
        need = self.need(cells, "pre_fine_tuned", budget=400)
        need = Need(need.step, {**need.axes, "budget": None}, "micro", 1.0)
        estimate = from_records(need, [self.record(pre_fine_tuned=3.0)], MACHINE)
        assert estimate is not None
        assert estimate.seconds == pytest.approx(3.0)

    def test_other_scales_models_and_arms_do_not_count(self, cells):
        need = self.need(cells, "ranking", arm="got_d")
        others = [
            self.record("got_d", scale="folder", ranking=9.0),
            self.record("random", ranking=9.0),
            self.record("got_d", base_model=9.0),
        ]
        assert from_records(need, others, MACHINE) is None
        trained = self.need(cells, "pre_fine_tuned")
        assert from_records(trained, [self.record(model="bert", pre_fine_tuned=1)], MACHINE) is None

    def test_the_nearest_records_count(self, cells):
        need = self.need(cells, "pre_fine_tuned", arm="got_d")
        records = [
            self.record("random", pre_fine_tuned=100.0),
            self.record("got_d", pre_fine_tuned=2.0),
            self.record("got_d", pre_fine_tuned=4.0),
        ]
        estimate = from_records(need, records, MACHINE)
        assert estimate is not None
        assert estimate.seconds == pytest.approx(3.0)

    def test_a_kind_that_a_cell_has_twice_is_shared_out(self, cells):
        cell = cell_of(cells, "got_d", 400)
        lines = plan_steps([cell], [], [self.record("got_d", embeddings=8.0)], MACHINE)
        (line,) = [line for line in lines if line.kind == "embeddings"]
        assert line.to_build == 2
        assert line.bases == {RECORDS: 2}
        assert line.seconds == pytest.approx(8.0)


class TestPlan:
    def counts(self, cells):
        return {line.kind: line.to_build for line in plan_steps(cells, [], [], MACHINE)}

    def test_shared_stages_count_once(self, cells):
        assert self.counts(cells) == {
            "task": 2,
            "candidates": 1,
            "target": 2,
            "base_model": 1,
            "embeddings": 3,
            "ranking": 12,  # rank_rows follows the budget
            "selection": 12,
            "pre_fine_tuned": 12,
            "predictions": 14,
            "record": 14,  # `none` has one cell per task, whatever the budget
        }

    def test_built_stages_and_what_only_they_need_do_not_count(self, cells):
        cell = cell_of(cells, "random", 400)
        pretend(cell, step_of(cell, "pre_fine_tuned"), 2.0)
        pretend(cell, step_of(cell, "selection"), 2.0)
        lines = {line.kind: line for line in plan_steps([cell], [], [], MACHINE)}
        assert lines.keys() == {"task", "pre_fine_tuned", "selection", "predictions", "record"}
        assert lines["pre_fine_tuned"].to_build == 0
        assert lines["pre_fine_tuned"].kept == 1
        assert lines["predictions"].to_build == 1

    def test_a_folder_of_real_rows_is_planned(self, tmp_path, capsys):
        """An embedder with weights of its own is named by what they are, a mapping."""
        rows = [{"sentence": f"text {i}", "label": i % 2, "idx": i} for i in range(20)]
        for name, content in {
            "glue/cola/train": rows,
            "glue/cola/validation": rows,
            "candidates/news": [{"text": f"passage {i}"} for i in range(40)],
        }.items():
            file = tmp_path / "data" / f"{name}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps(row) + "\n" for row in content))
        arguments = ["experiment=glue", "scale=folder", "task=cola", "seed=1", "tracker=none"]
        places = [f"source.path={tmp_path / 'data'}", f"store={tmp_path / 'store'}"]
        assert main(["plan", *arguments, *places]) == 0
        printed = capsys.readouterr().out
        assert "6 cells: 0 done, 0 failed, 6 pending" in printed
        assert "cannot run here" not in printed

    def test_done_cells_need_nothing(self, cells):
        cell = cell_of(cells, "random", 400)
        pretend(cell, cell.record, 1.0)
        assert plan_steps([cell], [], [], MACHINE) == []
        assert state(cell) == "done"

    def test_earlier_runs_win_over_records_and_records_over_the_model(self, cells):
        TestEarlierRuns().built(cells, 400, 10.0)
        records = [
            TestRecords().record("got_d", pre_fine_tuned=5.0, ranking=1.0),
        ]
        cell = cell_of(cells, "got_d", 800)
        past = read_past(cell.store)
        lines = {line.kind: line for line in plan_steps([cell], past, records, MACHINE)}
        assert lines["pre_fine_tuned"].bases == {EARLIER: 1}
        assert lines["ranking"].bases == {RECORDS: 1}
        assert lines["predictions"].bases == {MODEL: 1}


class TestPrinting:
    def printed(self, *arguments, width: int = 80) -> str:
        out = io.StringIO()
        print_plan(*arguments, console=Console(file=out, width=width))
        return out.getvalue()

    def test_it_counts_cells_and_names_what_each_line_rests_on(self, cells, monkeypatch):
        monkeypatch.setattr("gotd.cli.plan.read_records", list)
        done, failed = cell_of(cells, "random", 400), cell_of(cells, "got_d", 400)
        pretend(done, done.record, 1.0)
        failed.failure_path.parent.mkdir(parents=True)
        failed.failure_path.write_text("{}")
        text = self.printed([c for c in cells if c.axes["budget"] in (None, 400)])
        assert "6 cells: 1 done, 1 failed, 4 pending" in text
        assert "0/1 1 failed" in text
        assert "cost model" in text
        assert "GFLOP/s measured now" in text
        assert "…" not in text  # fits 80 columns

    def test_a_sweep_of_budgets_has_a_row_for_each(self, cells):
        text = self.printed(cells)
        assert "14 cells" in text
        for budget in (200, 400, 800):
            assert f"micro budget {budget}" in text

    def test_columns_that_do_not_fit_go_below_and_no_number_is_cut(self, cells):
        grids = [self.printed(cells, width=width).split("14 cells")[0] for width in (80, 40)]
        assert grids[1].count("budget 800") > grids[0].count("budget 800") == 1
        for grid in grids:
            assert sum(int(n) for n in re.findall(r"0/(\d+)", grid)) == 14
            assert all(str(cell.axes["arm"]) in grid for cell in cells)

    def test_a_folder_that_is_not_named_is_told_what_it_must_hold(self, monkeypatch):
        monkeypatch.setenv("DATA", "")
        overrides = ["experiment=glue", "scale=folder", "task=cola,rte", "selector=none", "seed=1"]
        _, missing, _ = lay_out(overrides)
        assert missing is not None
        assert "set DATA=… or source.path=…" in missing
        assert missing.endswith("; this sweep reads candidates/ and the tasks cola, rte")

    def test_without_the_source_it_still_plans(self, monkeypatch):
        def unreachable(_):
            raise SourceUnavailable("task cola needs the data set 'nyu-mll/glue'")

        monkeypatch.setattr(Hub, "identity", unreachable)
        cells, missing, _ = lay_out([*SMALL, "scale=paper"])
        assert missing is not None
        text = self.printed(cells, missing)
        assert "6 cells: 0 done, 0 failed, 6 pending" in text
        (line,) = [line for line in text.splitlines() if "cannot run here" in line]
        assert "task cola needs the data set 'nyu-mll/glue'" in line
        assert text.rstrip().endswith(line)
        (pool,) = {
            s.key: s for c in cells for s in c.record.ancestors() if s.kind == "candidates"
        }.values()
        assert MACHINE.rows(pool) == pytest.approx(2_100_000)  # seven domains of 3e8 characters

    def test_the_command_prints_or_says_in_one_line_what_is_wrong(self, capsys, tmp_path: Path):
        arguments = ["plan", "experiment=glue", "task=cola", "selector=none", "seed=1"]
        assert main([*arguments, f"store={tmp_path}"]) == 0
        assert "1 cells" in capsys.readouterr().out
        assert main([*arguments, "budget=0"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "budget must be at least 1" in error
