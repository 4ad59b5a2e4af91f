"""The encoders of ``gotd select``: ``hashed``, ``minilm``, or any model by name or folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gotd.embedding.embedders import Embedder, HashedEmbedder, Precision, TransformerEmbedder
from gotd.storage.keys import identity
from gotd.storage.model_files import locate, model_identity

KNOWN = ("hashed", "minilm")


@dataclass(frozen=True)
class Encoder:
    """How texts become rows of a matrix; both sides alike.

    Args:
        name: ``hashed`` (word n-grams, no model), ``minilm``, or the name or folder of a
            Hugging Face encoder, whose states are averaged and scaled to unit length.
        max_length_tokens: Tokens of a text that a model reads at most.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ValueError: If there is no such device here, or the name is nearly one of `KNOWN`.
    """

    name: str = "hashed"
    max_length_tokens: int = 128
    device: str = "auto"

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.device.startswith("cuda"):
            _check_gpu(self.device)
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

        model = locate(self.name)
        if not Path(model).is_dir():
            self._ask_hub()
        try:
            return int(AutoConfig.from_pretrained(model).hidden_size)
        except (OSError, ValueError, AttributeError) as error:
            raise self._absent(error) from error

    def _ask_hub(self) -> None:
        """Ask once whether the Hub, or its cache, has the model; loading it would ask for long."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

        try:
            if not isinstance(try_to_load_from_cache(self.name, "config.json"), str):
                get_hf_file_metadata(hf_hub_url(self.name, "config.json"))
        except Exception as error:  # what can go wrong on the way there has many names
            raise self._absent(error) from error

    def _absent(self, error: Exception) -> FileNotFoundError:
        reason = " ".join(str(error).split())[:160]
        return FileNotFoundError(
            f"no encoder {self.name!r}: it is neither {' nor '.join(KNOWN)}, nor a folder "
            f"with a model, nor to be had from the Hub ({reason})"
        )

    def make(self) -> Embedder:
        """Load it."""
        if self.name == "hashed":
            return HashedEmbedder()
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # it loads in a moment; the step has a bar of its own
        return TransformerEmbedder(
            locate(self.name),
            pooling="mean_masked",
            max_length_tokens=self.max_length_tokens,
            normalise=True,
            precision=self.precision,
            device=self.device,
        )


def check_device(device: str) -> None:
    """Refuse what is no device.

    Raises:
        ValueError: If it is neither ``auto`` nor ``cpu`` nor ``cuda``, with a number or without.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"the device must be auto, cpu, cuda or cuda:N, not {device!r}")


def _check_gpu(device: str) -> None:
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= gpus:
        raise ValueError(
            f"there is no device {device}: torch {torch.__version__} sees {gpus} GPUs here; "
            "leave the device at auto, or install a torch with CUDA and its driver"
        )
