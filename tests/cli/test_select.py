"""`gotd select` from files to a folder: right, whole, resumable, and clear when refused."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.rendered import interpreted

import gotd
from gotd import api
from gotd.cli import select as command
from gotd.cli.main import main
from gotd.data.pool import as_one, open_pool
from gotd.engine.local import LocalEngine
from gotd.pipeline.output import Output
from gotd.pipeline.steps import pools
from gotd.selectors.registry import build_selector, entries
from gotd.storage.artifacts import checksum

METHODS = [one.name for one in entries() if one.offered]
OF_A_MODEL = {"loss_drop", "perplexity", "rds_plus", "less"}
"""Methods that read a model: tests/cli/test_select_with_model.py."""


def select(given, out: Path, *more: str, **where) -> dict:
    assert main(given.arguments("--out", str(out), *more, **where)) == 0
    return json.loads((out / "manifest.json").read_text("utf-8"))


def refused(capsys, given, *more: str, **where) -> str:
    """Run a command that must fail with one line and leave nothing."""
    out = given.folder / "refused"
    assert main(given.arguments("--out", str(out), *more, **where)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in said if line.startswith("gotd select: ")]
    assert len(errors) == 1
    assert said[-1] == errors[0]
    assert not out.exists()
    assert not list(given.folder.glob(".refused*"))
    return errors[0]


# What comes out ------------------------------------------------------------------------


def test_the_target_s_topic_is_chosen_with_its_own_rows(given, tmp_path):
    out = tmp_path / "chosen"
    manifest = select(given, out, "--budget", "60")
    rows = pq.read_table(out / "selected.parquet")
    assert rows.column_names == ["id", "text", "score", "rank", "domain"]
    assert rows["rank"].to_pylist() == list(range(1, 61))
    assert (np.diff(rows["score"].to_numpy()) >= 0).all()
    for row in rows.to_pylist():
        assert row["text"] == given.rows[row["id"]]
        assert row["id"].startswith(row["domain"])
    assert sum(domain == "cells" for domain in rows["domain"].to_pylist()) >= 57
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md",
        "manifest.json",
        "report.html",
        "report.md",
        "selected.parquet",
    ]
    assert manifest["diagnostics"]["converged"] is True
    assert manifest["rows"] == {"target": 30, "candidates": 360}
    assert manifest["files"]["selected.parquet"]["sha256"] == checksum(out / "selected.parquet")
    for known in ("versions", "hardware", "code", "keys", "request", "inputs", "command"):
        assert known in manifest


@pytest.mark.parametrize("name", sorted(set(METHODS) - OF_A_MODEL - {"least_toxic"}))
def test_every_method_gives_what_the_selector_gives(given, tmp_path, name):
    out = tmp_path / "chosen"
    manifest = select(given, out, "--budget", "50", "--method", name, "--seed", "3")
    rows = pq.read_table(out / "selected.parquet")
    store = given.folder / "store"
    folders = {
        step: next((store / kind).glob(f"*{manifest['keys'][step][:12]}"))
        for step, kind in (
            ("target", "pool"),
            ("candidates", "pool"),
            ("target_embeddings", "embeddings"),
            ("candidates_embeddings", "embeddings"),
        )
        if step in manifest["keys"]
    }
    target = as_one(open_pool(folders["target"], folders.get("target_embeddings")))
    pool = open_pool(folders["candidates"], folders.get("candidates_embeddings"))
    ranking = build_selector(name, {}).rank(target, pool, 50, 3, LocalEngine())
    assert rows["id"].to_pylist() == ranking.ids.to_pylist()
    np.testing.assert_allclose(rows["score"].to_numpy(), ranking.scores, rtol=1e-9, atol=1e-12)
    assert manifest["with_replacement"] == ranking.with_replacement


def test_the_engine_that_is_asked_for_embeds_the_candidates_alone(given, tmp_path, monkeypatch):
    """A target is small; a cluster would take longer to start than to answer."""
    used: list[LocalEngine] = []
    make = pools.embeddings

    def watched(rows, encoder, engine, *rest):
        used.append(engine)
        return make(rows, encoder, engine, *rest)

    monkeypatch.setattr(pools, "embeddings", watched)
    arguments = ("--budget", "5", "--method", "nearest", "--workers", "2")
    select(given, tmp_path / "chosen", *arguments)
    assert {engine.workers for engine in used} == {1, 2}


def test_the_device_is_that_of_the_method_too(given, tmp_path, monkeypatch):
    built = []

    def watched(*arguments):
        built.append(build_selector(*arguments))
        return built[-1]

    monkeypatch.setattr(command, "build_selector", watched)
    monkeypatch.setattr(api, "build_selector", watched)
    select(given, tmp_path / "chosen", "--budget", "5", "--device", "cpu")
    gotd.GOTD(device="cpu")
    assert [method.device for method in built] == ["cpu", "cpu"]


def test_scores_made_elsewhere_can_rank(given, tmp_path):
    ids = sorted(given.rows)
    scores = np.arange(len(ids))[::-1] / len(ids)
    pq.write_table(pa.table({"id": ids, "score": scores}), tmp_path / "toxic.parquet")
    out = tmp_path / "chosen"
    setting = f"scores={tmp_path / 'toxic.parquet'}"
    select(given, out, "--budget", "5", "--method", "least_toxic", "--set", setting)
    assert pq.read_table(out / "selected.parquet")["id"].to_pylist() == ids[:-6:-1]


def test_another_budget_is_a_prefix_and_builds_nothing(given, tmp_path):
    first = select(given, tmp_path / "one", "--budget", "40")
    second = select(given, tmp_path / "two", "--budget", "20,90,40")
    assert second["budgets"] == [20, 40, 90]
    found = {time["step"]: time["found"] for time in second["steps"]}
    assert found.pop("select") is False
    assert all(found.values())
    assert second["keys"] == first["keys"]
    large = pq.read_table(tmp_path / "two" / "selected-90.parquet")
    assert pq.read_table(tmp_path / "two" / "selected-20.parquet").equals(large.slice(0, 20))
    assert pq.read_table(tmp_path / "one" / "selected.parquet").equals(large.slice(0, 40))


def test_the_same_command_gives_the_same_bytes_anywhere(given, tmp_path):
    arguments = ("--budget", "30", "--explain")
    select(given, tmp_path / "one", *arguments)
    again = [
        *given.arguments("--out", str(tmp_path / "two"), *arguments, "--workers", "2"),
        "--store",
        str(tmp_path / "other"),
    ]
    assert main(again) == 0
    one, two = (tmp_path / name / "selected.parquet" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_rows_in_other_columns_and_pieces_of_one_length(given, tmp_path):
    table = pa.table({"q": ["star dust"] * 8, "a": ["of the galaxy"] * 8, "key": list(range(8))})
    pq.write_table(table, tmp_path / "asked.parquet")
    out = tmp_path / "chosen"
    more = ("--text-column", "q,a", "--id-column", "key", "--target-text-column", "text")
    select(
        given, out, "--budget", "3", "--dedup", "off", *more, pool=str(tmp_path / "asked.parquet")
    )
    rows = pq.read_table(out / "selected.parquet").to_pylist()
    assert {row["text"] for row in rows} == {"star dust of the galaxy"}
    assert {row["domain"] for row in rows} == {"asked"}
    pieces = tmp_path / "pieces"
    select(given, pieces, "--budget", "9", "--unit", "fixed", "--length-chars", "300")
    lengths = [len(t) for t in pq.read_table(pieces / "selected.parquet")["text"].to_pylist()]
    assert 200 < np.median(lengths) <= max(lengths) <= 300


@pytest.mark.parametrize("unit", ["whole", "fixed"])
def test_rows_below_the_least_length_are_left_out_and_counted(given, tmp_path, unit):
    out = tmp_path / "chosen"
    more = ("--budget", "20", "--unit", unit, "--length-chars", "300", "--min-chars", "150")
    manifest = select(given, out, *more, "--method", "random")
    lengths = [len(t) for t in pq.read_table(out / "selected.parquet")["text"].to_pylist()]
    assert min(lengths) >= 150
    short = sum(len(text) < 150 for text in given.rows.values())
    left_out = {"whole": short, "fixed": manifest["short_rows"]["candidates"]}[unit]
    assert manifest["request"]["min_chars"] == 150
    assert manifest["short_rows"] == {"target": 0, "candidates": left_out}
    assert manifest["summaries"]["20"]["short_rows"] == manifest["short_rows"]
    assert manifest["rows"]["target"] == 30  # a row of the target is never left out
    said = f"{left_out} rows of fewer than 150 characters were left out."
    assert (said in (out / "report.md").read_text("utf-8")) == (left_out > 0)
    if unit == "whole":
        assert manifest["rows"]["candidates"] == 360 - short < 360


def test_a_degenerate_selection_is_flagged_in_the_report(given, tmp_path):
    long = [{"text": " ".join(["star planet orbit galaxy"] * 20)} for _ in range(40)]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, long)), "utf-8")
    short = [{"text": "protein cell"} for _ in range(5)]
    (tmp_path / "short.jsonl").write_text("\n".join(map(json.dumps, short)), "utf-8")
    out = tmp_path / "chosen"
    arguments = given.arguments("--out", str(out), "--budget", "5,20", "--method", "nearest")
    arguments += ["--dedup", "off"]
    place = arguments.index(str(given.pool))
    arguments[place : place + 1] = [str(tmp_path / f"{name}.jsonl") for name in ("long", "short")]
    assert main(arguments) == 0
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert set(manifest["summaries"]["5"]["flags"]) == {"short", "repeated", "one domain"}
    assert set(manifest["summaries"]["20"]["flags"]) == {"repeated"}
    report = (out / "report.md").read_text("utf-8")
    assert report.count("## Look at this first") == 1
    assert "- **short** (budget 5): The median length is 12 characters, but" in report
    select(given, tmp_path / "usual", "--budget", "60", "--method", "random")
    assert "Look at this" not in (tmp_path / "usual" / "report.md").read_text("utf-8")


def test_the_report_and_the_card_say_what_was_chosen(given, tmp_path):
    out = tmp_path / "chosen"
    evil = tmp_path / "evil.jsonl"
    text = "protein <script>alert(1)</script> | [x](javascript:1) `kinase` cell tumor receptor gene"
    evil.write_text(json.dumps({"id": "evil|id", "text": text, "domain": "<b>"}), "utf-8")
    pool = f"{given.pool}/*"
    arguments = given.arguments("--out", str(out), "--budget", "150,340", pool=pool)
    arguments[arguments.index(pool) : arguments.index(pool) + 1] = [pool, str(evil)]
    assert main([*arguments, "--license", "cc-by-4.0"]) == 0
    report = (out / "report.md").read_text("utf-8")
    for said in ("## By domain", "## Time", "| `cells` |", "marginal_error", "copies"):
        assert said in report
    assert not interpreted(report)
    card = (out / "README.md").read_text("utf-8")
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert '- config_name: "340"\n  data_files: selected-340.parquet' in card
    assert "## Biases and limits" in card


def test_nothing_is_held_against_a_blank_or_a_long_row(given, tmp_path):
    lines = ["", "   ", "protein cell " * 20_000, "kinase tumor receptor"]
    (tmp_path / "mine.txt").write_text("\n".join(lines))
    out = tmp_path / "chosen"
    manifest = select(given, out, "--budget", "2", pool=str(tmp_path / "mine.txt"))
    assert manifest["blank_rows"]["candidates"] == 2
    rows = pq.read_table(out / "selected.parquet").to_pylist()
    assert sorted(row["id"] for row in rows) == ["mine#3", "mine#4"]
    assert max(len(row["text"]) for row in rows) == len(lines[2])


# Explanations --------------------------------------------------------------------------


def plan(given, manifest, rows):
    """Compute the chosen rows of the plan from its definition, in float64."""
    store = given.folder / "store"
    key = {name: value[:12] for name, value in manifest["keys"].items()}
    target = open_pool(
        *(
            next((store / kind).glob(f"*{key[name]}"))
            for kind, name in (("pool", "target"), ("embeddings", "target_embeddings"))
        )
    )[0]
    pool = open_pool(
        *(
            next((store / kind).glob(f"*{key[name]}"))
            for kind, name in (("pool", "candidates"), ("embeddings", "candidates_embeddings"))
        )
    )
    place = {name: x for s in pool for name, x in zip(s.ids.to_pylist(), s.embeddings, strict=True)}
    x = np.array([place[name] for name in rows["id"].to_pylist()], dtype=np.float64)
    y = np.array(target.embeddings, dtype=np.float64)
    return target, np.square(x[:, None] - y[None]).sum(axis=-1)


def test_every_chosen_row_is_told_the_target_it_serves(given, tmp_path):
    out = tmp_path / "chosen"
    manifest = select(given, out, "--budget", "40", "--explain")
    rows = pq.read_table(out / "selected.parquet")
    target, cost = plan(given, manifest, rows)
    key = manifest["keys"]["scored"][:12]
    folder = next((given.folder / "store" / "pool_scores").glob(f"*{key}"))
    g, epsilon = (
        np.load(folder / "target_potential.npy"),
        manifest["diagnostics"]["epsilon_absolute"],
    )
    z = (g - cost) / epsilon
    share = np.exp(z - z.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    ids = [target.ids[int(j)].as_py() for j in share.argmax(axis=1)]
    assert rows["target_id"].to_pylist() == ids
    np.testing.assert_allclose(rows["target_share"].to_numpy(), share.max(axis=1), rtol=1e-6)
    served = manifest["summaries"]["40"]["targets"]
    received = share.sum(axis=0) / 40
    assert served["targets"] == 30
    np.testing.assert_allclose(served["largest"][0]["share"], received.max(), rtol=1e-6)
    assert "## Which targets are served" in (out / "report.md").read_text("utf-8")


@pytest.mark.parametrize("method", ["nearest", "round_robin", "dsir"])
def test_without_prices_it_is_the_nearest_target(given, tmp_path, method):
    out = tmp_path / "chosen"
    manifest = select(given, out, "--budget", "40", "--explain", "--method", method)
    rows = pq.read_table(out / "selected.parquet")
    with_vectors = select(given, tmp_path / "other", "--budget", "1")
    target, cost = plan(given, with_vectors, rows)
    ids = [target.ids[int(j)].as_py() for j in cost.argmin(axis=1)]
    assert rows["target_id"].to_pylist() == ids
    assert set(rows["target_share"].to_pylist()) == {1.0}
    assert sum(t["rows"] for t in manifest["summaries"]["40"]["targets"]["largest"]) <= 40


@pytest.mark.parametrize("method", ["got_d", "dsir"])
def test_no_step_runs_inside_another_that_is_shown(given, tmp_path, monkeypatch, method):
    """A terminal shows one bar at a time; explaining may need the encoder."""
    shown, built = [], []

    @contextmanager
    def watcher(label, total=None):
        assert not shown
        shown.append(label)
        yield lambda rows: None
        built.append(shown.pop())

    monkeypatch.setattr("gotd.cli.select.watch_terminal", lambda: watcher)
    store = ("--store", str(tmp_path / "store"), "--method", method, "--explain")
    first = select(given, tmp_path / "one", "--budget", "9", *store)
    assert "fitted_encoder tfidf_svd-target" in built
    assert "embeddings tfidf_svd-target" in built
    assert ("embeddings tfidf_svd-candidates" in built) is (method == "got_d")
    built.clear()
    second = select(given, tmp_path / "two", "--budget", "20,7", *store)
    assert built == ["selecting and writing"]
    assert [step["step"] for step in second["steps"] if not step["found"]] == ["select"]
    assert second["keys"] == first["keys"]
    names = [step["step"] for step in first["steps"]]
    assert len(set(names)) == len(names)
    one, two = (
        pq.read_table(tmp_path / name)
        for name in ("one/selected.parquet", "two/selected-20.parquet")
    )
    for column in ("id", "target_id"):
        assert two.slice(0, 9)[column].equals(one[column])
        assert one[column].null_count == 0


# What is refused -----------------------------------------------------------------------


STRICT = ("--set", "tolerance=1e-9")
REFUSED = [
    (("--budget", "0"), "--budget must be at least 1"),
    (("--budget", "many"), "--budget must be a whole number"),
    (("--budget", "6,1%"), "--budget '6,1%' mixes rows and shares"),
    (("--budget", "361"), "budget 361 is larger than the pool of 360 candidates"),
    (("--budget", "9", "--method", "gotd"), "unknown method 'gotd'; did you mean 'got_d'"),
    (
        ("--budget", "9", "--method", "magic"),
        "unknown method 'magic'; there is: random, all_domains,",
    ),
    (("--budget", "9", "--encoder", "minilmm"), "unknown encoder 'minilmm'; did you mean 'minilm'"),
    (("--budget", "9", "--encoder", "no/such-model"), "no encoder 'no/such-model': it is neither"),
    (("--budget", "9", "--method", "dsir", "--epsilon", "1"), "dsir has no setting 'epsilon'"),
    (("--budget", "9", "--epsilon", "-1"), "epsilon must be positive and finite, not -1.0"),
    (("--budget", "9", "--epsilon", "inf"), "got_d: epsilon must be a finite number, not inf"),
    (("--budget", "9", "--set", "tolerance=0"), "tolerance must be positive and finite, not 0"),
    (("--budget", "9", "--device", "foo"), "device must be auto, cpu, cuda or cuda:N, not 'foo'"),
    (("--budget", "9", "--workers", "0"), "workers must be at least 1, not 0"),
    (("--budget", "9", "--store", "/dev/null"), "cannot write the store /dev/null: Not a dir"),
    (("--budget", "9", "--store", "/proc/x"), "cannot write the store /proc/x: "),
    (("--budget", "9", "--set", "solvr=pot"), "no setting 'solvr'; did you mean 'solver'"),
    (("--budget", "9", "--set", "whiten=maybe"), "--set whiten=maybe: that is no bool"),
    (("--budget", "9", "--set", "whiten"), "--set takes KEY=VALUE"),
    (("--budget", "9", "--method", "least_toxic"), "needs a setting: give --set scores="),
    (("--budget", "9", "--text-column", "body"), "has no column 'body'; it has"),
    (("--budget", "9", "--id-column", "key"), "has no column 'key'; it has"),
    (("--budget", "9", "--length-chars", "0"), "length_chars must be at least 1"),
    (("--budget", "9", "--min-chars", "-1"), "min_chars must not be negative"),
    (("--budget", "9", "--min-chars", "5000"), "has 5000 characters; lower min_chars"),
    (
        ("--budget", "9", "--unit", "fixed", "--min-chars", "1001"),
        "min_chars 1001 is more than length_chars 1000; lower it",
    ),
    (("--budget", "9", "--seed", "-1"), "seed must not be negative"),
    (("--budget", "9", "--ray-address", "h:1"), "a Ray address is for the engine ray"),
    (
        (*("--budget", "9", "--set", "max_passes=1", "--set", "reference_rows=40"), *STRICT),
        "more max_passes",
    ),
]


@pytest.mark.parametrize(("more", "says"), REFUSED)
def test_what_cannot_be_done_is_one_line(capsys, given, more, says):
    if "--text-column" in more:
        more = (*more, "--target-text-column", "text")
    assert says in refused(capsys, given, *more)


def test_a_gpu_that_is_not_there_is_known_at_once(capsys, given, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for encoder in ("tfidf_svd", "minilm"):
        more = ("--budget", "9", "--device", "cuda", "--encoder", encoder)
        assert "there is no device cuda: torch" in refused(capsys, given, *more)


def test_the_hub_is_asked_once_for_an_encoder(capsys, given, monkeypatch):
    asked = []

    def unreachable(url):
        asked.append(url)
        raise RuntimeError("the network is blocked\nand more")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    said = refused(capsys, given, "--budget", "9", "--encoder", "no/such-model")
    assert "nor on the Hub (the network is blocked and more)" in said
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", r"mine.jsonl is empty (0 bytes)"),
        (b'{"texts": "a"}\n', "has no column 'text'; it has texts"),
        (b'{"text": "\xe9"}\n', "line 1 is not UTF-8"),
        (b'{"text": "a"}\n{"text": 7}\n', "line 2: field 'text' holds int"),
        (b'{"text": " "}\n', "no row of mine has a visible character"),
    ],
)
def test_a_bad_target_is_named(capsys, given, tmp_path, content, says):
    (tmp_path / "mine.jsonl").write_bytes(content)
    target = str(tmp_path / "mine.jsonl")
    assert says in refused(capsys, given, "--budget", "9", target=target)


@pytest.mark.parametrize(
    ("pool", "says"),
    [
        ("{}/none.parquet", "no file"),
        ("{}/no*.parquet", "no file matches"),
        ("{}", "holds no file that can be read"),
        ("hub:a b", "names no data set; write hub:namespace/name"),
    ],
)
def test_candidates_that_are_not_there_are_named(capsys, given, tmp_path, pool, says):
    assert says in refused(capsys, given, "--budget", "9", pool=pool.format(tmp_path))


def test_a_repeated_id_is_named_with_both_places(capsys, given, tmp_path):
    (tmp_path / "again.jsonl").write_text('{"id": "cells/7", "text": "twice"}\n')
    arguments = given.arguments("--budget", "9", "--out", str(tmp_path / "out"))
    arguments.insert(arguments.index("--store"), str(tmp_path / "again.jsonl"))
    assert main(arguments) == 2
    assert "id 'cells/7' occurs twice: cells row 8 and again row 1" in capsys.readouterr().err


def test_without_ray_its_engine_is_refused_at_once(capsys, given, monkeypatch):
    monkeypatch.setattr("gotd.engine.build.find_spec", lambda _: None)
    said = refused(capsys, given, "--budget", "9", "--engine", "ray")
    assert "needs the package ray: pip install 'ray>=2.50,<3'" in said


def test_scores_that_are_not_there_are_named(capsys, given):
    absent = given.folder / "absent.parquet"
    more = ("--budget", "9", "--method", "least_toxic", "--set", f"scores={absent}")
    assert f"scores: there is no file {absent}" in refused(capsys, given, *more)


# The folder ----------------------------------------------------------------------------


def test_a_domain_that_only_the_larger_budget_chose_has_its_count_in_both(
    given, tmp_path, monkeypatch
):
    monkeypatch.setattr("gotd.selection_report.measures.MOST_DOMAINS", 1)
    manifest = select(given, tmp_path / "out", "--budget", "1,300", "--method", "random")
    few, many = (manifest["summaries"][budget]["domains"] for budget in ("1", "300"))
    assert (len(few), len(many)) == (1, 3)
    page = (tmp_path / "out" / "report.md").read_text("utf-8")
    for name in many:
        assert f"| `{name}` | {few.get(name, 0)} | {many[name]} |" in page


def test_a_folder_of_its_own_is_replaced_and_another_is_not(capsys, given, tmp_path):
    out = tmp_path / "chosen"
    select(given, out, "--budget", "9")
    select(given, out, "--budget", "10,20")
    assert sorted(p.name for p in out.glob("*.parquet")) == [
        "selected-10.parquet",
        "selected-20.parquet",
    ]
    (out / "my-notes.txt").write_text("keep me")
    arguments = given.arguments("--out", str(out), "--budget", "9")
    assert main(arguments) == 2
    assert "was not written by gotd select" in capsys.readouterr().err
    assert (out / "my-notes.txt").read_text() == "keep me"
    assert main([*arguments, "--overwrite"]) == 0
    assert not (out / "my-notes.txt").exists()
    (out / "folder").mkdir()
    assert main([*arguments, "--overwrite"]) == 2
    assert (out / "selected.parquet").exists()
    file = tmp_path / "file"
    file.write_text("keep me")
    assert main([*given.arguments("--out", str(file), "--budget", "9"), "--overwrite"]) == 2
    assert file.read_text() == "keep me"


@pytest.mark.parametrize("what", ["scores", "encoder"])
def test_a_folder_that_holds_what_a_method_reads_is_never_replaced(given, tmp_path, capsys, what):
    out = tmp_path / "mine"
    out.mkdir()
    file = out / "scores.parquet"
    file.write_text("keep me")
    more = {
        "scores": ["--method", "least_toxic", "--set", f"scores={file}"],
        "encoder": ["--encoder", str(out)],
    }
    arguments = given.arguments("--out", str(out), "--budget", "9", "--overwrite", *more[what])
    assert main(arguments) == 2
    assert f"holds the input {file}" in capsys.readouterr().err
    assert file.read_text() == "keep me"


def test_a_folder_may_have_an_encoder_s_name(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for budget in ("9", "10"):  # the second replaces the first
        select(given, Path("tfidf_svd"), "--budget", budget)


def test_a_folder_that_holds_an_input_is_never_replaced(given, tmp_path, capsys):
    pool = tmp_path / "pool"
    shutil.copytree(given.pool, pool)
    before = sorted(path.name for path in pool.iterdir())
    arguments = given.arguments("--out", str(pool), "--budget", "9", pool=str(pool))
    assert main([*arguments, "--overwrite"]) == 2
    assert "holds the input" in capsys.readouterr().err
    assert sorted(path.name for path in pool.iterdir()) == before


def test_a_link_stands_for_the_folder_it_points_to(given, tmp_path):
    (tmp_path / "disk").mkdir()
    for name, behind in (("there", "disk/old"), ("dangling", "disk/new")):
        link = tmp_path / name
        link.symlink_to(tmp_path / behind)
        if name == "there":
            link.resolve().mkdir()
        select(given, link, "--budget", "9")
        select(given, link, "--budget", "8")
        assert link.is_symlink()
        assert pq.read_table(tmp_path / behind / "selected.parquet").num_rows == 8
    select(given, tmp_path / "disk" / "new" / ".." / "other", "--budget", "7")
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["new", "old", "other"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "disk", "there"]


def test_a_link_to_itself_is_refused(given, tmp_path, capsys):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert main(given.arguments("--budget", "9", "--out", str(tmp_path / "loop"))) == 2
    assert "is a link that leads to itself" in capsys.readouterr().err


def test_a_folder_around_the_store_is_refused(given, tmp_path, capsys):
    arguments = given.arguments("--budget", "9", "--out", str(tmp_path / "none" / ".."))
    assert main([*arguments, "--store", str(tmp_path / "store")]) == 2
    assert f"{tmp_path} holds the store {tmp_path / 'store'}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_two_runs_at_once_cannot_write_one_folder(given, tmp_path, capsys):
    out = tmp_path / "chosen"
    arguments = given.arguments("--budget", "9", "--out", str(out))
    with Output(out).claimed([], tmp_path / "store"):
        assert main(arguments) == 2
        assert f"another gotd select is writing {out}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    # What a killed run leaves holds nobody up.
    (tmp_path / ".chosen.gotd-lock").touch()
    (tmp_path / ".chosen.gotd-part").mkdir()
    assert main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["chosen"]


def test_a_run_killed_while_it_replaces_the_folder_loses_nothing(given, tmp_path):
    out = tmp_path / "chosen"
    select(given, out, "--budget", "9")
    before = (out / "manifest.json").read_bytes()
    out.rename(tmp_path / ".chosen.gotd-old")
    assert main(given.arguments("--budget", "361", "--out", str(out))) == 2
    assert (out / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["chosen"]


def test_a_file_that_comes_while_it_runs_is_kept(tmp_path):
    out = tmp_path / "chosen"

    def run() -> None:
        with Output(out).filling():
            out.mkdir()
            (out / "my-notes.txt").write_text("keep me")

    with pytest.raises(ValueError, match="was not written by gotd select"):
        run()
    assert [path.name for path in tmp_path.iterdir()] == ["chosen"]
    assert (out / "my-notes.txt").read_text() == "keep me"


def test_a_domain_cannot_write_into_the_card(given, tmp_path):
    pool = tmp_path / "pool.jsonl"
    rows = [{"text": f"cell number {n} of a mouse", "domain": "</td>|\x1b[31m"} for n in range(30)]
    pool.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    out = tmp_path / "chosen"
    assert main(given.arguments("--out", str(out), "--budget", "9", pool=str(pool))) == 0
    card = (out / "README.md").read_text("utf-8")
    assert not interpreted(card)
    assert "\x1b" not in card


def test_a_licence_is_an_identifier(given, tmp_path, capsys):
    arguments = given.arguments("--out", str(tmp_path / "chosen"), "--budget", "9")
    assert main([*arguments, "--license", "x: y\n- [a"]) == 2
    assert "--license takes an identifier" in capsys.readouterr().err


def test_an_interrupt_is_one_line(given, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gotd.cli.select.write_selection", interrupted)
    out = tmp_path / "chosen"
    assert main(given.arguments("--out", str(out), "--budget", "9")) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not out.exists()


def test_a_failure_keeps_the_old_folder_and_leaves_no_part(given, tmp_path, monkeypatch):
    out = tmp_path / "chosen"
    select(given, out, "--budget", "9")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    assert main(given.arguments("--out", str(out), "--budget", "12")) == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["chosen"]


def test_a_place_that_cannot_be_written_is_known_before_any_work(capsys, given, tmp_path):
    (tmp_path / "file").write_text("")
    store = tmp_path / "store"
    arguments = given.arguments("--budget", "9", "--out", str(tmp_path / "file" / "chosen"))
    assert main([*arguments, "--store", str(store)]) == 2
    assert f"cannot write {tmp_path / 'file' / 'chosen'}" in capsys.readouterr().err
    assert not store.exists()


def mounted() -> bool:
    """Whether this process may mount a small disk."""
    return (
        os.geteuid() == 0
        and subprocess.run(["which", "mount"], capture_output=True).returncode == 0
    )


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if not mounted() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("what", ["--store", "--out"])
def test_a_full_disk_is_one_line(capsys, given, tmp_path, small_disk, what):
    filler = small_disk / "filler"
    if what == "--out":
        filler.write_bytes(b"x" * (250 << 10))
    where = {"--store": tmp_path / "store", "--out": tmp_path / "chosen", what: small_disk / "here"}
    arguments = given.arguments("--budget", "300", "--out", str(where["--out"]))
    assert main([*arguments, "--store", str(where["--store"])]) == 2
    assert "no space left" in capsys.readouterr().err
    assert not where["--out"].exists()


def test_a_killed_run_goes_on_and_gives_the_same_bytes(given, tmp_path):
    whole, store = tmp_path / "whole", tmp_path / "store"
    select(given, whole, "--budget", "50")
    out = tmp_path / "chosen"
    arguments = [*given.arguments("--budget", "50", "--out", str(out)), "--store", str(store)]
    environment = {**os.environ, "PYTHONPATH": str(Path(gotd.__file__).parents[1])}
    # Stopped from inside where the candidates' embeddings are under way.
    code = (
        "import os, signal, sys\n"
        "from gotd.embedding import embed as embedding\n"
        "from gotd.cli.main import main\n"
        "make = embedding._embed_range\n"
        "def stop(embedder, part):\n"
        "    if part.texts.start == 64: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return make(embedder, part)\n"
        "embedding.ROWS_PER_RANGE, embedding._embed_range = 32, stop\n"
        f"main({arguments!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert list(store.glob("embeddings/*.part/.work/embeddings-00000-*"))
    began = time.time()
    assert main(arguments) == 0
    assert (out / "selected.parquet").read_bytes() == (whole / "selected.parquet").read_bytes()
    pool = next(store.glob("pool/candidates-*/rows-00000.arrow"))
    assert pool.stat().st_mtime < began


def test_the_first_selection_of_the_docs_works_as_typed(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "first_selection.md").read_text("utf-8")
    (block,) = [part[2:] for part in page.split("```") if part.startswith("sh\nprintf")]
    *files, command = block.strip().splitlines()
    monkeypatch.chdir(tmp_path)
    subprocess.run(["sh", "-c", "\n".join(files)], check=True)
    assert main(shlex.split(command)[1:]) == 0
    rows = pq.read_table("chosen/selected.parquet").to_pylist()
    assert [row["domain"] for row in rows] == ["pool", "pool"]
    assert all("dog" in row["text"] or "puppy" in row["text"] for row in rows)
    assert {row["target_id"] for row in rows} <= {"mine#1", "mine#2"}


def test_help_is_quick_and_names_every_method():
    code = (
        "import sys\n"
        "from gotd.cli.main import main\n"
        "try: main(['select', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'pyarrow', 'ray', 'hydra', 'rich', 'transformers'}\n"
        "sys.exit(len(heavy & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(gotd.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0
    for name in (*METHODS, "--explain", "hub:namespace/name"):
        assert name in done.stdout


SELECTS_WITHOUT_SLOW_IMPORTS = """
import sys
from gotd.cli.main import main

assert main(sys.argv[1:]) == 0
slow = {"pytorch_lightning", "lightning", "transformers", "peft"}
if "dsir" in sys.argv:  # the default encoder counts words with scikit-learn
    slow |= {"sklearn", "scipy.stats"}
assert not slow & set(sys.modules), slow & set(sys.modules)
"""


@pytest.mark.parametrize("method", ["got_d", "dsir"])
def test_some_lines_are_selected_without_slow_imports(tmp_path, method):
    (tmp_path / "pool.txt").write_text("a cat sat\nstocks fell\na dog ran\nbonds rose\n")
    (tmp_path / "mine.txt").write_text("cats and dogs sat\n")
    given_arguments = ["select", "--target", "mine.txt", "--candidates", "pool.txt"]
    given_arguments += ["--budget", "2", "--method", method, "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(gotd.__file__).parents[1])}
    subprocess.run(
        [sys.executable, "-c", SELECTS_WITHOUT_SLOW_IMPORTS, *given_arguments],
        check=True,
        env=environment,
        cwd=tmp_path,
    )
