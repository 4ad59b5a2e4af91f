"""The benchmarks run, are fair in turns, and say what they could not measure."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.selectors.tsds import knn_kde, knn_uniform

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "experiments" / "benchmarks"


@pytest.fixture(scope="module")
def scripts() -> Iterator[Callable[[str], ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module


@pytest.fixture
def side_by_side(scripts) -> ModuleType:
    return scripts("side_by_side")


def run_quickly(name: str, out: Path) -> tuple[dict, str]:
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), "--quick", "--rounds", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")} | {"DATA": ""}
    done = subprocess.run(
        [*command, "--out", str(out)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    page = (out / f"{name}.md").read_text(encoding="utf-8")
    assert result["command"] == f"python experiments/benchmarks/{name}.py --quick --rounds 2"
    assert result["command"] in page
    assert str(out) not in page
    assert result["seeds"]
    assert len(result["hardware"]["load_average_at_start"]) == 3
    return result, page


def measured_or_explained(row: dict) -> bool:
    return bool(row["core_s"]) != bool(row["reason"])


def test_transport_is_judged_against_an_exact_solution(tmp_path, scripts):
    result, page = run_quickly("transport", tmp_path)
    rows = result["contenders"]
    assert all(map(measured_or_explained, rows.values()))
    assert result["exact_marginal_error"] <= 1e-9
    for name in ("gotd, one pass", "gotd, certified", "POT float64"):
        assert rows[name]["spearman"] > 0.995
        assert len(rows[name]["core_s"]) == 2
    assert rows["gotd, certified"]["marginal_error"] <= 5e-3
    assert result["large"] is None
    assert "| claim |" not in page  # these sizes are not the ones that claims are about
    claimed = {**result, "claims": [{"says": "s", "measured": 1, "wanted": "≥ 1", "holds": True}]}
    assert "| float32 |  |  |  |" in scripts("transport").as_page(claimed)


def test_a_pass_is_held_against_its_products(tmp_path):
    result, page = run_quickly("transport_pass", tmp_path)
    for shape in result["shapes"]:
        assert all(map(measured_or_explained, shape["contenders"].values()))
        assert shape["share_of_products"]["median"] > 0.0
        assert len(shape["contenders"]["pass, float32, no marginals"]["core_s"]) == 2
    assert result["lengths"]["marginal_error"] <= 5e-3
    assert result["lengths"]["peak_mib"] < 200
    assert [row["n"] for row in result["lengths"]["rows"]] == [4000, 8000]
    assert (tmp_path / "transport_pass.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert "](transport_pass.svg)" in page


def test_the_pass_without_marginals_is_the_pass(scripts):
    transport_pass, x = scripts("transport_pass"), np.random.default_rng(0).normal(size=(500, 8))
    problem, potentials = transport_pass.posed(x.astype(np.float32), x[:40].astype(np.float32))
    (whole,), _ = transport_pass.score(problem, potentials, transport_pass.Compute(device="cpu"))
    run = transport_pass.without_marginals(problem.candidates[0], problem.target)()
    np.testing.assert_allclose(run(), whole, atol=1e-6)


def test_dsir_counts_as_the_package_does(tmp_path):
    result, _ = run_quickly("dsir", tmp_path)
    rows = result["contenders"]
    assert all(map(measured_or_explained, rows.values()))
    assert rows["gotd, fast"]["core_s"]
    assert rows["gotd, sha256"]["core_s"]
    difference = result["largest_difference"]
    assert (difference is None) == bool(rows["data-selection"]["reason"])
    if difference is not None:
        assert difference["any"] <= 1e-9


def test_tsds_finds_every_neighbour(tmp_path):
    result, _ = run_quickly("tsds", tmp_path)
    assert result["judged"]["gotd"]["recall"] == 1.0
    assert result["judged"]["gotd"]["density_error_max"] <= 0.01
    for variant in ("uniform", "kde"):
        assert all(map(measured_or_explained, result["runs"][variant].values()))
        assert len(result["runs"][variant]["gotd"]["core_s"]) == 2


def test_the_published_procedure_is_ours_when_it_searches_every_cell(scripts, monkeypatch):
    pytest.importorskip("faiss")
    tsds = scripts("tsds_published")
    monkeypatch.setattr(tsds, "PROBES", 1000)
    pool, target = scripts("side_by_side").mixture(3000, [40], 16, 0)
    settings = tsds.Settings(200, 300, 30)
    procedure = tsds.Published(pool, settings)
    distances, rows = procedure.neighbours(target)
    points, density = procedure.densities(rows)
    density = density[np.searchsorted(points, rows)]
    for theirs, own in (
        (procedure._uniform(distances), knn_uniform(distances, settings.alpha, settings.scale)),
        (
            procedure._by_density(distances, density),
            knn_kde(distances, density, settings.alpha, settings.scale),
        ),
    ):
        assert np.abs(theirs - own.mass).max() < 1e-15


@pytest.mark.slow  # the peer takes ten seconds to import
def test_embeddings_are_those_of_sentence_transformers(tmp_path):
    result, _ = run_quickly("embedding", tmp_path)
    assert all(map(measured_or_explained, result["contenders"].values()))
    assert result["contenders"]["gotd, float32"]["core_s"]
    for name, cosine in result["cosines"].items():
        if cosine is not None:
            assert cosine["least"] >= (0.9999 if "float32" in name else 0.999)


def test_rows_of_memory_have_names_and_estimates_and_are_listed(scripts, capsys, monkeypatch):
    memory = scripts("memory")
    assert len({row.name for row in memory.ROWS}) == len(memory.ROWS)
    bert = [row for row in memory.ROWS if row.model == "bert_base"]
    full, mixed, recomputed, adapted = map(memory.estimate_gib, bert)
    assert full > recomputed > 1.6
    assert mixed > recomputed
    assert adapted < 0.7 * full
    monkeypatch.setattr(
        sys, "argv", ["memory.py", "--list", "--out", str(ROOT / "results/benchmarks")]
    )
    memory.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(memory.ROWS)
    assert sum(line.endswith(" not measured") for line in lines) < len(lines)


@pytest.mark.slow  # three models and two peers to load, in as many processes
def test_toxicity_is_compared_on_the_same_tokens_and_gives_the_same_numbers(tmp_path):
    result, page = run_quickly("toxicity", tmp_path)
    comparisons = {entry["what"]: entry for entry in result["comparisons"]}
    assert len(comparisons) == 4
    for entry in comparisons.values():
        assert all(map(measured_or_explained, entry["contenders"].values()))
        assert len(entry["contenders"]["gotd"]["core_s"]) == 2
    assert comparisons["generation"]["largest_relative_difference"] is None
    assert comparisons["generation"]["amount"] == 2 * 25 * 20
    assert comparisons["perplexity"]["largest_relative_difference"] <= 1e-4
    plain = comparisons["scoring comments"]["contenders"]["Detoxify.predict"]
    difference = comparisons["scoring comments"]["largest_relative_difference"]
    assert (difference is None) == bool(plain["reason"])
    assert "generate, prompt after prompt" in page


@pytest.mark.slow  # starting Ray
def test_engines_agree_to_the_last_bit(tmp_path):
    result, _ = run_quickly("engines", tmp_path)
    assert result["contenders"]["local"]["wall_s"]
    assert (result["identical"] is None) == bool(result["contenders"]["Ray"]["reason"])
    assert result["identical"] in (None, True)


@pytest.mark.slow  # starting Ray once for each size
def test_the_stages_of_a_selection_on_ray_are_all_measured(tmp_path, scripts):
    pytest.importorskip("ray")
    result, page = run_quickly("ray_growth", tmp_path)
    stages = set(scripts("ray_growth").STAGES) - {"kept"}  # only where a row is left out
    for size in result["sizes"]:
        assert stages <= set(size["stages"])
        for stage in ("checksums", "candidates", "left_out", "scored", "verified"):
            assert size["stages"][stage]["worker_core_s"] > 0
    assert "| 1,000,000,000 |" in page


def test_a_prediction_is_the_line_through_the_sizes(scripts):
    ray_growth = pytest.importorskip("ray") and scripts("ray_growth")
    line = ray_growth.fit([1_000_000, 2_000_000, 5_000_000], [5.0, 7.0, 13.0])
    assert (line["fixed"], line["per_million"]) == pytest.approx((3.0, 2.0))
    assert line["residual"] < 1e-9
    assert ray_growth.at(line, 10**9) == pytest.approx(2003.0)
    assert ray_growth.fit([10**6, 2 * 10**6], [4.0, 2.0])["per_million"] == 0.0  # never negative
    cost = dict.fromkeys(("driver_core_s", "to_driver_bytes", "wall_s", "driver_peak_mib"), line)
    lines = dict.fromkeys(("candidates", "scored"), {"worker_core_s": line, **cost})
    found = ray_growth.predict(lines, 10**6)
    assert found["core_hours"] == pytest.approx(4 * 5 / 3600)
    assert found["wall_hours"][16] == pytest.approx((10 / 16 + 10) / 3600)
    assert found["driver_memory_gib"] == pytest.approx(5 / 1024)


def test_contenders_take_turns_and_explain_their_absence(side_by_side, tmp_path):
    log = tmp_path / "turns"

    def contender(name, work_s=0.0):
        def run():
            with log.open("a") as file:
                file.write(name)
            started = time.process_time()
            while time.process_time() - started < work_s:
                pass
            return name

        return side_by_side.Contender(name, lambda: run)

    def refuse():
        raise side_by_side.Unavailable("not on this machine")

    outcomes = side_by_side.take_turns(
        [
            contender("a"),
            contender("b", work_s=0.3),
            side_by_side.Contender("c", refuse),
            side_by_side.Contender("d", lambda: lambda: 1 / 0),
            side_by_side.Contender("e", lambda: lambda: os._exit(3)),
            side_by_side.Contender("f", refuse, needs=("no_such_module",)),
        ],
        rounds=3,
        limit_s=0.5,
    )
    assert log.read_text() == "abbaa"  # b has used its time up before round 3
    assert outcomes["a"].value == "a"
    assert len(outcomes["a"].wall_s) == 3
    assert 0.3 <= outcomes["b"].core_s[0] <= outcomes["b"].wall_s[0] + 0.01
    assert outcomes["c"].reason == "not on this machine"
    assert outcomes["d"].reason == "ZeroDivisionError: division by zero"
    assert outcomes["e"].reason == "its process died"
    assert outcomes["f"].reason == "no_such_module not installed"
    assert side_by_side.ratio(outcomes["b"], outcomes["a"], "wall_s")["median"] > 1
    assert side_by_side.ratio(outcomes["c"], outcomes["a"]) is None


@pytest.mark.slow
def test_the_selection_of_the_readme_runs_and_is_planned(tmp_path):
    result, page = run_quickly("selecting", tmp_path)
    (one,) = result["selections"].values()
    assert one["candidates"] == result["chats"] == 2_000
    assert one["left_out"] > 400  # another language, few stars, copies, chats of the test set
    assert 0 < one["selected"] < one["candidates"] - one["left_out"]
    assert min(one["core_s"], one["planned_core_s"]) > 0
    assert "| README, chats | 2,000 |" in page


@pytest.mark.slow
def test_a_sweep_is_planned_and_run(tmp_path):
    result, page = run_quickly("planning", tmp_path)
    (sweep,) = result["sweeps"].values()
    assert sweep["cells"] == sweep["processes"] == 2
    # The plan names every kind of step that ran, and no other.
    assert set(sweep["planned_s_by_kind"]) == set(sweep["steps_s_by_kind"])
    assert min(sweep["planned_s"], sweep["steps_s"], sweep["core_s"]) > 0
    assert "| glue | 2 | 2 |" in page


@pytest.fixture
def passages(tmp_path):
    """Give a folder of 400 passages in two files and 60 target texts."""
    data = tmp_path / "data"
    for folder in ("candidates", "domain/chemprot"):
        (data / folder).mkdir(parents=True)
    words = np.array([f"word{number}" for number in range(200)])
    drawn = np.random.default_rng(0).integers(0, 200, (460, 30))
    texts = [" ".join(line) for line in words[drawn]]
    for number in range(2):
        own = texts[200 * number : 200 * (number + 1)]
        ids = [f"{number}/{row}" for row in range(200)]
        table = pa.table({"id": ids, "text": own, "domain": ["law"] * 200})
        pq.write_table(table, data / "candidates" / f"{number}.parquet")
    target = pa.table({"text": texts[400:], "label": [0] * 60})
    pq.write_table(target, data / "domain" / "chemprot" / "train.parquet")
    return data


def test_a_part_of_the_passages_is_spread_over_all_files(scripts, passages, tmp_path):
    assert scripts("whole_pool").write_part(passages, 100, tmp_path / "part.parquet") == 100
    ids = pq.read_table(tmp_path / "part.parquet")["id"].to_pylist()
    assert len({*ids}) == 100
    assert sum(name.startswith("1/") for name in ids) == 50


@pytest.mark.slow  # two selections, each in a process of its own
def test_methods_are_measured_on_the_whole_pool(scripts, passages, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(passages))
    chosen = ["--methods", "dsir", "--methods", "perplexity"]
    monkeypatch.setattr(sys, "argv", ["whole_pool.py", "--quick", *chosen, "--out", str(tmp_path)])
    scripts("whole_pool").main()
    result = json.loads((tmp_path / "whole_pool.json").read_text("utf-8"))
    assert [row["method"] for row in result["methods"]] == ["dsir", "perplexity"]
    for row in result["methods"]:
        assert (row["pool"], row["selected"]) == (400, 100)
        assert row["core_s"] > 0.5
        assert 0.05 < row["peak_anonymous_gib"] < 4
    assert str(tmp_path) not in (tmp_path / "whole_pool.md").read_text("utf-8")


@pytest.mark.slow
def test_growth_is_measured_on_selections_that_find_the_target(tmp_path):
    result, page = run_quickly("growth", tmp_path)
    assert [size["rows"] for size in result["sizes"]] == [2_000, 6_000]
    for size in result["sizes"]:
        assert size["share_of_target_topics"] > 0.9
        assert min(size["core_s"], size["peak_anonymous_gib"]) > 0
    assert (tmp_path / result["figure"]).is_file()
    assert "| 6,000 |" in page


@pytest.mark.slow
def test_memory_is_measured_after_each_cell(tmp_path):
    result, page = run_quickly("flat_memory", tmp_path)
    cells = result["cells"]
    assert [cell["arm"] for cell in cells] == ["none", "random", "nearest", "dsir"]
    for cell in cells:
        assert 100 < cell["anonymous_mib"] < cell["resident_mib"]
        # The two are read one after the other.
        assert cell["resident_mib"] <= cell["peak_mib"] + 1
        assert cell["stages"] > 4
    assert len(result["seconds_of_returns"]) == sum(cell["stages"] for cell in cells)
    assert sum(cell["returned_mib"] for cell in cells) > 10
    assert (tmp_path / result["figure"]).is_file()
    assert "| resident memory | " in page


def test_a_slope_of_memory_is_that_of_most_pairs(scripts):
    cells = [{"m": 5.0 + 0.5 * number} for number in range(30)]
    cells[7]["m"] = 100.0
    found = scripts("flat_memory").slope(cells, "m", 4)
    assert found["median"] == pytest.approx(0.5)
    assert found["least"] <= 0.5 <= found["most"] < 1


def test_peak_memory_is_above_what_was_held(side_by_side):
    held = np.ones(2**22)  # 32 MiB

    def run():
        return float((held * 2.0)[0])

    contenders = [side_by_side.Contender("a", lambda: run)]
    peak = side_by_side.take_turns(contenders, 1, 1.0)["a"].peak_mib
    if peak is None:
        pytest.skip("this kernel does not let a process reset its peak")
    assert 30 < peak < 45


def test_fidelity_knows_equal_and_opposite_rankings(side_by_side):
    exact = np.random.default_rng(0).permutation(1000).astype(float)
    same = side_by_side.fidelity(3.0 * exact + 1.0, exact)
    assert same["spearman"] == pytest.approx(1.0)
    assert same["top_1"] == same["top_10"] == 1.0
    opposite = side_by_side.fidelity(-exact, exact)
    assert opposite["spearman"] == pytest.approx(-1.0)
    assert opposite["top_5"] == 0.0
    swapped = exact.copy()
    swapped[exact == 9], swapped[exact == 10] = 10, 9
    assert side_by_side.fidelity(swapped, exact)["top_1"] == 0.9


def test_a_claim_without_a_measurement_is_left_open(side_by_side):
    assert side_by_side.claim("speed", None, 2.0)["holds"] is None
    assert side_by_side.claim("speed", 2.5, 2.0)["holds"] is True
    assert side_by_side.claim("error", 2.5, 2.0, at_most=True)["holds"] is False


@pytest.mark.slow
def test_every_selector_without_a_model_is_timed(tmp_path):
    result, page = run_quickly("selection", tmp_path)
    assert {"bm25", "facility_location", "unbalanced_ot", "tsds"} <= set(result["contenders"])
    assert not {"loss_drop", "less", "oracle", "none"} & set(result["contenders"])
    for name, row in result["contenders"].items():
        assert measured_or_explained(row), name
        assert f"| {name} |" in page


def test_the_proven_share_grows_with_the_tolerance(tmp_path):
    result, page = run_quickly("proofs", tmp_path)
    rows = result["rows"]
    assert [row["name"] for row in rows][-1] == "prove"
    for number in (0, 1):
        proven = [row["selections"][number]["proven_share"] for row in rows]
        assert proven == sorted(proven)
        assert proven[-1] == 1.0
        for row in rows:
            chosen = row["selections"][number]
            assert chosen["proven_share"] <= chosen["right_share"]
    assert "tolerance 0.005" in page


@pytest.mark.slow
def test_the_start_of_commands_is_measured(tmp_path):
    result, page = run_quickly("start", tmp_path)
    spent = result["core_s"]
    assert all(len(runs) == 2 for runs in spent.values())
    assert max(spent["gotd --help"]) < min(spent["gotd select, four lines"])
    assert "| gotd --help, core-s |" in page


def test_without_a_gpu_nothing_is_measured(scripts, capsys, monkeypatch, tmp_path):
    gpu = scripts("gpu")
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        gpu.main()
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.err == "no CUDA device: nothing is measured; --cpu runs tiny sizes\n"
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_cell_of_the_gpu_benchmark_runs_on_a_processor(tmp_path):
    pytest.importorskip("triton")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TRITON_INTERPRET": "1"}
    command = [sys.executable, str(SCRIPTS / "gpu.py"), "--cpu", "--rounds", "2"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    rows = {(row["section"], row["size"], row["name"]): row for row in result["rows"]}
    assert len(rows) == len(result["rows"]) == 17
    for key, row in rows.items():
        assert bool(row["seconds"]) != bool(row["reason"]), key
    for (section, _, name), row in rows.items():
        if section == "solves" and name.startswith("gotd"):
            assert row["marginal_error"] <= 5e-3
            assert row["steps"] >= 1
        if section == "passes" and row["seconds"]:
            assert row["difference"] <= (1e-5 if "float32" in name else 0.05)
        if section == "models":
            assert min(row["planned_s"], row["planned_gib"], row["peak_gib"]) > 0, row
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| claim |" not in page  # these sizes are not the ones that goals are about
    assert str(tmp_path) not in page
