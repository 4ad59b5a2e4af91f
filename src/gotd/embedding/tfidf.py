"""A space of words: tf-idf and a truncated SVD (latent semantic analysis); needs no model.

It is fitted on a sample of the pool together with the target, so words that are rare in the
pool but common in the target have a direction of their own. The benchmark
``experiments/benchmarks/encoders.py`` compares it with other spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from gotd.config.choices import check_choices
from gotd.data.rows import Rows
from gotd.data.sampling import sample_texts
from gotd.data.words import words
from gotd.embedding.embedders import check_sizes
from gotd.storage import keys
from gotd.storage.shapes import Shape
from gotd.storage.work import Work

COMPONENTS, BUCKETS = "components.npy", "buckets.npy"

FittedOn = Literal["pool", "pool_and_target"]


@dataclass(frozen=True)
class TfidfSvdEncoder:
    """A specification of the space; see `gotd.embedding.encoders.Encoder`.

    A word falls into one of ``buckets`` by its hash. A text is the vector of its words with
    weights ``(1 + log count) * idf``, projected on the first ``dimension`` right singular
    vectors of such vectors of the sample, and scaled to unit length. A text without a word
    of the sample is the zero row.

    Args:
        dimension: Width of the matrix; with fewer singular vectors the rest is zero.
        buckets: Number of buckets of words.
        sample_rows: Rows of the pool, and of the target, that are drawn to fit.
        fitted_on: ``pool_and_target``, or ``pool``, whose embeddings then serve any target.
        seed: Seed of the sample, drawn by a hash of the row ids, and of the SVD.
        name: Short name for tables and folders; not part of any key.

    Raises:
        ValueError: If a size is below 1 or a choice is unknown.

    Source: Deerwester et al. (1990), Indexing by latent semantic analysis; the randomised
    SVD of Halko et al. (2011), as in scikit-learn.
    """

    key_name: ClassVar[str] = "TfidfSvdEncoder"
    version: ClassVar[int] = 1
    model_from_step: ClassVar[Literal["fitted"]] = "fitted"

    dimension: int = 128
    buckets: int = 1 << 18
    sample_rows: int = 3000
    fitted_on: FittedOn = "pool_and_target"
    seed: int = 0
    name: str = "tfidf_svd"

    def __post_init__(self) -> None:
        check_choices(self, "embedder ")
        check_sizes(dimension=self.dimension, buckets=self.buckets, sample_rows=self.sample_rows)

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide the matrix."""
        return {k: v for k, v in keys.identity(self).items() if k != "name"}

    def width(self, folder: Path | None = None) -> int:
        """Return the width of the matrix."""
        return self.dimension

    def work(self, rows: float, tokens: float, model: Shape | None) -> Work:
        """Return the work of embedding; see `gotd.embedding.encoders.Encoder.work`."""
        return Work(texts=rows, width=self.dimension, rate="words")

    def fit(
        self, pools: Sequence[Sequence[Rows]], folder: Path, length_chars: int | None = None
    ) -> None:
        """Fit the space and write it to a folder.

        Args:
            pools: The pools to sample, each in shards.
            folder: Receives ``components.npy`` (float32 ``[f, dimension]``, each row scaled
                by the idf of its bucket) and ``buckets.npy`` (int32 ``[f]``, ascending).
            length_chars: Characters of each text that are read; ``None``: all.

        Raises:
            ValueError: If no sampled text has a word.
        """
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfTransformer

        texts: list[str] = []
        for shards in pools:
            texts += sample_texts(shards, self.sample_rows, self.seed, "encoder")
        counts = _count_words([text[:length_chars] for text in texts], self.buckets)
        used = np.unique(counts.indices)
        if not len(used):
            raise ValueError(
                "the rows hold no word in any script, so the encoder tfidf_svd cannot be "
                "fitted; give texts with words or another encoder"
            )
        weights = TfidfTransformer(sublinear_tf=True)
        weighted = weights.fit_transform(counts[:, used])
        rank = min(self.dimension, *weighted.shape)
        svd = TruncatedSVD(rank, n_iter=4, random_state=self.seed).fit(weighted)
        components = np.zeros((len(used), self.dimension), dtype=np.float32)
        components[:, :rank] = svd.components_.T * weights.idf_[:, None]
        np.save(folder / COMPONENTS, components)
        np.save(folder / BUCKETS, used.astype(np.int32))

    def load(self, folder: Path | None = None) -> TfidfSvdEmbedder:
        """Load the space that `fit` wrote to a folder."""
        assert folder is not None, "the encoder is fitted by a step"
        return TfidfSvdEmbedder(
            np.load(folder / BUCKETS), np.load(folder / COMPONENTS), self.buckets
        )


@dataclass(frozen=True)
class TfidfSvdEmbedder:
    """A fitted space.

    Args:
        used: ``[f]`` int32, the buckets that have a direction, ascending.
        components: ``[f, d]`` float32, their directions.
        buckets: Number of buckets of words.
    """

    version: ClassVar[int] = 1

    used: np.ndarray
    components: np.ndarray
    buckets: int

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 ``[len(texts), d]``, row i for text i."""
        if not len(texts):
            return np.zeros((0, self.components.shape[1]), dtype=np.float32)
        counts = _count_words(texts, self.buckets)[:, self.used]
        counts.data = 1.0 + np.log(counts.data)
        rows = np.asarray(counts @ self.components, dtype=np.float32)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _count_words(texts: Sequence[str], buckets: int) -> Any:
    """Count words per bucket: a sparse float32 matrix ``[len(texts), buckets]``."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer: Any = HashingVectorizer  # its inferred types know no norm=None, no float32
    return vectorizer(
        analyzer=words, n_features=buckets, alternate_sign=False, norm=None, dtype=np.float32
    ).transform(texts)
