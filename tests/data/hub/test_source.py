"""Hub sources: fetched once, kept as Parquet, and one clear line without a network."""

import json
import socket
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.data.base import SourceUnavailable, read_all
from gotd.data.folder import Folder
from gotd.data.hub import source as hub
from gotd.data.hub.corpora import COPIES, CORPORA, GLUE, SUITES, Corpus
from gotd.data.hub.source import Hub
from gotd.data.tasks.labelled import LabelledTask, load
from gotd.data.tasks.toxicity import ToxicityTask, read_rated

REVISION = "0123456789abcdef0123456789abcdef01234567"
COLA = LabelledTask(
    "cola", ("sentence",), "class", 2, ("accuracy",), "accuracy", {"validation": "validation"}
)
load_locally = datasets.load_dataset


class Published:
    """What stands on the hub in these tests: local files behind the real loader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[dict] = []
        self.scripts: set[str] = set()
        cola = pa.table({"sentence": ["a", "b", "c"], "label": [0, 1, 0], "idx": [0, 1, 2]})
        self.put("cola-train.parquet", cola)
        self.put("cola-validation.parquet", cola.slice(0, 2))
        for domain, corpus in CORPORA.items():
            texts = [f"{domain} document {i} " + "x" * (i % 7) for i in range(200)]
            self.put(f"{domain}.parquet", pa.table(dict.fromkeys(corpus.columns, texts)))

    def put(self, name: str, table: pa.Table) -> None:
        pq.write_table(table, self.folder / name)

    def load_dataset(
        self, dataset, config=None, *, split, streaming=False, data_files=None, **rest
    ):
        self.calls.append({"dataset": dataset, "split": split, "streaming": streaming, **rest})
        if data_files is not None:
            (files,) = data_files.values()
            dataset = files.removeprefix("hf://datasets/").split("@")[0]
        elif dataset in self.scripts:
            raise RuntimeError("Dataset scripts are no longer supported, but found x.py")
        names = {corpus.dataset: f"{domain}.parquet" for domain, corpus in CORPORA.items()}
        name = names.get(dataset, f"{config}-{split}.parquet")
        return load_locally(
            "parquet",
            data_files={split: str(self.folder / name)},
            split=split,
            streaming=streaming,
            cache_dir=str(self.folder / "cache"),
        )


class Info:
    sha = REVISION


@pytest.fixture
def published(tmp_path, monkeypatch) -> Published:
    (tmp_path / "published").mkdir()
    there = Published(tmp_path / "published")
    monkeypatch.setattr(datasets, "load_dataset", there.load_dataset)
    # The library waits for its threads at the end of every stream.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: Info())
    monkeypatch.setitem(hub.SUITES, "glue", {"cola": {"train": 3, "validation": 2}})
    return there


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("the network is blocked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def source(tmp_path, **fields) -> Hub:
    return Hub(**{"path": str(tmp_path / "kept"), "chars_per_domain": 500, **fields})


def test_what_was_fetched_is_kept_with_its_revision(published, tmp_path):
    here = source(tmp_path, domains=("books",))
    first = here.split("cola", "train")
    assert first.column_names == ["sentence", "label", "idx"]
    assert first.num_rows == 3
    pool = read_all(here.candidates())
    calls = len(published.calls)
    assert here.split("cola", "train").equals(first)
    assert read_all(here.candidates()).equals(pool)
    assert len(published.calls) == calls == 2
    assert {call["revision"] for call in published.calls} == {REVISION}
    recorded = json.loads((tmp_path / "kept" / "revisions.json").read_text())
    assert recorded == {GLUE: REVISION, CORPORA["books"].dataset: REVISION}


def test_no_code_is_ever_trusted(published, tmp_path):
    source(tmp_path).fetch()
    assert all("trust_remote_code" not in call for call in published.calls)


def test_fetched_rows_are_a_folder_and_need_no_network(published, tmp_path, no_network):
    here = source(tmp_path, domains=("arxiv", "wikipedia"))
    here.fetch()
    copy = Folder(str(tmp_path / "kept"), held_out_share=0)
    assert read_all(copy.candidates()).equals(read_all(here.candidates()))
    assert copy.split("cola", "validation").equals(here.split("cola", "validation"))


def test_documents_are_whole_shuffled_and_enough(published, tmp_path):
    pool = read_all(source(tmp_path, domains=("wikipedia", "arxiv")).candidates())
    assert pool["domain"].unique().to_pylist() == ["wikipedia", "arxiv"]
    for domain in ("wikipedia", "arxiv"):
        texts = [r["text"] for r in pool.to_pylist() if r["domain"] == domain]
        size = sum(len(text) for text in texts)
        assert size >= 500 > size - len(texts[-1])
        assert all(text.startswith(f"{domain} document") for text in texts)
        assert texts != sorted(texts, key=lambda text: int(text.split()[2]))


def test_a_smaller_draw_is_the_start_of_a_larger(published, tmp_path):
    small = read_all(source(tmp_path / "a", domains=("books",)).candidates())
    large = read_all(source(tmp_path / "b", domains=("books",), chars_per_domain=2000).candidates())
    other = read_all(source(tmp_path / "c", domains=("books",), seed=1).candidates())
    assert large.slice(0, small.num_rows).equals(small)
    assert not other.equals(small)


def test_other_parameters_are_another_identity_and_fetched_anew(published, tmp_path):
    small = source(tmp_path, domains=("books",))
    large = source(tmp_path, domains=("books",), chars_per_domain=2000)
    pinned = source(tmp_path, domains=("books",), revisions={CORPORA["books"].dataset: "f" * 40})
    identities = [json.dumps(s.identity(), sort_keys=True) for s in (small, large, pinned)]
    assert len(set(identities)) == 3
    assert str(tmp_path) not in "".join(identities)
    rows = read_all(small.candidates()).num_rows
    assert read_all(large.candidates()).num_rows > rows
    read_all(pinned.candidates())
    assert published.calls[-1]["revision"] == "f" * 40


def test_a_script_is_passed_by_through_its_files(published, tmp_path):
    published.scripts = {CORPORA["openwebtext"].dataset, CORPORA["books"].dataset}
    assert read_all(source(tmp_path, domains=("openwebtext",)).candidates()).num_rows > 0
    assert published.calls[-1]["dataset"] == "parquet"
    with pytest.raises(SourceUnavailable, match=r"domain books .*scripts are no longer supported"):
        read_all(source(tmp_path, domains=("books",)).candidates())


def test_a_short_corpus_leaves_nothing_half_written(published, tmp_path):
    with pytest.raises(ValueError, match=r"domain books ends after [\d,]+ characters in 200 doc"):
        read_all(source(tmp_path, domains=("books",), chars_per_domain=10**6).candidates())
    assert not list((tmp_path / "kept" / "candidates").iterdir())


def test_rows_and_columns_are_asserted(published, tmp_path, monkeypatch):
    monkeypatch.setitem(hub.SUITES, "glue", {"cola": {"train": 8551}})
    with pytest.raises(ValueError, match=r"cola/train has 3 rows, published are 8551"):
        source(tmp_path).split("cola", "train")
    with pytest.raises(FileNotFoundError, match=r"no cola/test with labels; .*cola/train"):
        source(tmp_path).split("cola", "test")
    monkeypatch.setitem(hub.CORPORA, "books", Corpus("a/books", ("body",), "none"))
    published.put("books.parquet", pa.table({"text": ["a"]}))
    with pytest.raises(ValueError, match=r"a/books \(books\) has no column 'body'; it has text"):
        read_all(source(tmp_path, domains=("books",)).candidates())


def test_a_renamed_column_is_named_and_another_revision_is_fetched_anew(published, tmp_path):
    """What is kept is the revision as it is: only a task knows the columns that it needs."""
    texts, labels = ["a", "b", "c"], [0, 1, 0]
    published.put("cola-train.parquet", pa.table({"line": texts, "label": labels}))
    with pytest.raises(
        ValueError, match="cola/train.parquet has no column 'sentence'; it has line, label"
    ):
        load(source(tmp_path), COLA, "train")
    published.put("cola-train.parquet", pa.table({"sentence": texts, "label": labels}))
    moved = source(tmp_path, revisions={GLUE: "f" * 40})
    assert load(moved, COLA, "train")["text"].to_pylist() == texts


def test_without_a_network_one_line_says_what_to_do(tmp_path, no_network):
    for act, name in (
        (lambda s: s.split("cola", "train"), "nyu-mll/glue"),
        (lambda s: read_all(s.candidates()), "fancyzhx/amazon_polarity"),
        (lambda s: s.identity(), "fancyzhx/amazon_polarity"),
    ):
        with pytest.raises(SourceUnavailable, match=name) as error:
            act(source(tmp_path))
        message = str(error.value)
        assert "\n" not in message
        assert "SCALE=folder" in message
        assert str(tmp_path / "kept") in message


def test_offline_mode_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the network"))
    with pytest.raises(SourceUnavailable, match="offline mode is enabled"):
        source(tmp_path).split("cola", "train")


def test_a_stream_that_breaks_is_named(published, tmp_path, monkeypatch):
    class Broken:
        def shuffle(self, **_):
            return self

        def __iter__(self):
            yield {"text": "first"}
            raise ConnectionError("reset by peer")

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Broken())
    with pytest.raises(SourceUnavailable, match=r"domain books .*reset by peer"):
        read_all(source(tmp_path, domains=("books",)).candidates())
    assert not list((tmp_path / "kept" / "candidates").iterdir())


def test_bad_fields_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown domains \['owtc'\]; use any of amazon_reviews"):
        Hub(domains=("owtc",))
    with pytest.raises(ValueError, match="at least 1"):
        Hub(chars_per_domain=0)
    with pytest.raises(ValueError, match="no pre-training text"):
        Hub().pretraining()


# Domain tasks -------------------------------------------------------------------------


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Two copies of one domain task: CSV with numbers, JSON lines with names."""
    folder = tmp_path / "copies"
    folder.mkdir()
    names = {"train": ["b", "a", "b"], "dev": ["b", "b"], "test": ["a", "b"]}
    for file, labels in names.items():
        rows = [
            {"text": "null" if i == 0 else f"{file} {i}", "label": n} for i, n in enumerate(labels)
        ]
        (folder / f"citation_intent_{file}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        lines = [f"{row['text']},{'ab'.index(row['label'])}" for row in rows]
        (folder / f"{file}.csv").write_text("\n".join(["text,label", *lines]))
    calls, gone = [], set()

    def load(kind, *, data_files, split, streaming=False, **rest):
        (address,) = data_files.values()
        calls.append(address)
        data_files = {split: str(folder / address.rpartition("/")[2])}
        cache = str(tmp_path / "cache")
        return load_locally(
            kind, data_files=data_files, split=split, streaming=streaming, cache_dir=cache, **rest
        )

    def info(_, dataset, **__):
        if dataset in gone:
            error = OSError("404")
            error.response = SimpleNamespace(status_code=404)
            raise error
        return Info()

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setitem(hub.SUITES, "domain", {"acl_arc": {"train": 3, "validation": 2, "test": 2}})
    return calls, gone


def test_a_domain_task_is_read_from_its_own_files_alone(copies, tmp_path):
    calls, _ = copies
    here = source(tmp_path, suite="domain")
    train = here.split("acl_arc", "train")
    assert train.to_pydict() == {"text": ["null", "train 1", "train 2"], "label": [1, 0, 1]}
    assert here.split("acl_arc", "validation").num_rows == 2
    where = f"hf://datasets/yxchar/citation_intent-tlm@{REVISION}"
    assert calls == [f"{where}/train.csv", f"{where}/dev.csv"]
    assert here.tasks() == ["acl_arc"]
    assert here.identity()["tasks"]["acl_arc"]["dataset"] == "yxchar/citation_intent-tlm"
    copy = Folder(str(tmp_path / "kept"), held_out_share=0)
    assert copy.split("acl_arc", "train").equals(train)


def test_the_second_copy_stands_in_and_gives_the_same_classes(copies, tmp_path):
    calls, gone = copies
    first = source(tmp_path, path=str(tmp_path / "first"), suite="domain")
    gone.add("yxchar/citation_intent-tlm")
    second = source(tmp_path, suite="domain")
    for split in ("train", "validation", "test"):  # validation lacks a class
        assert second.split("acl_arc", split)["text"].to_pylist()
    gone.clear()
    for split in ("train", "validation", "test"):
        assert second.split("acl_arc", split).equals(first.split("acl_arc", split))
    # What was chosen once stays, though the first choice is there again.
    assert second.identity()["tasks"]["acl_arc"]["dataset"] == "zapsdcn/citation_intent"


def test_if_no_copy_is_there_the_first_is_named(copies, tmp_path):
    _, gone = copies
    gone |= set(COPIES["acl_arc"])
    with pytest.raises(SourceUnavailable, match="yxchar/citation_intent-tlm"):
        source(tmp_path, suite="domain").split("acl_arc", "train")


def test_another_number_of_rows_than_published_is_refused(copies, tmp_path, monkeypatch):
    monkeypatch.setitem(hub.SUITES, "domain", {"acl_arc": {"train": 4}})
    with pytest.raises(ValueError, match="acl_arc/train has 3 rows, published are 4"):
        source(tmp_path, suite="domain").split("acl_arc", "train")


def test_every_domain_task_has_copies_and_counts():
    assert set(COPIES) == set(SUITES["domain"])
    for name, copies in COPIES.items():
        splits = SUITES["domain"][name]
        assert set(splits) == {"train", "validation", "test"}
        assert all(file.count("{}") == 1 for file in copies.values())


def test_zero_shot_tasks_come_from_their_own_sets(tmp_path, monkeypatch):
    asked = []

    def load(dataset, config, *, split, revision, **_):
        asked.append((dataset, config, split, revision))
        columns = {"question": ["q", "r"], "passage": ["p", "s"], "answer": [True, False]}
        return datasets.Dataset.from_dict(columns)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: Info())
    monkeypatch.setitem(hub.SUITES, "zeroshot", {"boolq": {"train": 2}})
    rows = source(tmp_path, suite="zeroshot").split("boolq", "train")
    assert rows["label"].to_pylist() == [1, 0]
    assert asked == [("google/boolq", None, "train", REVISION)]
    with pytest.raises(ValueError, match="suite must be one of glue, domain, zeroshot, toxicity"):
        source(tmp_path, suite="superglue")


