"""Encoders: how texts become rows of a matrix, as specifications that are cheap to build.

A specification is a frozen dataclass that states what enters a cache key; `load` reads the
model behind it. Target and candidates always go through the same encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from gotd.data.rows import Rows
from gotd.embedding import coverage
from gotd.embedding.embedders import (
    Embedder,
    Pooling,
    Precision,
    TransformerEmbedder,
    check_device,
    check_sizes,
)
from gotd.embedding.gradient import GradientEncoder
from gotd.embedding.tfidf import TfidfSvdEncoder
from gotd.storage import keys
from gotd.storage.checks import check_choices
from gotd.storage.hub_models import hub_commit, is_downloaded
from gotd.storage.hub_requests import asked, cause_of
from gotd.storage.model_files import locate, model_identity, not_fetched
from gotd.storage.shapes import Shape, named_shape
from gotd.storage.work import Work, reading_work

KNOWN = ("tfidf_svd", "minilm")
"""Encoders of ``gotd select`` that have a name of their own."""

BASE = "base"
"""Value of ``model`` for the base model of the experiment."""


class Encoder(Protocol):
    """A specification of an encoder."""

    @property
    def name(self) -> str:
        """Return a short name for tables and folders; it is not part of any key."""
        ...

    @property
    def model_from_step(self) -> Literal["base", "tuned", "warmed", "fitted"] | None:
        """Return which step's model embeds, if any.

        ``base`` is the base model of the experiment, ``warmed`` the same after a short training on
        the pool (`GradientEncoder`), ``tuned`` the model fine-tuned on the target, ``fitted`` what
        a `FittedEncoder` learnt from target and pool; ``None``: the encoder loads its own model.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Return what changes the matrix, beside the folder given to `load`."""
        ...

    def width(self, folder: Path | None = None) -> int:
        """Return the width of the matrix without loading the model.

        Args:
            folder: As for `load`.

        Raises:
            FileNotFoundError: If there is no such model on this machine or the Hub.
        """
        ...

    def work(self, rows: float, tokens: float, model: Shape | None) -> Work:
        """Return the work of embedding, with the width of the matrix but without its bytes.

        Args:
            rows: Texts to embed.
            tokens: Tokens of each.
            model: Sizes of the network, for an encoder that uses the model of a step.
        """
        ...

    def load(self, folder: Path | None = None) -> Embedder:
        """Load the model.

        Args:
            folder: Folder of the step that `model_from_step` names, if it names one.
        """
        ...


@runtime_checkable
class FittedEncoder(Encoder, Protocol):
    """A specification of an encoder that is first fitted on rows, in a step of its own."""

    @property
    def fitted_on(self) -> Literal["pool", "pool_and_target"]:
        """Return the rows it is fitted on."""
        ...

    @property
    def sample_rows(self) -> int:
        """Return the largest number of rows that are sampled from each of them."""
        ...

    def fit(
        self, pools: Sequence[Sequence[Rows]], folder: Path, length_chars: int | None = None
    ) -> None:
        """Fit the encoder and write it to a folder.

        Args:
            pools: The pools to fit on, each in shards.
            folder: Receives its files.
            length_chars: Characters of each text that are read; ``None``: all.
        """
        ...


@dataclass(frozen=True)
class TransformerEncoder:
    """A Hugging Face encoder, read by its hidden states or its input embeddings.

    Args:
        name: Short name for tables and folders; not part of any key.
        model: ``base`` (the base model of the experiment), ``minilm``, or the name or
            folder of an encoder.
        pooling: ``mean_masked``, ``mean_weighted`` (by position), ``mean_all_positions`` (as
            published), ``cls`` or ``token_mean``.
        max_length_tokens: Longer texts are cut here.
        normalise: Scale each row to unit length.
        precision: ``float32`` or ``bf16``.
        fine_tuned_on_target: First fine-tune the encoder on the target (the paper's
            DistilBERT).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ValueError: If a choice is unknown, a length is below 1, there is no such device
            here, or the base model is to be fine-tuned on the target.
    """

    key_name: ClassVar[str] = "TransformerEncoder"

    name: str
    model: str = BASE
    pooling: Pooling = "mean_masked"
    max_length_tokens: int = 256
    normalise: bool = False
    precision: Precision = "float32"
    fine_tuned_on_target: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        check_choices(self, "embedder ")
        check_sizes(max_length_tokens=self.max_length_tokens)
        if self.fine_tuned_on_target and self.model == BASE:
            raise ValueError(
                "embedder fine_tuned_on_target tunes a model of its own, not the base model; "
                "name one in embedder.model"
            )
        check_device(self.device)

    @property
    def model_from_step(self) -> Literal["base", "tuned"] | None:
        """Return which step's model embeds, if any; see `Encoder`."""
        if self.model == BASE:
            return "base"
        return "tuned" if self.fine_tuned_on_target else None

    def identity(self) -> dict[str, Any]:
        """Return the fields that change the matrix; a model counts by its weights."""
        fields = keys.identity(self)
        del fields["name"], fields["fine_tuned_on_target"]
        fields["model"] = None if self.model_from_step else model_identity(self.model)
        return {**fields, "version": TransformerEmbedder.version}

    def width(self, folder: Path | None = None) -> int:
        """Return the width of the matrix, read from the model's configuration.

        Raises:
            FileNotFoundError: If there is no such model on this machine or the Hub.
            ValueError: If it is damaged, or needs code of its own.
        """
        from gotd.training.loading import load_config

        model = str(folder or locate(self.model))
        if not Path(model).is_dir():
            self._ask_hub()
        try:
            config = load_config(model)
            if self.pooling == "token_mean":  # ALBERT's input embeddings are narrower
                return int(getattr(config, "embedding_size", config.hidden_size))
            return int(config.hidden_size)
        except (OSError, AttributeError) as error:
            raise self._absent(error) from error

    def work(self, rows: float, tokens: float, model: Shape | None) -> Work:
        """Return the work of embedding; see `Encoder.work`."""
        shape = model or named_shape(self.model)
        if self.pooling == "token_mean":  # runs no layer
            return Work(texts=rows, width=shape.hidden)
        padded = self.pooling == "mean_all_positions"
        read = self.max_length_tokens if padded else min(tokens, self.max_length_tokens)
        return replace(reading_work(shape, rows, read), width=shape.hidden)

    def load(self, folder: Path | None = None) -> Embedder:
        """Load the model; see `Encoder.load`."""
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # loading takes a moment; the step has a bar of its own
        return TransformerEmbedder(
            str(folder or locate(self.model)),
            pooling=self.pooling,
            max_length_tokens=self.max_length_tokens,
            normalise=self.normalise,
            precision=self.precision,
            device=self.device,
        )

    def lost_shares(self, texts: Sequence[str]) -> np.ndarray:
        """Return the share of each text's tokens that are lost: see `coverage.lost_shares`."""
        from gotd.training.loading import load_any_tokenizer

        tokenizer = load_any_tokenizer(str(locate(self.model)))
        return coverage.lost_shares(tokenizer, texts, self.max_length_tokens)

    def _ask_hub(self) -> None:
        """Check that the Hub, or its cache, has the model, in one request."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        try:
            at = hub_commit(self.model)
            if not is_downloaded(self.model, at):
                url = hf_hub_url(self.model, "config.json", revision=at)
                asked(partial(get_hf_file_metadata, url), f"the model {self.model}")
        except Exception as error:  # network errors have many classes
            if cause_of(error) in ("temporary", "disk"):
                raise not_fetched(self.model, error) from error
            raise self._absent(error) from error

    def _absent(self, error: Exception) -> FileNotFoundError:
        reason = " ".join(str(error).split())[:160]
        return FileNotFoundError(
            f"no encoder {self.model!r}: it is neither {' nor '.join(KNOWN)}, nor a folder "
            f"with a model, nor on the Hub ({reason})"
        )


def named_encoder(name: str, device: str = "auto") -> Encoder:
    """Return an encoder of ``gotd select``, or the space of a selector, by its name.

    Args:
        name: ``tfidf_svd`` (words, no model), ``minilm``, a space of the model that will be
            trained (``hidden_weighted``, ``gradient``), or the name or folder of a
            Hugging Face encoder, whose hidden states are averaged and scaled to unit length.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ValueError: If there is no such device here, or the name is nearly one of `KNOWN`.
    """
    near = get_close_matches(name, KNOWN, n=1, cutoff=0.7)
    if name not in KNOWN and near and not Path(name).is_dir():
        raise ValueError(f"unknown encoder {name!r}; did you mean {near[0]!r}?")
    check_device(device)
    if name == "tfidf_svd":
        return TfidfSvdEncoder()
    if name == "gradient":
        return GradientEncoder(device=device)
    if name == "hidden_weighted":
        return TransformerEncoder(
            name, pooling="mean_weighted", max_length_tokens=128, normalise=True, device=device
        )
    # MiniLM in bfloat16 is faster and agrees with float32: cosines are over 0.9999 for
    # passages, and a little lower for texts of a word or two.
    return TransformerEncoder(
        name=Path(name).name,
        model=name,
        max_length_tokens=128,
        normalise=True,
        precision="bf16" if name == "minilm" else "float32",
        device=device,
    )
