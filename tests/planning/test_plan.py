"""What a sweep would run and cost: counting, estimates on synthetic evidence, composing."""

import dataclasses
import io
import json
import math
import os
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose
from omegaconf import OmegaConf
from rich.console import Console

from gotd.cli.main import main
from gotd.cli.plan import print_missing, print_plan
from gotd.config.discovery import conf_folder
from gotd.data.base import SourceUnavailable
from gotd.data.folder import Folder
from gotd.data.hub.source import Hub
from gotd.data.microworld.toxic import ToxicMicroworld
from gotd.data.microworld.world import Microworld
from gotd.data.sizes import DOCUMENT_TOKENS
from gotd.pipeline.experiment import Cell, plan_cell
from gotd.planning.estimates import (
    EARLIER,
    MODEL,
    UNKNOWN,
    Estimate,
    Machine,
    Past,
    estimate,
    read_past,
    this_machine,
)
from gotd.planning.plan import (
    Concurrency,
    Line,
    concurrency,
    lay_out,
    plan_steps,
    state,
    wall_seconds,
)
from gotd.runs import expand as expansion
from gotd.runs.expand import SweepError, compose_all, expand, expand_cells
from gotd.selectors.transport_settings import READ_TARGETS, SOLVE_PASSES
from gotd.storage.artifacts import MANIFEST, Step, write_json
from gotd.storage.shapes import BERT_BASE, PUBLISHED, Shape
from gotd.storage.work import Work
from gotd.training.causal_lm import CausalLMSettings
from gotd.training.memory import RUNTIME_GIB

MACHINE = Machine(flops_per_s=1e10)
SMALL = ["experiment=glue", "task=cola,sst2", "selector=none,random,got_d", "seed=1"]


def step_of(cell: Cell, kind: str, reads: str | None = None) -> Step:
    found = [step for step in cell.record.ancestors() if step.kind == kind]
    if reads is not None:
        found = [s for s in found if reads in {i.kind for i in s.inputs.values()}]
    (step,) = found
    return step


def pretend(cell: Cell, step: Step, seconds: float, size: int = 1000, resumed=False, work=Work):
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
            "work": work and dataclasses.asdict(step.stated),
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
        with expansion.composing():
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
        monkeypatch.setattr(Hub, "candidates", lambda _: [])
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
        with expansion.composing():
            first, second = compose_all([["task=cola", "budget=5"], ["task=cola", "budget=7"]])
        assert (first.budget, second.budget) == (5, 7)

    def test_additions_and_deletions_are_left_to_hydra(self):
        with expansion.composing():
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

    def test_processes_are_those_of_the_launcher(self):
        given = ["experiment=glue", "task=cola", "selector=random", "seed=1"]
        assert concurrency(given) == Concurrency(processes=2, threads=1)
        assert concurrency([*given, "hydra/launcher=basic"]).processes == 1
        every = concurrency([*given, "hydra.launcher.n_jobs=-1"]).processes
        assert every == os.cpu_count()
        with pytest.raises(SweepError, match="n_jobs=0 runs nothing; give the cells to run"):
            expand([*given, "hydra.launcher.n_jobs=0"])

    def test_a_base_of_all_cells_is_built_by_one_process(self):
        lines = [
            Line("base_model", [Estimate(100.0, 1.0, 0.0, "")], 0),
            Line("record", [Estimate(10.0, 1.0, 0.0, "")] * 4, 0),
        ]
        machine = dataclasses.replace(MACHINE, seconds_to_start=5.0, seconds_per_cell=1.0)
        assert wall_seconds(lines, 4, 1, machine) == 5 + 4 + 100 + 40
        assert wall_seconds(lines, 4, 2, machine) == 5 + 2 + 100 + 20

    def test_a_refused_value_is_an_error_of_expand_cells(self):
        with pytest.raises(ValueError, match="budget must be at least 1"):
            expand_cells(["experiment=glue", "task=cola", "selector=random", "seed=1", "budget=0"])