# Toxicity -----------------------------------------------------------------------------


def rated(prompt=(0.7, None, 0.1), begins=(3, 3, 9)):
    """Rows as RealToxicityPrompts has them; the first two stand at the same place."""
    text = [{"text": f"prompt {i}", "toxicity": s, "threat": 0.0} for i, s in enumerate(prompt)]
    more = [{"text": f" goes on {i}", "toxicity": 0.2, "threat": None} for i in range(len(prompt))]
    return {
        "filename": ["a.txt"] * len(prompt),
        "begin": list(begins),
        "end": [begin + 5 for begin in begins],
        "challenging": [False] * len(prompt),
        "prompt": text,
        "continuation": more,
    }


@pytest.fixture
def toxic(tmp_path, monkeypatch, published):
    """RealToxicityPrompts and Civil Comments beside the corpora."""
    asked = []
    sets = {
        "allenai/real-toxicity-prompts": rated(),
        "google/civil_comments": {"text": ["a", "b", "c"], "toxicity": [0.0, 0.5, 0.49]},
    }

    def load(dataset, config=None, **rest):
        if dataset not in sets:
            return published.load_dataset(dataset, config, **rest)
        asked.append((dataset, rest["split"], rest["revision"]))
        return datasets.Dataset.from_dict(sets[dataset])

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = {"realtoxicityprompts": {"train": 3}, "civil_comments": {"train": 3, "test": 3}}
    monkeypatch.setitem(hub.SUITES, "toxicity", rows)
    return sets, asked


