"""`gotd diff` counts what two selections share and shows what they do not."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from gotd.cli.main import main
from gotd.selection_report.diff import compare


def write(path, ids, domain="a"):
    rows = {
        "id": ids,
        "text": [f"text of {name} " + "x" * 10 for name in ids],
        "score": np.arange(len(ids), dtype=float),
        "rank": np.arange(1, len(ids) + 1),
        "domain": [domain] * len(ids),
    }
    pq.write_table(pa.table(rows), path)
    return path


def test_overlap_jaccard_and_rank_correlation(tmp_path):
    random = np.random.default_rng(0)
    names = [f"r{i:03d}" for i in range(130)]
    ids = [[names[i] for i in random.permutation(130)[:100]] for _ in range(2)]
    one = write(tmp_path / "one.parquet", ids[0])
    other = write(tmp_path / "other.parquet", ids[1], "b")
    page = compare(one, other)
    both = [name for name in ids[0] if name in ids[1]]
    either = len(set(ids[0]) | set(ids[1]))
    correlation = spearmanr([ids[0].index(n) for n in both], [ids[1].index(n) for n in both])[0]
    assert f"| of these in both | {len(both)} | {len(both)} |" in page
    assert f"Jaccard index {len(both) / either:.4f}" in page
    assert f"rank correlation of the rows in both {correlation:.4f}" in page
    assert "| `a` | 100 | 0 |" in page
    only = [name for name in ids[0] if name not in ids[1]]
    section = page.split("## Only in `one.parquet`")[1].split("## Only in `other.parquet`")[0]
    shown = [line.split(" | ")[1].strip("`") for line in section.splitlines()[4:9]]
    assert shown == only[:5]


def test_rows_that_repeat_count_once(tmp_path):
    one = write(tmp_path / "one.parquet", ["a", "b", "a", "c"])
    other = write(tmp_path / "other.parquet", ["a", "b"])
    page = compare(one, other)
    assert "| rows | 4 | 2 |" in page
    assert "| distinct rows | 3 | 2 |" in page
    assert "Jaccard index 0.6667; rank correlation of the rows in both 1.0000" in page


def test_two_folders_say_what_was_asked_for(capsys, given, tmp_path):
    for name, more in (("one", ()), ("other", ("--method", "nearest", "--seed", "7"))):
        arguments = given.arguments("--out", str(tmp_path / name), "--budget", "40", *more)
        assert main(arguments) == 0
    capsys.readouterr()
    assert main(["diff", str(tmp_path / "one"), str(tmp_path / "other")]) == 0
    page = capsys.readouterr().out
    assert "| `request.method` | `got_d` | `nearest` |" in page
    assert "| `request.seed` | 0 | 7 |" in page
    assert "## Length" in page
    assert main(["diff", str(tmp_path / "one"), str(tmp_path / "one")]) == 0
    page = capsys.readouterr().out
    assert "Jaccard index 1.0000" in page
    assert "The same inputs, method and settings." in page


def test_a_selection_of_an_experiment_is_read_too(tmp_path):
    folder = tmp_path / "got_d-rte-100-0123456789ab"
    folder.mkdir()
    write(folder / "selection.parquet", ["a", "b"])
    manifest = {"kind": "selection", "name": folder.name, "parameters": {"budget": 2}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    bare = pa.table({"id": ["b", "c"]})
    pq.write_table(bare, tmp_path / "bare.parquet")
    page = compare(folder, tmp_path / "bare.parquet")
    assert "Jaccard index 0.3333." in page


def test_rows_of_elsewhere_are_compared_as_they_are(tmp_path):
    table = pa.table({"id": [1, 2, 3], "text": ["x", None, "z"], "domain": [None, "d", "d"]})
    pq.write_table(table.append_column("rank", [[1, None, 2]]), tmp_path / "one.parquet")
    other = write(tmp_path / "other.parquet", ["1", "3", "4"])
    page = compare(tmp_path / "one.parquet", other)
    assert "| of these in both | 2 | 2 |" in page
    assert "rank correlation of the rows in both 1.0000" in page
    assert "| `d` | 2 | 0 |" in page


def test_only_what_differs_is_shown_and_short(tmp_path):
    for name, sha, last in (("one", "a" * 64, 0.25), ("other", "b" * 64, 0.125)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "selected.parquet", ["a", "b"])
        files = [{"file": f"same-{n}", "sha256": "0" * 64} for n in range(50)]
        manifest = {
            "inputs": {"candidates": [*files, {"file": "mine", "sha256": sha}]},
            "diagnostics": {"history": [1.0, 0.5, 0.4, 0.3, last], "epsilon": 1 / 3 + last / 1e9},
        }
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
    page = compare(tmp_path / "one", tmp_path / "other")
    assert "same-" not in page
    assert f"| `inputs.candidates.mine.sha256` | `{'a' * 12}` | `{'b' * 12}` |" in page
    assert "| `diagnostics.epsilon` | 0.33333333358" in page  # not so short that they look alike
    assert (
        "| `diagnostics.history` | `5 values, the last 0.25` | `5 values, the last 0.125` |" in page
    )
    assert max(map(len, page.split("differs")[1].splitlines())) < 120


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: None, "holds no selection"),
        (lambda folder: folder.joinpath("selected.parquet").write_bytes(b"x"), "is damaged"),
        (
            lambda folder: pq.write_table(pa.table({"x": [1]}), folder / "selected.parquet"),
            "has no column 'id'; it has x",
        ),
        (
            lambda folder: pq.write_table(
                pa.table({"id": ["a", None]}), folder / "selected.parquet"
            ),
            "selected.parquet row 2: 'id' is null",
        ),
        (
            lambda folder: pq.write_table(
                pa.table({"id": pa.array([], pa.string())}), folder / "selected.parquet"
            ),
            "selected.parquet has no rows",
        ),
        (
            lambda folder: [
                write(folder / "selected.parquet", ["a"]),
                (folder / "manifest.json").write_text("{"),
            ],
            "manifest.json is damaged",
        ),
        (
            lambda folder: [
                write(folder / "selected.parquet", ["a"]),
                (folder / "manifest.json").write_text("[]"),
            ],
            "manifest.json is damaged",
        ),
        (
            lambda folder: [write(folder / f"selected-{n}.parquet", ["a"]) for n in (1, 2)],
            "holds 2 budgets; name one file",
        ),
    ],
)
def test_what_is_no_selection_is_one_line(capsys, tmp_path, make, says):
    (tmp_path / "one").mkdir()
    make(tmp_path / "one")
    other = write(tmp_path / "other.parquet", ["a"])
    assert main(["diff", str(tmp_path / "one"), str(other)]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1
    assert main(["diff", str(tmp_path / "none"), str(other)]) == 2
    assert "no selection at" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".hf"])
def test_every_format_of_an_output_is_read(given, tmp_path, suffix):
    pages = []
    for kind in (".parquet", suffix):
        for name, seed in (("one", "0"), ("other", "1")):
            (tmp_path / kind).mkdir(exist_ok=True)
            out = str(tmp_path / kind / f"{name}{kind}")
            more = ("--budget", "40", "--method", "random", "--seed", seed)
            assert main(given.arguments("--out", out, *more)) == 0
        files = [tmp_path / kind / f"{name}{kind}" for name in ("one", "other")]
        pages.append(compare(*files))
        # The folder of the reports stands for the file beside it.
        folders = [tmp_path / kind / f"{name}.gotd" for name in ("one", "other")]
        assert compare(*folders).replace(".gotd", kind) == pages[-1]
    assert pages[1].replace(suffix, ".parquet") == pages[0]
    assert "| `request.seed` | 0 | 1 |" in pages[0]


def test_files_with_the_original_columns_are_compared_by_gotd_s_own(given, tmp_path):
    for name, seed in (("one", "0"), ("other", "1")):
        out = str(tmp_path / f"{name}.parquet")
        more = ("--budget", "40", "--method", "random", "--seed", seed)
        assert main(given.arguments("--out", out, *more)) == 0
    page = compare(tmp_path / "one.parquet", tmp_path / "other.parquet")
    both = [
        set(pq.read_table(tmp_path / f"{n}.parquet")["gotd_id"].to_pylist())
        for n in ("one", "other")
    ]
    assert f"Jaccard index {len(both[0] & both[1]) / len(both[0] | both[1]):.4f}" in page
    assert "request.seed" in page
