"""The cases of the fault suite: commands on tiny inputs, by the names in docs/testing.md."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hub_stand_in import HubStandIn

from gotd.data.hub.corpora import CORPORA

SELECT_LINE = (
    "select --target t.txt --candidates p.jsonl --budget 5 --store store --out out --overwrite"
)
CELL_LINE = (
    "experiment=glue scale=micro task=cola seed=1 tracker=none budget=20 selector=got_d "
    "store=store source.pretraining_documents=60 source.candidate_documents=200 "
    "source.rare_share=0.1 source.labels=20 source.evaluation_rows=16 limits.validation_rows=4 "
    "limits.target_rows=20 model.pretraining.epochs=0.1 model.spec.layers=1 "
    "pre_fine_tune.epochs=1 fine_tune.epochs=1 hydra/launcher=basic"
)
SELECT, CELL = SELECT_LINE.split(), CELL_LINE.split()
FETCH = ["fetch", "experiment=glue", "scale=paper", "source.path=hub", "store=store"]
FETCH += ["source.chars_per_domain=400", "candidates.files=[books,wikipedia]"]
FETCH += ["task=cola", "selector=got_d", "seed=1"]  # one cell: a fetch reads the whole source


@dataclass(frozen=True)
class Command:
    """A command of the suite.

    Args:
        arguments: Of `gotd`.
        start: The beginning of its error line; "gotd" may be before it.
        results: Files and folders whose content is compared.
        tries: Operations of a seeded sample, by fault.
        needs: What must be there before: ``rows``, ``cell`` (a finished one) or ``hub``.
    """

    arguments: list[str]
    start: str
    results: tuple[str, ...]
    tries: Mapping[str, int]
    needs: str


OFTEN = {"kill": 10, "full": 5, "signal": 3}
SELDOM = {"kill": 4, "full": 3, "signal": 2}
"""A run of a sweep or of a fetch takes ten times as long as a selection."""
EXPORT = ["export", *CELL, "--out", "model"]
REPORT = ["report", "records.jsonl", "--out", "report"]
COMMANDS = {
    "select": Command(SELECT, "select", ("out", "store"), OFTEN, "rows"),
    "sweep": Command(["run", *CELL], "glue", ("store",), SELDOM, ""),
    "export": Command(
        ["export", *CELL, "--out", "model"], "gotd export", ("model",), SELDOM, "cell"
    ),
    "fetch": Command(FETCH, "fetch", ("hub",), SELDOM, "hub"),
    "report": Command(REPORT, "report", ("report",), SELDOM, "cell"),
}
KILLS = {f"{name}, killed before an operation": name for name in COMMANDS}
FULL_DISKS = {f"{name}, full disk": name for name in COMMANDS}
READ_ONLY = {f"{name}, read-only folder": name for name in COMMANDS}
SIGNALS = {
    f"{name}, {signal}": (name, number)
    for name in COMMANDS
    for signal, number in (("SIGINT", 2), ("SIGTERM", 15))
}
CLOSED = {f"{name}, closed output": name for name in COMMANDS}
HOMELESS = {f"{name}, no home": name for name in COMMANDS}
CHANGED = {
    "select, an input that grows while it is read": "grow",
    "select, an input that is cut while it is read": "cut",
    "select, an input that is replaced while it is read": "replace",
}
DAMAGED = {
    "select, a flipped byte in each stored file": ("select", "flip", 8),
    "select, each stored file cut": ("select", "cut", 6),
    "sweep, a flipped byte in each stored file": ("sweep", "flip", 4),
    "sweep, each stored file cut": ("sweep", "cut", 3),
    "export, a flipped byte in each file of the model": ("export", "flip", 3),
    "export, each file of the model cut": ("export", "cut", 3),
    "report, records cut": ("report", "cut", 1),
}
TOGETHER = {
    "select, two runs in one store": ("select", "out2", 3),
    "select, two runs with one --out": ("select", "", 3),
    "sweep, two runs in one store": ("sweep", "", 1),
    "export, two runs with one --out": ("export", "", 2),
    "fetch, two runs into one folder": ("fetch", "", 1),
    "report, two runs with one --out": ("report", "", 3),
}
NAMES = [
    *(*KILLS, *FULL_DISKS, *READ_ONLY, *SIGNALS, *CLOSED, *HOMELESS),
    *(*CHANGED, *DAMAGED, *TOGETHER),
]
"""Every case, in the order of the table."""


def write_rows(folder: Path) -> None:
    """Write a target and a pool for `gotd select`."""
    rows = [
        {"id": f"r{i}", "text": f"the dog number {i} barks loudly in park{i} by the river"}
        for i in range(60)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "p.jsonl").write_text(lines, "utf-8")
    (folder / "t.txt").write_text("the dog barks\nthe cat sleeps\n", "utf-8")


def few_rows() -> None:
    """Let GLUE have one task of a few rows, in a child process."""
    from gotd.data.hub import source

    source.SUITES["glue"] = {"cola": {"train": 12, "validation": 6}}  # type: ignore[index]


def fill_hub(hub: HubStandIn) -> None:
    """Put that task and two corpora on a stand-in of the Hub."""
    card = "---\nconfigs:\n- config_name: {}\n  data_files:\n{}---\n"
    split = "  - split: {0}\n    path: {1}\n"
    files = {}
    for name, rows in (("train", 12), ("validation", 6)):
        table = pa.table(
            {
                "sentence": [f"sentence {i} of {name}" for i in range(rows)],
                "label": [i % 2 for i in range(rows)],
                "idx": [*range(rows)],
            }
        )
        files[f"cola/{name}-00000-of-00001.parquet"] = parquet(table)
    splits = "".join(split.format(name, f"cola/{name}-*") for name in ("train", "validation"))
    hub.commit(
        "datasets/nyu-mll/glue", {**files, "README.md": card.format("cola", splits).encode()}
    )
    for domain in ("books", "wikipedia"):
        corpus = CORPORA[domain]
        config, texts = corpus.config or "default", [f"{domain} {i} and more" for i in range(80)]
        content = parquet(pa.table(dict.fromkeys(corpus.columns, texts)))
        readme = card.format(config, split.format("train", "data/train-*")).encode()
        pieces = {"data/train-00000-of-00001.parquet": content, "README.md": readme}
        hub.commit(f"datasets/{corpus.dataset}", pieces)


def parquet(table: pa.Table) -> bytes:
    """Return the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