class TestStatedWork:
    def test_berts_weights_are_the_published_number(self):
        assert BERT_BASE.weights == pytest.approx(109.5e6, rel=0.01)

    def test_training_takes_six_operations_per_weight_and_token(self, cells):
        cell = cell_of(cells, "random", 400)
        work, settings = step_of(cell, "pre_fine_tuned").stated, cell.pre_fine_tune
        shape = work.shape
        assert shape is not None
        assert (shape.layers, shape.hidden) == (1, 128)
        head = settings.mask_probability * shape.hidden * (shape.vocabulary + shape.hidden)
        tokens = 400 * settings.epochs * DOCUMENT_TOKENS
        assert work.flops == pytest.approx(6 * (shape.multiplied + head) * tokens)
        assert work.steps == 25 * settings.epochs
        assert work.disk_bytes == 4 * shape.weights
        assert work.memory_bytes > 12 * shape.weights

    def test_twice_the_budget_is_twice_the_training(self, cells):
        small, large = (
            step_of(cell_of(cells, "random", budget), "pre_fine_tuned").stated
            for budget in (400, 800)
        )
        assert large.flops == 2 * small.flops
        assert large.steps == 2 * small.steps
        assert large.disk_bytes == small.disk_bytes

    def test_a_causal_model_trains_on_full_blocks(self):
        settings = CausalLMSettings(learning_rate=1, epochs=2, max_length_tokens=50, max_steps=9)
        shape = Shape(1, 64, 4, 256, 1000, family="gpt2")
        work = settings.work(shape, rows=640, tokens=100)  # 1,280 blocks: 40 steps of 64
        every = shape.multiplied + shape.hidden * (shape.vocabulary + shape.hidden)
        assert (work.texts, work.steps) == (640, 9)
        assert work.flops == 6 * every * 9 * 64 * 50

    def test_transport_takes_two_m_n_d_per_pass(self, cells):
        work = step_of(cell_of(cells, "got_d", 400), "pool_scores").stated
        # The micro world: 500 labels less 100 held out, 30,000 documents, width 128.
        assert work.flops == SOLVE_PASSES * 2 * (400 + READ_TARGETS) * 30_000 * 128
        assert step_of(cell_of(cells, "random", 400), "pool_scores").stated.flops == 0

    def test_each_selector_is_priced_by_its_own_passes(self, tmp_path):
        """They were once all priced like `nearest`, which compares each pair once."""
        given = ["experiment=glue", "task=cola", "seed=1", f"store={tmp_path}", "tracker=none"]
        arms = "selector=nearest,got_d,got_d_path,got_d_clusters"
        cells = list(expand_cells([*given, arms, "budget=200", "rank_rows=3000"])[0].values())
        flops = {}
        for cell in cells:
            (scored,) = (s for s in cell.record.ancestors() if s.kind.startswith("pool_"))
            flops[cell.axes["arm"]] = scored.stated.flops
        assert flops["got_d"] > 2 * flops["nearest"]
        assert flops["got_d_path"] > 2 * flops["got_d"]
        assert flops["got_d_clusters"] > 2 * flops["nearest"]
        assert len(set(flops.values())) == 4

    def test_seconds_follow_the_machine(self):
        work = Work(flops=1e12)
        fast = dataclasses.replace(MACHINE, flops_per_s=2e10, seconds_per_stored_step=0.0)
        slow = dataclasses.replace(MACHINE, seconds_per_stored_step=0.0)
        assert slow.seconds(work) == pytest.approx(1e12 / (1e10 * slow.efficiency))
        assert slow.seconds(work) == pytest.approx(2 * fast.seconds(work))

    def test_a_token_mean_needs_no_network(self, cells):
        embedded = step_of(cell_of(cells, "got_d", 400), "embeddings", reads="pool")
        assert embedded.stated.flops == 0
        assert embedded.stated.disk_bytes == 30_000 * 128 * 4

    @pytest.mark.parametrize(("fitted_on", "texts"), [("pool", 3000), ("pool_and_target", 3400)])
    def test_an_encoder_is_fitted_on_a_sample(self, tmp_path, fitted_on, texts):
        given = ["experiment=glue", "task=cola", "seed=1", f"store={tmp_path}", "selector=got_d"]
        given += ["embedder=tfidf_svd", f"embedder.fitted_on={fitted_on}", "tracker=none"]
        (cell,) = expand_cells([*given, "budget=200"])[0].values()
        fitted, embedded = (
            step_of(cell, kind, reads="pool") for kind in ("fitted_encoder", "embeddings")
        )
        assert fitted.stated.texts == texts  # 400 of them of the target
        assert (embedded.stated.texts, embedded.stated.width) == (30_000, 128)
        assert estimate(fitted, {}, MACHINE).seconds > 0

    def test_a_screened_pool_is_smaller(self, tmp_path):
        given = ["experiment=glue", "task=cola", "seed=1", f"store={tmp_path}", "selector=got_d"]
        cells = list(expand_cells([*given, "candidates.screen=2", "tracker=none"])[0].values())
        flops = SOLVE_PASSES * 2 * (400 + READ_TARGETS) * 128 * math.ceil(30_000 * 2 / 7)
        assert step_of(cells[0], "pool_scores").stated.flops == flops

    @pytest.mark.parametrize("experiment", ["glue", "domain", "zeroshot", "toxicity", "labels"])
    def test_every_step_of_every_experiment_states_its_work(self, experiment, tmp_path):
        given = [f"experiment={experiment}", "seed=1", "tracker=none", f"store={tmp_path}"]
        for cell in expand_cells(given)[0].values():
            for step in cell.record.ancestors():
                expected = estimate(step, {}, MACHINE)
                assert expected.basis == MODEL, step.kind
                assert expected.seconds > 0
                assert expected.disk_gib > 0
                assert expected.memory_gib >= RUNTIME_GIB

    def test_a_step_that_states_no_work_is_shown_as_unknown(self, cells):
        step = dataclasses.replace(cells[0].record, work=None)
        assert estimate(step, {}, MACHINE).basis == UNKNOWN
        with pytest.raises(ValueError, match="does not state its work"):
            _ = step.stated

    def test_this_machine_multiplies(self):
        assert this_machine(seconds=0.01).flops_per_s > 1e8


