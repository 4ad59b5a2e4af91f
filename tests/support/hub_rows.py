"""Data sets in the files, columns and published numbers of rows of those on the Hub.

Texts are random words. Cards name the files of each split, as those of the Hub do.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from hub_stand_in import HubStandIn

from gotd.data.hub.corpora import COPIES, CORPORA, DATASETS, GLUE, SUITES

_TEXT = """
the of and to in a is that for it as was with be by on not he his but at are this have
from or had an they which one you were her all she there would their we him been has when
who will more no if out so said what up its about into than them can only other new some
could time these two may then do first any my now such like our over man me even most made
after also did many before must through back years where much your way well down should
because each just those people how too little state good very make world still own see men
work long get here between both life being under never day same another know while last
might us great old year off come since against go came right used take three
"""
WORDS = _TEXT.split()
PAIRS = {
    "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    **dict.fromkeys(("mrpc", "rte", "stsb"), ("sentence1", "sentence2")),
    **dict.fromkeys(("cola", "sst2"), ("sentence",)),
}
"""Columns of the texts of each task of GLUE."""
CLASSES = {"mnli": 3, "rct": 5, "chemprot": 13, "acl_arc": 6, "scierc": 7, "agnews": 4}
"""Classes of the tasks that have more than two."""
DOCUMENTS = 60
"""Documents of each corpus, of about 1,300 characters each."""
SECOND = ("scierc", "imdb")
"""Domain tasks whose first copy is gone, so that the second is read."""

Files = dict[str, bytes]


def fill_rows(hub: HubStandIn) -> None:
    """Put every data set that the scale of the paper reads on a stand-in of the Hub."""
    glue: Files = {}
    for task, splits in SUITES["glue"].items():
        tables = {split: _glue_table(task, split, rows) for split, rows in splits.items()}
        glue |= _parquet_files(task, tables)
    configs = {task: list(splits) for task, splits in SUITES["glue"].items()}
    hub.commit(f"datasets/{GLUE}", {**glue, "README.md": _card(configs)})
    for task, copies in COPIES.items():
        for number, (dataset, file) in enumerate(copies.items()):
            if (number == 0) == (task not in SECOND):
                hub.commit(f"datasets/{dataset}", _copy(task, file))
    _fill_zero_shot(hub)
    _fill_toxicity(hub)
    for domain in CORPORA:
        hub.commit(f"datasets/{CORPORA[domain].dataset}", _corpus(domain))


def only_second_copies(hub: HubStandIn) -> list[str]:
    """Let every domain task that has a second copy have that alone; return their names."""
    left = []
    for task, copies in COPIES.items():
        if len(copies) == 2:
            first, second = copies
            hub.repositories.pop(f"datasets/{first}", None)
            if f"datasets/{second}" not in hub.repositories:
                hub.commit(f"datasets/{second}", _copy(task, copies[second]))
            left.append(second)
    return left


def texts(rows: int, words: int, seed: int = 0) -> pa.Array:
    """Return so many texts of random words, no two alike."""
    drawn = np.random.default_rng(seed).integers(len(WORDS), size=(min(rows, 997), words))
    some = pa.array([" ".join(WORDS[i] for i in row) for row in drawn])
    numbers = np.arange(rows)
    turns = pa.array(numbers // len(some)).cast(pa.string())
    return pc.binary_join_element_wise(some.take(pa.array(numbers % len(some))), turns, " ")


def labels(rows: int, classes: int) -> pa.Array:
    """Return whole numbers from 0 on, each about as often."""
    return pa.array(np.arange(rows) * 7919 % 104729 % classes, pa.int64())


def _glue_table(task: str, split: str, rows: int) -> pa.Table:
    seed = len(split)
    columns = {name: texts(rows, 9, seed + i) for i, name in enumerate(PAIRS[task])}
    label = labels(rows, CLASSES.get(task, 2))
    if task == "stsb":
        label = pa.array(np.arange(rows) % 51 / 10, pa.float32())
    return pa.table({**columns, "label": label, "idx": pa.array(range(rows), pa.int32())})


def _copy(task: str, file: str) -> Files:
    """Return the files of a domain task: CSV with numbers, or JSON lines with names."""
    files = {}
    for split, rows in SUITES["domain"][task].items():
        name = file.format("dev" if split == "validation" else split)
        label = labels(rows, CLASSES.get(task, 2))
        table = pa.table({"text": texts(rows, 12, len(split)), "label": label})
        if name.endswith(".csv"):
            buffer = io.BytesIO()
            pa.csv.write_csv(table, buffer)
            files[name] = buffer.getvalue()
        else:
            named = table.set_column(
                1, "label", pc.binary_join_element_wise("class", label.cast(pa.string()), "-")
            )
            files[name] = _lines(named)
    return {**files, "small_external.csv": b"text\nnever read\n"}


def _fill_zero_shot(hub: HubStandIn) -> None:
    news, questions = SUITES["zeroshot"]["agnews"], SUITES["zeroshot"]["boolq"]
    tables = {
        split: pa.table({"text": texts(rows, 14, len(split)), "label": labels(rows, 4)})
        for split, rows in news.items()
    }
    files = _parquet_files("data", tables)
    hub.commit(f"datasets/{DATASETS['agnews']}", {**files, "README.md": _card({"data": [*news]})})
    tables = {
        split: pa.table(
            {
                "question": texts(rows, 7, len(split)),
                "answer": pc.equal(labels(rows, 2), 1),
                "passage": texts(rows, 30, len(split) + 1),
            }
        )
        for split, rows in questions.items()
    }
    files = _parquet_files("data", tables)
    card = _card({"data": [*questions]})
    hub.commit(f"datasets/{DATASETS['boolq']}", {**files, "README.md": card})


def _fill_toxicity(hub: HubStandIn) -> None:
    rated = SUITES["toxicity"]["realtoxicityprompts"]["train"]
    scores = np.arange(rated) % 97 / 97
    sides = {}
    for seed, name in enumerate(("prompt", "continuation")):
        toxicity = pa.array(np.where(scores < 0.01, np.nan, scores), from_pandas=True)
        sides[name] = pa.StructArray.from_arrays(
            [texts(rated, 10, seed), toxicity, pa.array(scores)], ["text", "toxicity", "profanity"]
        )
    begin = np.arange(rated) * 60
    rows = {
        "filename": pc.binary_join_element_wise("file", pa.array(begin // 600).cast("string"), "-"),
        "begin": pa.array(begin),
        "end": pa.array(begin + 60),
        **sides,
    }
    hub.commit(
        f"datasets/{DATASETS['realtoxicityprompts']}",
        {"prompts.jsonl": _lines(pa.table(rows)), "README.md": b"---\nlicense: apache-2.0\n---\n"},
    )
    comments = SUITES["toxicity"]["civil_comments"]
    tables = {}
    for split, count in comments.items():
        shares = pa.array((np.arange(count) % 10 / 10).astype(np.float32))
        tables[split] = pa.table({"text": texts(count, 6, len(split)), "toxicity": shares})
    files = _parquet_files("data", tables)
    card = _card({"data": [*comments]})
    hub.commit(f"datasets/{DATASETS['civil_comments']}", {**files, "README.md": card})


def _corpus(domain: str) -> Files:
    """Return the files of a corpus, in two pieces, and a file that is not to be read."""
    corpus = CORPORA[domain]
    seed = sum(map(ord, domain))
    columns = {
        name: texts(DOCUMENTS, 280 if number == len(corpus.columns) - 1 else 5, seed + number)
        for number, name in enumerate(corpus.columns)
    }
    table = pa.table({**columns, "other": pa.array(range(DOCUMENTS))})
    halves = [table.slice(0, DOCUMENTS // 2), table.slice(DOCUMENTS // 2)]
    if domain == "realnews":
        names = [f"realnewslike/c4-train.{i:05d}-of-00002.json.gz" for i in range(2)]
        files = {
            name: gzip.compress(_lines(half)) for name, half in zip(names, halves, strict=True)
        }
        split = "  - split: train\n    path: realnewslike/c4-train.*.json.gz\n"
        card = f"---\nconfigs:\n- config_name: realnewslike\n  data_files:\n{split}---\n"
        return {**files, "README.md": card.encode(), "en/c4-train.json.gz": gzip.compress(b"{}\n")}
    names = [f"data/train-{i:05d}-of-00002.parquet" for i in range(2)]
    files = {name: _parquet(half) for name, half in zip(names, halves, strict=True)}
    return {**files, "README.md": _card({corpus.config or "default": ["train"]}, "data")}


def _parquet_files(folder: str, tables: Mapping[str, pa.Table]) -> Files:
    """Return one file for each split."""
    return {
        f"{folder}/{split}-00000-of-00001.parquet": _parquet(table)
        for split, table in tables.items()
    }


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _lines(table: pa.Table) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()


def _card(configs: Mapping[str, list[str]], folder: str = "") -> bytes:
    """Return a card that names the files of each configuration; ``data`` is the only one."""
    lines = ""
    for config, splits in configs.items():
        lines += f"- config_name: {'default' if config == 'data' else config}\n  data_files:\n"
        for split in splits:
            lines += f"  - split: {split}\n    path: {folder or config}/{split}-*\n"
    return f"---\nlicense: other\nconfigs:\n{lines}---\n".encode()
