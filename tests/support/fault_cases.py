"""The cases of the fault suite: commands on tiny inputs, by the names in docs/testing.md."""

from __future__ import annotations

import io
import json
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


@dataclass(frozen=True)
class Command:
    """A command of the suite.

    Args:
        arguments: Of `gotd`.
        results: Files and folders whose content is compared.
        kills: Operations of the seeded sample that are tried.
        needs: What must be there before: ``rows``, ``cell`` (a finished one) or ``hub``.
    """

    arguments: list[str]
    results: tuple[str, ...]
    kills: int
    needs: str


COMMANDS = {
    "select": Command(SELECT, ("out", "store"), 12, "rows"),
    "sweep": Command(["run", *CELL], ("store",), 6, ""),
    "export": Command(["export", *CELL, "--out", "model"], ("model",), 6, "cell"),
    "fetch": Command(FETCH, ("hub",), 5, "hub"),
    "report": Command(["report", "records.jsonl", "--out", "report"], ("report",), 5, "cell"),
}
KILLS = {f"{name}, killed before an operation": name for name in COMMANDS}
FULL_DISKS = {f"{name}, full disk": name for name in ("select", "sweep", "export", "report")}
READ_ONLY = {f"{name}, read-only folder": name for name in ("select", "sweep", "export", "report")}
SIGNALS = {
    "select, SIGINT": ("select", 2),
    "select, SIGTERM": ("select", 15),
    "sweep, SIGINT": ("sweep", 2),
    "sweep, SIGTERM": ("sweep", 15),
}
CLOSED = {f"{name}, closed output": name for name in ("select", "report", "export")}
HOMELESS = {f"{name}, no home": name for name in ("select", "export")}
DAMAGED = {f"{name}, a flipped byte in each stored file": name for name in ("select", "sweep")}
CHANGED = "select, an input that grows while it is read"
TOGETHER = {
    "select, two runs in one store": "store",
    "select, two runs with one --out": "out",
}
NAMES = [
    *(*KILLS, *FULL_DISKS, *READ_ONLY, *SIGNALS, *CLOSED, *HOMELESS, *DAMAGED),
    *(CHANGED, *TOGETHER),
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