class TestExpectedRows:
    def test_a_generated_world_knows_its_rows(self):
        world = ToxicMicroworld(comments=40, candidate_documents=1000)
        assert world.count("candidates") == 1000
        assert world.count("wiki_comments/train") == 40
        assert Microworld(labels=30).count("cola/train") == 30
        assert Microworld().count("nothing/train") is None

    def test_the_hub_has_the_published_rows(self):
        hub = Hub(chars_per_domain=300_000, domains=("realnews", "wikipedia"))
        assert hub.count("candidates") == 600
        assert hub.count("cola/train") == 8_551
        assert hub.count("pretraining") is None

    def test_a_folder_counts_its_files(self, tmp_path):
        (tmp_path / "candidates").mkdir()
        pq.write_table(pa.table({"text": ["a"] * 400}), tmp_path / "candidates/a.parquet")
        (tmp_path / "glue" / "cola").mkdir(parents=True)
        (tmp_path / "glue/cola/train.jsonl").write_text("x" * 300 * 5)
        folder = Folder(str(tmp_path), held_out_share=0.25)
        assert folder.count("candidates") == 300
        assert folder.count("pretraining") == 100
        assert folder.count("cola/train") == 5
        assert folder.count("cola/test") is None
        assert Folder(str(tmp_path), held_out_share=0.0, limit=10).count("candidates") == 10
        assert Folder("").count("candidates") is None


