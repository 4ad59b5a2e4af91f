"""Rows that the encoder cannot read: no selector finds them, and they change nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gotd
from gotd.cli.main import main
from gotd.data.columns import Columns
from gotd.data.inputs import table_parts
from gotd.data.sampling import uniform_by_id
from gotd.embedding.tfidf import TfidfSvdEncoder
from gotd.engine.local import LocalEngine
from gotd.pipeline.experiment import plan_cell
from gotd.pipeline.request import Request
from gotd.pipeline.select import Prepared
from gotd.pipeline.written import describe
from gotd.runs.expand import expand
from gotd.selectors.oracle import Oracle
from gotd.selectors.registry import entries, entry, selector_class
from gotd.storage.artifacts import Store

TOPICS = (
    "protein cell kinase tumor receptor gene assay mouse tissue enzyme",
    "star planet orbit telescope galaxy dust nebula comet solar light",
    "market price bond tariff bank export loan profit share budget",
)
UNREADABLE = ("!!!", "สวัสดีครับ", "...", "日本語の文", "\u2014 \u2014", "привет мир", "مرحبا")
SHARD_ROWS, SHARDS, SAMPLE, BUDGET = 10, 12, 80, 25
HIDDEN = [0, 3, 4, *range(20, 30), 57, 119]
"""Positions of the unreadable rows: some shards have none, the third has nothing else."""
ENCODER = TfidfSvdEncoder(dimension=8, buckets=1 << 14, sample_rows=SAMPLE)


def make_selector(name: str) -> Any:
    if selector_class(name) is Oracle:  # its domains come from the task, and it reads texts only
        return Oracle(("rare_0",))
    return selector_class(name)(**entry(name).preset)


EMBEDDING = [
    one.name
    for one in entries()
    if one.target and {"embeddings", "model"} & make_selector(one.name).requires == {"embeddings"}
]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr("gotd.data.pool.SHARD_ROWS", SHARD_ROWS)


def passages(count: int, topics: Sequence[int], seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    words = [[*TOPICS[topic].split(), "the", "of", "and"] for topic in topics]
    return [" ".join(random.choice(words[row % len(words)], size=20)) for row in range(count)]


def is_readable(text: str) -> bool:
    return text not in UNREADABLE


def make_pool() -> pa.Table:
    """Make shards with no, some and only unreadable rows, none of which fits the encoder."""
    n = SHARD_ROWS * SHARDS
    ids = pa.array([f"row {number}" for number in range(n)])
    drawn_last = np.argsort(uniform_by_id(ids, ENCODER.seed, "encoder"))[-len(HIDDEN) :]
    hidden = np.isin(np.arange(n), HIDDEN)
    order, texts = np.empty(n, dtype=np.int64), np.empty(n, dtype=object)
    order[hidden], order[~hidden] = drawn_last, np.setdiff1d(np.arange(n), drawn_last)
    texts[hidden], texts[~hidden] = (UNREADABLE * 3)[: len(HIDDEN)], passages(n - 15, (0, 1, 2), 0)
    domains = [("left", "right")[number % 2] for number in range(n)]
    return pa.table({"id": ids.take(pa.array(order)), "text": list(texts), "domain": domains})


POOL = make_pool()
CLEAN = POOL.take(np.setdiff1d(np.arange(len(POOL)), HIDDEN))
TEXTS = passages(12, (0,), 9)
TARGET = pa.table({"id": [f"t{number}" for number in range(12)], "text": TEXTS})
BLOTS = pa.table({"id": ["u", "v"], "text": ["!!!", "\u2026"]})
MIXED_TARGET = pa.concat_tables([TARGET[:5], BLOTS[:1], TARGET[5:], BLOTS[1:]])


def prepare(
    folder: Path,
    candidates: Any,
    target: Any = TARGET,
    name: str = "got_d",
    limit: int = BUDGET,
    workers: int = 1,
    **more: Any,
) -> Prepared:
    request = Request(
        target=table_parts(target, "target", Columns()),
        candidates=table_parts(candidates, "candidates", Columns()),
        method=make_selector(name),
        method_name=name,
        encoder=more.pop("encoder", ENCODER),
        **more,
    )
    return Prepared(request, limit, Store(folder), LocalEngine(workers))


def outcome(prepared: Prepared, budget: int = BUDGET) -> tuple[pa.Table, dict[str, Any]]:
    selected = prepared.select(budget, explain=True)
    return pa.concat_tables(selected.blocks()), selected.summary(0)


def assert_same(one: Prepared, other: Prepared, budget: int = BUDGET) -> None:
    """Compare rows, explanations and coverage of two selections."""
    (rows, summary), (others, other_summary) = outcome(one, budget), outcome(other, budget)
    for column in ("id", "text", "rank", "domain", "target_id"):
        assert rows[column].to_pylist() == others[column].to_pylist(), column
    for column in ("score", "target_share"):
        np.testing.assert_allclose(rows[column], others[column], rtol=1e-6, atol=1e-9)
    assert summary["coverage"] == pytest.approx(other_summary["coverage"], rel=1e-6)
    served, others_served = (s["targets"] for s in (summary, other_summary))
    assert served["targets"] == others_served["targets"]
    assert served["effective_targets"] == pytest.approx(others_served["effective_targets"])


# Selections ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMBEDDING)
def test_every_selector_selects_as_if_they_were_not_there(tmp_path, name):
    mixed = prepare(tmp_path, POOL, MIXED_TARGET, name)
    assert_same(mixed, prepare(tmp_path, CLEAN, TARGET, name))
    assert all(map(is_readable, outcome(mixed)[0]["text"].to_pylist()))
    assert mixed.ranked.outcome["unreadable_rows"] == {"target": 2, "candidates": 15}


@pytest.mark.parametrize("name", ["got_d", "round_robin"])
def test_all_that_can_be_read_can_be_selected(tmp_path, name):
    everything = len(CLEAN)
    rows, _ = outcome(prepare(tmp_path, POOL, TARGET, name, limit=everything), everything)
    assert sorted(rows["id"].to_pylist()) == sorted(CLEAN["id"].to_pylist())


@pytest.mark.parametrize("workers", [2])
def test_workers_find_the_same_rows(tmp_path, workers):
    one = prepare(tmp_path / "one", POOL, MIXED_TARGET)
    assert_same(one, prepare(tmp_path / "two", POOL, MIXED_TARGET, workers=workers))
    files = [
        {
            p.name: p.read_bytes()
            for p in place.glob("embeddings/*candidates*/*")
            if p.suffix != ".json"
        }
        for place in (tmp_path / "one", tmp_path / "two")
    ]
    assert files[0] == files[1]
    assert sum(name.startswith("readable-") for name in files[0]) == 2 * 3  # shards with some


def test_a_pool_without_such_rows_has_no_copies(tmp_path):
    prepare(tmp_path, CLEAN)
    assert not list(tmp_path.glob("embeddings/*/*readable*"))


@pytest.mark.parametrize("name", ["got_d", "curated_tapt", "tsds"])
def test_a_budget_beyond_what_can_be_read_names_both(tmp_path, name):
    says = "the budget 106 is larger than the pool of 105 candidates that the encoder can read"
    with pytest.raises(ValueError, match=says):
        prepare(tmp_path, POOL, name=name, limit=106)
    with pytest.raises(ValueError, match="budget 121 is larger than the pool of 120 candidates;"):
        prepare(tmp_path, POOL, name=name, limit=121)


@pytest.mark.parametrize("side", ["target", "candidates"])
def test_a_side_that_cannot_be_read_is_refused(tmp_path, side):
    sides = {"target": TARGET, "candidates": CLEAN, side: ["!!!", "\u2026"]}
    with pytest.raises(ValueError, match=f"the encoder can read no row of {side}: none holds a"):
        prepare(tmp_path, sides["candidates"], sides["target"], limit=1)
    assert not list(tmp_path.glob(f"embeddings/*-{side}-*[0-9a-f]"))


def test_what_is_read_of_a_row_decides(tmp_path):
    """A row whose words begin after ``length_chars`` cannot be read."""
    late = pa.table({"id": ["late"], "text": ["!" * 200 + TEXTS[0]], "domain": ["left"]})
    pool = pa.concat_tables([late, CLEAN])
    assert prepare(tmp_path, pool).ranked.outcome["unreadable_rows"]["candidates"] == 0
    mixed = prepare(tmp_path, pool, length_chars=200)
    assert mixed.ranked.outcome["unreadable_rows"]["candidates"] == 1
    assert "late" not in outcome(mixed)[0]["id"].to_pylist()


def test_an_encoder_that_gives_other_lengths_leaves_out_zeros_alone(tmp_path, monkeypatch):
    """Only a row of zeros is unreadable, however short another is."""
    load = TfidfSvdEncoder.load

    class Short:
        def __init__(self, model: Any) -> None:
            self.model = model

        def embed(self, texts: Sequence[str]) -> np.ndarray:
            return self.model.embed(texts) * np.float32(1e-20)

    monkeypatch.setattr(TfidfSvdEncoder, "load", lambda *given: Short(load(*given)))
    prepared = prepare(tmp_path, POOL, name="round_robin")
    assert prepared.ranked.outcome["unreadable_rows"]["candidates"] == 15


# From Python and from the command line ------------------------------------------------


def write_files(folder: Path) -> list[str]:
    """Write a pool with unreadable rows and a target; return the arguments that name them."""
    folder.mkdir(exist_ok=True)
    pq.write_table(POOL, folder / "pool.parquet")
    pq.write_table(MIXED_TARGET, folder / "mine.parquet")
    pool, target = str(folder / "pool.parquet"), str(folder / "mine.parquet")
    return ["select", "--target", target, "--candidates", pool]


@pytest.mark.parametrize("name", ["got_d", "round_robin"])
def test_python_gives_the_rows_of_a_pool_without_them(name):
    """By the default encoder, which draws all rows of so small a pool."""
    unreadable = [f"{mark * 3}" for mark in "!?.,;:"]
    texts, target = CLEAN["text"].to_pylist(), [*TEXTS, "\u2026"]
    mixed = gotd.GOTD(method=name).fit(target, [*texts[:50], *unreadable, *texts[50:]])
    plain = gotd.GOTD(method=name).fit(TEXTS, texts)
    chosen, expected = (one.select(BUDGET, explain=True) for one in (mixed, plain))
    assert chosen.texts == expected.texts
    for column in ("target_id", "rank"):
        assert chosen.table[column].to_pylist() == expected.table[column].to_pylist()
    assert "6 rows of the candidates hold no word that the encoder knows" in chosen.report
    assert "1 rows of the target hold no word that the encoder knows" in chosen.report
    assert "no word that the encoder knows" not in expected.report
    assert mixed.select(len(texts)).texts == plain.select(len(texts)).texts
    with pytest.raises(ValueError, match=f"budget {len(texts) + 1} is larger than the pool of"):
        mixed.select(len(texts) + 1)


def test_the_command_counts_them_in_its_log_its_manifest_and_its_report(tmp_path, caplog):
    out = tmp_path / "out"
    texts = ["!!!", "...", *CLEAN["text"].to_pylist()]
    pq.write_table(pa.table({"text": texts}), tmp_path / "pool.parquet")
    (tmp_path / "mine.txt").write_text("\n".join([*TEXTS, "???"]), "utf-8")
    given = ["select", "--target", str(tmp_path / "mine.txt"), "--budget", "9", "--explain"]
    given += ["--candidates", str(tmp_path / "pool.parquet"), "--store", str(tmp_path / "store")]
    with caplog.at_level("INFO"):
        assert main([*given, "--out", str(out)]) == 0
    for side, count in (("target", 1), ("candidates", 2)):
        says = f"{count} rows of the {side} hold no word that the encoder knows"
        assert says in caplog.text
        assert says in (out / "report.md").read_text("utf-8")
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert manifest["unreadable_rows"] == {"target": 1, "candidates": 2}
    assert manifest["rows"] == {"target": 13, "candidates": 107}
    assert not set(pq.read_table(out / "selected.parquet")["text"].to_pylist()) & {"!!!", "..."}


# Methods without embeddings -----------------------------------------------------------


def test_a_method_without_embeddings_may_select_them_but_explains_them_by_no_target(tmp_path):
    prepared = prepare(tmp_path, POOL, MIXED_TARGET, "random", limit=120)
    rows, summary = outcome(prepared, 120)
    assert prepared.ranked.outcome["unreadable_rows"] == {"target": 0, "candidates": 0}
    read = [is_readable(text) for text in rows["text"].to_pylist()]
    assert read.count(False) == 15
    ids = rows["target_id"].to_pylist()
    assert [name is not None for name in ids] == read
    assert (rows["target_share"].to_numpy() > 0).tolist() == read
    assert not {"u", "v"} & set(ids)
    assert summary["targets"]["targets"] == len(TARGET)
    assert sum(target["rows"] for target in summary["targets"]["largest"]) <= 105
    vectors = prepared.embed([*rows["text"].to_pylist(), *TEXTS])
    nearest = (vectors[:120] @ vectors[120:].T).argmax(axis=1)
    assert ids == [f"t{best}" if known else None for best, known in zip(nearest, read, strict=True)]


def test_a_selection_of_unreadable_rows_alone_is_explained(tmp_path):
    prepared = prepare(tmp_path, ["!!!", "..."], TARGET, "random", limit=2)
    rows, summary = outcome(prepared, 2)
    assert rows["target_id"].to_pylist() == [None, None]
    assert summary["targets"]["starved_targets"] == len(TARGET)
    json.dumps(describe(prepared, "") | {"summary": summary}, allow_nan=False)


def test_a_target_that_cannot_be_read_explains_nothing(tmp_path):
    prepared = prepare(tmp_path, CLEAN, ["!!!"], "dsir")
    assert len(pa.concat_tables(prepared.select(3).blocks())) == 3
    with pytest.raises(ValueError, match="the encoder can read no row of target"):
        prepared.select(3, explain=True)


# Interruptions ------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from gotd.cli.main import main
from gotd.data import kept, pool
from gotd.pipeline.steps import pools

pool.SHARD_ROWS, where = int(sys.argv[1]), sys.argv[2]

def die(*given):
    if where == "half a copy":
        given[0].write(b"half")
        given[0].flush()
    os.kill(os.getpid(), signal.SIGKILL)

if where == "before the copies":
    pools.write_readable = die
elif where == "before the count":
    write = kept.write_json
    kept.write_json = lambda *given: die() if given[0].name == pool.UNREADABLE else write(*given)
else:
    save = np.save
    np.save = lambda file, rows: save(file, rows) if isinstance(file, Path) else die(file)
main(sys.argv[3:])
"""


