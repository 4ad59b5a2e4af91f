"""A small pool of three topics in several formats, and a target of one of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

WORDS = {
    "cells": "protein cell kinase tumor receptor gene assay mouse tissue enzyme",
    "stars": "star planet orbit telescope galaxy dust nebula comet solar light",
    "trade": "market price bond tariff bank export loan profit share budget",
}
PER_TOPIC = 120


def passages(topic: str, count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    words = [*WORDS[topic].split(), "the", "of", "and", "with", "was"]
    return [" ".join(random.choice(words, size=int(random.integers(15, 30)))) for _ in range(count)]


class Given:
    """Where the files are.

    Args:
        folder: That holds them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = folder / "mine.jsonl"
        self.pool = folder / "pool"
        self.rows: dict[str, str] = {}

    def arguments(
        self, *more: str, target: str | None = None, pool: str | None = None
    ) -> list[str]:
        """Give the arguments of `gotd select` that every call needs."""
        return [
            "select",
            "--target",
            target or str(self.target),
            "--candidates",
            pool or str(self.pool),
            "--store",
            str(self.folder / "store"),
            *more,
        ]


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """Write the files, once for all tests; they only read them."""
    here = Given(tmp_path_factory.mktemp("given"))
    here.pool.mkdir()
    for number, topic in enumerate(WORDS):
        texts = passages(topic, PER_TOPIC, number)
        ids = [f"{topic}/{i}" for i in range(PER_TOPIC)]
        table = pa.table({"id": ids, "text": texts, "domain": [topic] * PER_TOPIC})
        here.rows.update(zip(ids, texts, strict=True))
        if topic == "trade":
            lines = [json.dumps(row) for row in table.to_pylist()]
            (here.pool / "trade.jsonl").write_text("\n".join(lines), "utf-8")
        else:
            pq.write_table(table, here.pool / f"{topic}.parquet")
    target = [json.dumps({"text": text}) for text in passages("cells", 30, 9)]
    here.target.write_text("\n".join(target), "utf-8")
    return here