class TestEarlierRuns:
    def built(self, cells, budget, seconds, **named):
        """Pretend that a cell's pre-fine-tuning was built."""
        cell = cell_of(cells, "random", budget)
        step = step_of(cell, "pre_fine_tuned")
        pretend(cell, step, seconds, **named)
        return step

    def estimated(self, cells, step, machine=MACHINE):
        return estimate(step, read_past(cells[0].store), machine)

    def test_time_is_scaled_by_rows(self, cells):
        self.built(cells, 400, seconds=10.0, size=5_000_000)
        wanted = step_of(cell_of(cells, "random", 800), "pre_fine_tuned")
        machine = dataclasses.replace(MACHINE, seconds_per_stored_step=0.0)
        expected = self.estimated(cells, wanted, machine)
        assert expected.basis == EARLIER
        assert expected.seconds == pytest.approx(20.0)
        assert expected.disk_gib == pytest.approx(5_000_000 / 2**30)
        assert expected.memory_gib >= 1.5

    def test_every_kind_can_be_scaled(self, tmp_path):
        """A kind that leaves next to nothing on the disk is no division by zero."""
        given = ["experiment=domain", "task=rct", "selector=got_d", "seed=1,2", "tracker=none"]
        for cell in expand_cells([*given, f"store={tmp_path}"])[0].values():
            for step in cell.record.ancestors():
                past = {(step.kind, step.stated.rate): [Past(step.stated, 1.0, 1.0, 100)]}
                assert estimate(step, past, MACHINE).basis == EARLIER

    def test_the_median_decides(self, cells):
        for budget, seconds in ((200, 5.0), (400, 10.0), (800, 2000.0)):
            self.built(cells, budget, seconds)
        wanted = step_of(cell_of(cells, "got_d", 400), "pre_fine_tuned")
        machine = dataclasses.replace(MACHINE, seconds_per_stored_step=0.0, texts_per_s=1e12)
        assert self.estimated(cells, wanted, machine).seconds == pytest.approx(10.0, rel=0.05)

    def test_resumed_artifacts_and_those_without_work_are_ignored(self, cells):
        resumed = self.built(cells, 400, 10.0, resumed=True)
        silent = self.built(cells, 200, 10.0, work=None)
        for step in (resumed, silent):
            assert self.estimated(cells, step).basis == MODEL

    def test_only_steps_of_the_same_rate_are_compared(self, cells):
        cell = cell_of(cells, "got_d", 400)
        ours, theirs = (step_of(cell_of(cells, a, 400), "pool_scores") for a in ("got_d", "random"))
        pretend(cell, theirs, 3.0)
        assert self.estimated(cells, ours).basis == MODEL
        assert self.estimated(cells, theirs).basis == EARLIER

    def test_networks_of_other_sizes_are_not_compared(self):
        settings = CausalLMSettings(learning_rate=1, epochs=2)
        rates = {settings.work(shape, 10, 10).rate for shape in (BERT_BASE, PUBLISHED["minilm"])}
        assert len(rates) == 2

    def test_a_built_step_has_its_work_in_its_manifest(self, cells):
        cell = cell_of(cells, "random", 400)
        task = step_of(cell, "task")
        cell.store.get(task)
        manifest = cell.store.manifest(task)
        assert manifest["work"]["rows"] == 400
        (alike,) = read_past(cell.store)["task", "read"]
        assert alike.work == task.stated

    def test_a_step_whose_work_cannot_be_stated_is_built(self, cells):
        def fail():
            raise FileNotFoundError("no source")

        cell = cell_of(cells, "random", 400)
        task = dataclasses.replace(step_of(cell, "task"), work=fail)
        cell.store.get(task)
        assert cell.store.manifest(task)["work"] is None
        assert read_past(cell.store) == {}


class TestPlan:
    def counts(self, cells):
        return {line.kind: len(line.estimates) for line in plan_steps(cells, {}, MACHINE)}

    def test_shared_stages_count_once(self, cells):
        assert self.counts(cells) == {
            "task": 2,
            "pool": 1,
            "target": 2,
            "base_model": 1,
            "embeddings": 3,
            "pool_scores": 3,  # they hold for every budget; those of random for both tasks
            "selection": 12,
            "selected_rows": 3,
            "pre_fine_tuned": 9,
            "predictions": 14,
            "target_loss": 14,  # that of a base serves all cells of a task
            "record": 14,  # `none` has one cell per task, whatever the budget
        }

    def test_built_stages_and_what_only_they_need_do_not_count(self, cells):
        cell = cell_of(cells, "random", 400)
        pretend(cell, step_of(cell, "pre_fine_tuned"), 2.0)
        pretend(cell, step_of(cell, "selection"), 2.0)
        lines = {line.kind: line for line in plan_steps([cell], {}, MACHINE)}
        needed = {"task", "pre_fine_tuned", "selection", "predictions", "record"}
        # The base is read again, for its loss on the target's texts.
        assert lines.keys() == needed | {"base_model", "target_loss"}
        assert lines["pre_fine_tuned"].estimates == []
        assert lines["pre_fine_tuned"].built == 1
        assert len(lines["predictions"].estimates) == 1

    def test_kinds_follow_what_they_read(self, cells):
        kinds = list(self.counts(cells))
        assert kinds[-1] == "record"
        for step in cell_of(cells, "got_d", 400).record.ancestors():
            for read in step.inputs.values():
                assert kinds.index(read.kind) < kinds.index(step.kind)

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
        assert "9 cells: 0 done, 0 failed, 9 pending" in printed
        assert "cannot run here" not in printed

    def test_done_cells_need_nothing(self, cells):
        cell = cell_of(cells, "random", 400)
        pretend(cell, cell.record, 1.0)
        assert plan_steps([cell], {}, MACHINE) == []
        assert state(cell) == "done"

    def test_earlier_runs_win_over_the_model(self, cells):
        TestEarlierRuns().built(cells, 400, 10.0)
        cell = cell_of(cells, "got_d", 800)
        lines = plan_steps([cell], read_past(cell.store), MACHINE)
        bases = {line.kind: [e.basis for e in line.estimates] for line in lines}
        assert bases["pre_fine_tuned"] == [EARLIER]
        assert bases["predictions"] == [MODEL]