@pytest.mark.parametrize("where", ["before the copies", "half a copy", "before the count"])
def test_a_kill_while_they_are_sorted_out_changes_no_byte(tmp_path, where):
    given = [*write_files(tmp_path), "--budget", "20", "--explain"]
    places = {name: tmp_path / name for name in ("whole", "cut")}

    def arguments(name: str) -> list[str]:
        return [*given, "--out", str(places[name] / "out"), "--store", str(places[name] / "store")]

    assert main(arguments("whole")) == 0
    environment = {**os.environ, "PYTHONPATH": str(Path(gotd.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, str(SHARD_ROWS), where, *arguments("cut")]
    killed = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert list(places["cut"].glob("store/embeddings/*.part"))
    assert main(arguments("cut")) == 0
    whole, cut = (
        {
            str(path.relative_to(place)): path.read_bytes()
            for path in place.rglob("*")
            if path.suffix in (".arrow", ".npy", ".parquet") or path.name == "unreadable.json"
        }
        for place in places.values()
    )
    assert whole == cut
    assert any("readable-" in name for name in whole)
    assert not list(tmp_path.rglob("*.part"))


# Experiments --------------------------------------------------------------------------


def write_folder(folder: Path, candidates: pa.Table, target: Sequence[str]) -> Path:
    """Write the folder of an experiment."""
    (folder / "candidates").mkdir(parents=True)
    (folder / "domain" / "imdb").mkdir(parents=True)
    for domain in ("left", "right"):
        rows = candidates.filter(pa.compute.equal(candidates["domain"], domain))
        pq.write_table(rows.drop("domain"), folder / "candidates" / f"{domain}.parquet")
    for split, texts in {"train": target, "validation": TEXTS, "test": TEXTS}.items():
        rows = pa.table({"text": list(texts), "label": [n % 2 for n in range(len(texts))]})
        pq.write_table(rows, folder / "domain" / "imdb" / f"{split}.parquet")
    return folder


def plan_selection(folder: Path, store: Path, *more: str) -> tuple[Any, Any]:
    """Return the store and the step of the selection of a cell, of which no model is trained."""
    given = ["experiment=domain", "scale=folder", "task=imdb", "model=micro", "seed=1"]
    given += ["tracker=none", "embedder=tfidf_svd", "hydra/launcher=basic", "budget=20"]
    given += ["pre_fine_tune=micro", "fine_tune=micro", "rank_rows=20", "source.held_out_share=0"]
    given += ["embedder.dimension=8", "embedder.sample_rows=200", "candidate_chunks.unit=whole"]
    given += ["candidate_chunks.min_chars=0", "target_chunks.min_chars=0"]
    given += ["target_chunks.unit=whole", "candidates.screen=null"]
    ((config, variant),) = expand([*given, f"source.path={folder}", f"store={store}", *more])
    cell = plan_cell(config, variant)
    return cell.store, cell.record.inputs["selection"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Write a folder with unreadable rows that have no word at all, and one without them."""
    place = tmp_path_factory.mktemp("folders")
    blots = pa.table(
        {"id": ["x", "y", "z"], "text": ["!!!", "...", "\u2014"], "domain": ["left"] * 3}
    )
    mixed = pa.concat_tables([CLEAN.slice(0, 40), blots, CLEAN.slice(40)])
    return {
        "mixed": write_folder(place / "mixed", mixed, [*TEXTS, "???"]),
        "clean": write_folder(place / "clean", CLEAN, TEXTS),
    }


@pytest.mark.parametrize("name", [*EMBEDDING, "random"])
def test_a_cell_selects_as_if_they_were_not_there(folders, tmp_path, name):
    found = {}
    for kind, folder in folders.items():
        store, step = plan_selection(folder, tmp_path / kind, f"selector={name}")
        place = store.get(step)
        report = json.loads((place / "report.json").read_text("utf-8"))
        found[kind] = pq.read_table(place / "selection.parquet"), report
    (rows, report), (others, clean_report) = found["mixed"], found["clean"]
    if name == "random":  # reads no embeddings, so they compete; measures leave them out
        assert report["unreadable_rows"] == {"target": 0, "candidates": 0}
        assert report["coverage"]["targets"] == clean_report["coverage"]["targets"]
        return
    assert report["unreadable_rows"] == {"target": 1, "candidates": 3}
    assert clean_report["unreadable_rows"] == {"target": 0, "candidates": 0}
    assert rows["text"].to_pylist() == others["text"].to_pylist()
    assert report["coverage"] == pytest.approx(clean_report["coverage"], rel=1e-6)


def test_a_cell_with_screened_domains_leaves_them_out(folders, tmp_path):
    """The distance of a domain is that of its readable rows."""
    found = {}
    for kind, folder in folders.items():
        more = ("selector=got_d", "candidates.screen=1")
        store, step = plan_selection(folder, tmp_path / kind, *more)
        report = json.loads((store.get(step) / "report.json").read_text("utf-8"))
        rows = pq.read_table(store.get(step) / "selection.parquet")
        found[kind] = report["diagnostics"]["screened"], rows["text"].to_pylist()
    (screened, texts), (expected, expected_texts) = found["mixed"], found["clean"]
    assert texts == expected_texts
    assert screened["kept"] == expected["kept"]
    assert len(screened["kept"]) == 1
    assert screened["distances"] == pytest.approx(expected["distances"], rel=1e-6)


@pytest.mark.parametrize("name", ["got_d", "curated_tapt"])
def test_a_cell_s_budget_beyond_what_can_be_read_names_both(folders, tmp_path, name):
    more = (f"selector={name}", "budget=106", "rank_rows=106")
    store, step = plan_selection(folders["mixed"], tmp_path, *more)
    with pytest.raises(ValueError, match="the budget 106 is larger than the pool of 105 cand"):
        store.get(step)