def test_rated_prompts_are_laid_out_flat_and_comments_labelled(toxic, tmp_path):
    _, asked = toxic
    here = source(tmp_path, suite="toxicity")
    found = read_rated(here, ToxicityTask())
    assert found["id"].to_pylist() == ["a.txt:3-8", "a.txt:3-8#2", "a.txt:9-14"]
    assert found["prompt"].to_pylist() == ["prompt 0", "prompt 1", "prompt 2"]
    assert found["continuation"][2].as_py() == " goes on 2"
    assert np.isnan(found["prompt_toxicity"].to_numpy()).tolist() == [False, True, False]
    assert found["continuation_toxicity"].to_pylist() == [0.2, 0.2, 0.2]
    assert here.split("civil_comments", "train")["label"].to_pylist() == [0, 1, 0]
    assert here.tasks() == ["civil_comments", "realtoxicityprompts"]
    assert {revision for *_, revision in asked} == {REVISION}
    recorded = json.loads((tmp_path / "kept" / "revisions.json").read_text())
    assert recorded["allenai/real-toxicity-prompts"] == REVISION
    copy = Folder(str(tmp_path / "kept"), held_out_share=0)
    assert copy.split("realtoxicityprompts", "train").equals(
        here.split("realtoxicityprompts", "train")
    )