class TestPrinting:
    def printed(self, *arguments, width: int = 80) -> str:
        out = io.StringIO()
        print_plan(*arguments, console=Console(file=out, width=width))
        return out.getvalue()

    def test_it_counts_cells_and_names_what_each_line_is_based_on(self, cells):
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

    def test_every_line_fits_80_columns(self, cells, tmp_path):
        """Words are not broken, and neither are titles at the width of a small table."""
        given = ["experiment=glue", "task=cola", "seed=1", f"store={tmp_path}", "tracker=none"]
        given += ["selector=none,random", "model=gpt2", "model.spec.pretrained=null"]
        large = list(expand_cells([*given, "pre_fine_tune=gpt2"])[0].values())
        for planned in (cells, large):
            text = self.printed(planned)
            assert max(map(len, text.splitlines())) <= 80
        titles = ("cells done / all seeds", "memory of pre-fine-tuning gpt2 by rows of")
        assert all(any(title in line for line in text.splitlines()) for title in titles)

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
        announced: list[str] = []
        cells, missing, _ = lay_out([*SMALL, "scale=paper"], announced.append)
        assert announced == [missing]
        text = self.printed(cells)
        assert "6 cells: 0 done, 0 failed, 6 pending" in text
        out = io.StringIO()
        print_missing(announced[0], Console(file=out, width=40))
        said = out.getvalue()
        assert max(map(len, said.splitlines())) <= 40
        assert "cannot run here yet: task cola needs the data set" in " ".join(said.split())
        pools = {s.key: s for c in cells for s in c.record.ancestors() if s.kind == "pool"}
        (pool,) = pools.values()
        assert pool.stated.rows == 2_100_000  # seven domains of 3e8 characters

    @pytest.mark.parametrize("experiment", ["glue", "domain", "zeroshot", "toxicity", "labels"])
    @pytest.mark.parametrize("scale", ["folder", "paper"])
    def test_every_experiment_is_planned_without_its_rows(self, experiment, scale, monkeypatch):
        def unreachable(_):
            raise SourceUnavailable("nothing is at hand")

        monkeypatch.setenv("DATA", "")
        monkeypatch.setattr(Hub, "identity", unreachable)
        if (conf_folder() / "experiment" / experiment / f"{scale}.yaml").exists():
            given = [f"experiment={experiment}", f"scale={scale}", "seed=1", "selector=got_d"]
            cells, missing, _ = lay_out(given)
            assert missing is not None
            lines = plan_steps(cells, {}, MACHINE)
            assert {e.basis for line in lines for e in line.estimates} == {MODEL}

    def test_a_large_model_has_a_table_of_memory(self, tmp_path):
        given = ["experiment=glue", "task=cola", "seed=1", f"store={tmp_path}", "tracker=none"]
        given += ["selector=none,random", "model=gpt2", "model.spec.pretrained=null"]
        cells = list(expand_cells([*given, "pre_fine_tune=gpt2"])[0].values())
        text = self.printed(cells)
        assert "memory of pre-fine-tuning gpt2 by rows of" in text
        for way in ("full, recomputed, fsdp on 8", "lora, recomputed, bf16 weights"):
            assert way in text

    def test_the_command_prints_or_says_in_one_line_what_is_wrong(self, capsys, tmp_path: Path):
        arguments = ["plan", "experiment=glue", "task=cola", "selector=none", "seed=1"]
        assert main([*arguments, f"store={tmp_path}"]) == 0
        assert "1 cells" in capsys.readouterr().out
        assert main([*arguments, "budget=0"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "budget must be at least 1" in error
