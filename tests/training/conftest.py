"""Tiny models and texts: one layer, 32 wide, made from configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

WORDS = [f"w{i}" for i in range(60)]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("tiny"), dropout=0.1)


@pytest.fixture(scope="session")
def calm_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base without dropout, whose updates can be compared exactly."""
    return make_base(tmp_path_factory.mktemp("calm"), dropout=0.0)


def make_base(folder: Path, dropout: float) -> Path:
    from gotd.training.models import ModelSpec, build_model

    spec = ModelSpec(
        hidden_size=32, heads=2, feed_forward_size=64, dropout=dropout, max_length_tokens=48
    )
    build_model(spec, WORDS, 1, folder)
    return folder


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Forty texts of 3 to 30 words in which every word is followed by its successor."""
    random = np.random.default_rng(0)
    return [
        " ".join(WORDS[(start + i) % 60] for i in range(length))
        for start, length in random.integers([0, 3], [60, 31], size=(40, 2))
    ]


@pytest.fixture(scope="session")
def labelled() -> pa.Table:
    """Single texts whose class is the half of the vocabulary they use."""
    random = np.random.default_rng(1)
    labels = random.integers(2, size=96)
    lengths = random.integers(3, 10, size=96)
    texts = [
        " ".join(random.choice(WORDS[30 * k : 30 * k + 30], size=length))
        for k, length in zip(labels, lengths, strict=True)
    ]
    return task_table(texts, None, labels)


def task_table(texts: list[str], pairs: list[str] | None, labels: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "id": [f"r{i}" for i in range(len(texts))],
            "text": texts,
            "text_pair": pa.array(pairs or [None] * len(texts), pa.string()),
            "label": np.asarray(labels, dtype=np.float64),
        }
    )


@pytest.fixture(scope="session")
def paired() -> pa.Table:
    """Pairs whose class says whether both use the same half; the score is twice that."""
    random = np.random.default_rng(2)
    halves = random.integers(2, size=(96, 2))
    draw = [[" ".join(random.choice(WORDS[30 * k : 30 * k + 30], 5)) for k in h] for h in halves]
    first, second = [d[0] for d in draw], [d[1] for d in draw]
    return task_table(first, second, (halves[:, 0] == halves[:, 1]).astype(float))