def test_a_toxicity_set_of_another_make_is_refused(toxic, tmp_path):
    sets, _ = toxic
    del sets["allenai/real-toxicity-prompts"]["begin"]
    sets["google/civil_comments"].pop("toxicity")
    here = source(tmp_path, suite="toxicity")
    with pytest.raises(ValueError, match="no column 'begin'; pin"):
        here.split("realtoxicityprompts", "train")
    with pytest.raises(ValueError, match="no column 'toxicity'; pin"):
        here.split("civil_comments", "test")
    sets["allenai/real-toxicity-prompts"] = {**rated(), "prompt": ["a", "b", "c"]}
    with pytest.raises(ValueError, match=r"no prompt.text and prompt.toxicity"):
        here.split("realtoxicityprompts", "train")
    assert not list((tmp_path / "kept").rglob("*.part"))


@pytest.mark.parametrize("rows_per_piece", [3, 8192])
def test_held_out_text_follows_the_candidates_and_is_none_of_them(
    toxic, tmp_path, monkeypatch, rows_per_piece
):
    monkeypatch.setattr("gotd.data.table_files.ROWS_PER_PIECE", rows_per_piece)
    fields = {"domains": ("openwebtext", "books")}
    plain = source(tmp_path / "a", **fields)
    apart = source(tmp_path / "b", **fields, held_out_chars=300)
    assert read_all(apart.candidates()).equals(read_all(plain.candidates()))
    rest = read_all(apart.held_out())
    for domain in fields["domains"]:
        texts = [row["text"] for row in rest.to_pylist() if row["domain"] == domain]
        assert sum(map(len, texts)) >= 300 > sum(map(len, texts[:-1]))
    assert not set(rest["id"].to_pylist()) & set(read_all(plain.candidates())["id"].to_pylist())
    assert apart.identity() != plain.identity()
    with pytest.raises(ValueError, match="set source.held_out_chars above 0, or task.held_out_r"):
        plain.held_out()
