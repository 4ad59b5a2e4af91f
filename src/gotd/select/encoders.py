"""The encoders of ``gotd select``: ``hashed``, ``minilm``, or any model by name or folder."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gotd.embedding import Embedder, HashedEmbedder, Precision, TransformerEmbedder
from gotd.stages.identity import identity, model_identity
from gotd.stages.models import locate

KNOWN = ("hashed", "minilm")


@dataclass(frozen=True)
class Encoder:
    """How texts become rows of a matrix; both sides alike.

    Args:
        name: ``hashed`` (word n-grams, no model), ``minilm``, or the name or folder of a
            Hugging Face encoder, whose states are averaged and scaled to unit length.
        max_length_tokens: Tokens of a text that a model reads at most.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    name: str = "hashed"
    max_length_tokens: int = 128
    device: str = "auto"

    def __post_init__(self) -> None:
        near = get_close_matches(self.name, KNOWN, n=1, cutoff=0.7)
        if self.name not in KNOWN and near and not Path(self.name).is_dir():
            raise ValueError(f"unknown encoder {self.name!r}; did you mean {near[0]!r}?")

    @property
    def precision(self) -> Precision:
        """MiniLM in bfloat16 agrees with float32 (cosine over 0.9999) at twice the speed."""
        return "bf16" if self.name == "minilm" else "float32"

    def identity(self) -> dict[str, Any]:
        """Say what decides the matrix: the model's weights and how it is read."""
        if self.name == "hashed":
            return identity(HashedEmbedder())
        return {
            "class": "TransformerEmbedder",
            "version": TransformerEmbedder.version,
            "model": model_identity(self.name),
            "max_length_tokens": self.max_length_tokens,
            "precision": self.precision,
        }

    def dimension(self) -> int:
        """Give the width of the matrix without loading the model.

        Raises:
            FileNotFoundError: If there is no such model on this machine or the Hub.
        """
        if self.name == "hashed":
            return HashedEmbedder().dimension
        from transformers import AutoConfig

        try:
            return int(AutoConfig.from_pretrained(locate(self.name)).hidden_size)
        except (OSError, ValueError, AttributeError) as error:
            reason = str(error).splitlines()[0][:160]
            raise FileNotFoundError(
                f"no encoder {self.name!r}: it is neither {' nor '.join(KNOWN)}, nor a folder "
                f"with a model, nor to be had from the Hub ({reason})"
            ) from error

    def make(self) -> Embedder:
        """Load it."""
        if self.name == "hashed":
            return HashedEmbedder()
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # it loads in a moment; the stage has a bar of its own
        return TransformerEmbedder(
            locate(self.name),
            pooling="mean_masked",
            max_length_tokens=self.max_length_tokens,
            normalise=True,
            precision=self.precision,
            device=self.device,
        )
