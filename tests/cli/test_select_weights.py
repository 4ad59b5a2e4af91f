"""Weights of the whole pool: their meaning, and which rows and columns the file has."""

from __future__ import annotations

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd import GOTD
from gotd.cli.main import main
from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.pipeline.weights import WeightedPool
from gotd.selectors.dsir import DSIR
from gotd.selectors.weights import Weighting


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def pool(given, tmp_path_factory):
    """The texts of the pool with a nested column, a blank row and two repeated texts."""
    path = tmp_path_factory.mktemp("weights") / "pool.jsonl"
    texts = list(given.rows.values())
    rows = [{"text": text, "meta": {"n": n, "tag": [str(n)]}} for n, text in enumerate(texts)]
    rows[5:5] = [{"text": " ", "note": "blank"}]
    rows += [{"text": text} for text in texts[:2]]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path, rows


def weigh(given, pool, out, *more):
    assert main(given.arguments("--weights", str(out), *more, pool=str(pool))) == 0
    manifest = json.loads((out.with_suffix(".gotd") / "manifest.json").read_text("utf-8"))
    return manifest["weights"]


@pytest.mark.parametrize("seed", ["0", "5"])
def test_a_weight_of_dsir_is_the_likelihood_ratio(given, pool, tmp_path, seed):
    path, rows = pool
    stated = weigh(given, path, tmp_path / "w.jsonl", "--method", "dsir", "--seed", seed)
    written = lines(tmp_path / "w.jsonl")
    names = ("text", "meta", "note")
    without_nulls = [{k: v for k in names if (v := row.get(k)) is not None} for row in written]
    assert without_nulls == rows
    competing = [row for row in written if row["gotd_score"] is not None]
    assert len(competing) == stated["competing_rows"] == len(given.rows)
    assert {row["gotd_weight"] for row in written if row not in competing} == {0.0}
    texts = pa.array([row["text"] for row in competing])
    ids = pa.array([row["gotd_id"] for row in competing])
    target = pa.array([row["text"] for row in lines(given.target)])
    scored = DSIR(noise=False).scores(
        Rows(pa.array(map(str, range(len(target)))), target), [Rows(ids, texts)], 0, LocalEngine()
    )
    ratio = np.exp(-np.concatenate(list(scored.values)))
    weights = np.array([row["gotd_weight"] for row in competing])
    np.testing.assert_allclose(weights, ratio / ratio.mean(), rtol=1e-9)
    assert stated["effective_rows"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_a_weight_of_a_gradient_falls_by_e_in_a_standard_deviation(given, pool, tmp_path):
    path, rows = pool
    stated = weigh(given, path, tmp_path / "w.parquet", "--dedup", "off")
    table = pq.read_table(tmp_path / "w.parquet")
    assert table["gotd_id"].to_pylist() == [f"pool#{n}" for n in range(1, len(rows) + 1)]
    assert table["meta"].to_pylist() == [row.get("meta") for row in rows]
    score = table["gotd_score"].to_numpy()
    known = ~np.isnan(score)
    assert np.flatnonzero(~known).tolist() == [5]
    expected = np.exp(-(score - np.nanmean(score)) / np.nanstd(score))
    expected /= np.nanmean(expected)
    weights = table["gotd_weight"].to_numpy()
    np.testing.assert_allclose(weights[known], expected[known], rtol=1e-9)
    assert weights[5] == 0
    assert stated["rows"] == len(rows)
    assert sum(stated["domains"].values()) == pytest.approx(1)


def test_weights_beside_a_selection_do_not_change_it(given, tmp_path):
    chosen = []
    # The last command is the same again, and finds the file that it wrote.
    weights = ["--weights", str(tmp_path / "w.csv")]
    for name, more in (("a", []), ("b", weights), ("b", weights)):
        out = tmp_path / f"{name}.jsonl"
        more = ("--method", "dsir", "--budget", "9", "--out", str(out), *more)
        assert main(given.arguments(*more)) == 0
        chosen.append(lines(out))
    assert chosen[0] == chosen[1] == chosen[2]
    with (tmp_path / "w.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [
        f"{t}/{i}" for t in ("cells", "stars", "trade") for i in range(120)
    ]
    manifest = json.loads((tmp_path / "b.gotd" / "manifest.json").read_text("utf-8"))
    assert manifest["weights"]["rows"] == 360
    assert manifest["weights"]["file"] == "w.csv"
    assert "## Weights" in (tmp_path / "b.gotd" / "report.md").read_text("utf-8")
    cells = sum(float(row["gotd_weight"]) for row in rows if row["domain"] == "cells")
    assert manifest["weights"]["domains"]["cells"] == pytest.approx(cells / 360)
    (tmp_path / "w.csv").write_text("mine")
    assert main(given.arguments(*more)) == 2
    assert (tmp_path / "w.csv").read_text() == "mine"


def test_a_pool_that_changes_before_the_weights_are_written_is_refused(
    given, pool, tmp_path, capsys, monkeypatch
):
    path = tmp_path / "own.jsonl"
    path.write_bytes(pool[0].read_bytes())
    scored = WeightedPool.write

    def write(self, *given):
        rows = path.read_text("utf-8").splitlines()
        path.write_text("\n".join([rows[1], rows[0], *rows[2:]]), "utf-8")
        return scored(self, *given)

    monkeypatch.setattr(WeightedPool, "write", write)
    out = tmp_path / "w.jsonl"
    assert main(given.arguments("--weights", str(out), pool=str(path))) == 2
    assert "has changed since it was read" in capsys.readouterr().err
    assert not out.exists()


def test_chunks_have_weights_too_and_a_uniform_draw_has_equal_ones(given, tmp_path):
    more = ("--unit", "fixed", "--length-chars", "300", "--method", "random")
    assert main(given.arguments("--weights", str(tmp_path / "w.parquet"), *more)) == 0
    table = pq.read_table(tmp_path / "w.parquet")
    assert table["weight"].unique().to_pylist() == [1.0]
    assert table.num_rows > 100


def test_python_writes_the_same_weights(given, pool, tmp_path):
    path, _ = pool
    weigh(given, path, tmp_path / "w.jsonl", "--method", "dsir")
    fitted = GOTD(method="dsir").fit(given.target, path)
    stated = fitted.write_weights(tmp_path / "python.jsonl")
    assert (tmp_path / "python.jsonl").read_bytes() == (tmp_path / "w.jsonl").read_bytes()
    assert stated["competing_rows"] == 360
    with pytest.raises(RuntimeError, match="nothing is fitted"):
        GOTD(method="dsir").write_weights(tmp_path / "a.jsonl")


def test_a_row_behind_all_others_has_no_weight_and_huge_ratios_no_overflow():
    scores = [np.array([-5000.0, 3000.0]), np.array([1e12, np.inf, -4999.0])]
    weighting = Weighting.of(scores, 1.0)
    first, other = (weighting.weights(part) for part in scores)
    assert other[:2].tolist() == [0.0, 0.0]
    assert first[0] / other[2] == pytest.approx(np.e)
    assert first[1] == 0.0
    assert np.mean([*first, *other]) == pytest.approx(1)
    with pytest.raises(ValueError, match="no candidate has a score"):
        Weighting.of([np.array([np.inf])], 1.0)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--weights", "w.jsonl", "--method", "round_robin"], "a method that scores every row"),
        (["--weights", "w.txt"], "--weights w.txt: the name must end in"),
        (["--weights", "w.csv", "--removed", "r.csv"], "--removed belongs to a selection"),
        (["--weights", "w.csv", "--mix", "a:50%"], "--mix belongs to a selection"),
        (["--weights", "w.csv", "--max-per-domain", "2"], "--max-per-domain belongs to a"),
        (["--weights", "a.csv", "--out", "a.csv", "--budget", "9"], "in the place of --out"),
    ],
)
def test_what_cannot_be_done_is_one_line(given, tmp_path, capsys, monkeypatch, more, says):
    monkeypatch.chdir(tmp_path)
    assert main(given.arguments(*more)) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--weights", "w.jsonl", "--budget", "9"], "give --out for the selection"),
        (["--out", "a.jsonl"], "give --budget or --tokens, or --weights alone"),
        (["--weights", "w.csv", "--out", "a.csv"], "give --budget or --tokens for --out"),
    ],
)
def test_what_is_missing_is_named(given, capsys, more, says):
    with pytest.raises(SystemExit) as stopped:
        main(given.arguments(*more))
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
