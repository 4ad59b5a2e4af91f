"""Scores of a Detoxify model: its release, or a checkpoint in its format.

The library loads checkpoints with missing weights without an error, unpickles any content
and reads all texts in one batch. This module validates the same files and computes the same
numbers.
"""

from __future__ import annotations

import pickle
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gotd.evaluation.scorers.classifier import class_scores
from gotd.storage.artifacts import checksum
from gotd.storage.files import atomic_write
from gotd.storage.hub_models import fetch_model, kept_file
from gotd.storage.hub_requests import TIMEOUT_S, asked
from gotd.storage.model_files import published_name
from gotd.training.loading import load_any_tokenizer, load_config
from gotd.training.models import for_inference

RELEASE = (
    "https://github.com/unitaryai/detoxify/releases/download/v0.1-alpha/"
    "toxic_original-c1212f89.ckpt"
)
RELEASE_SHA256 = "c1212f89ac23307ab33932ce29dc446a6e030fb3f384a500890bbe662b7b544a"
"""Address and checksum of the release ``original``."""
RELEASE_FILE = RELEASE.rpartition("/")[2]
LABEL = "toxicity"
"""The class of a scorer, as the library names it."""
NAMES = {
    "toxic": "toxicity",
    "severe_toxic": "severe_toxicity",
    "identity_hate": "identity_attack",
}
"""The library's names for the classes of its checkpoints."""
NO_WEIGHTS = "position_ids"
"""A buffer in older checkpoints, which newer networks compute."""


@dataclass(frozen=True)
class DetoxifyScorer:
    """Toxicity as one class of a Detoxify model.

    Args:
        checkpoint: A checkpoint in Detoxify's format; ``None`` downloads the release
            ``original``.
    """

    checkpoint: str | None = None

    def identity(self) -> dict[str, Any]:
        """Return the checksum of the checkpoint, and the class."""
        if self.checkpoint is None:
            return {"detoxify": RELEASE_SHA256, "label": LABEL}
        return {"detoxify": checksum(Path(self.checkpoint)), "label": LABEL}

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Score texts.

        Raises:
            FileNotFoundError: If the checkpoint is absent, or cannot be downloaded.
            ValueError: If it is damaged, lacks weights, or has no such class.
        """
        network, tokenizer, classes = self._loaded
        return class_scores(network, tokenizer, texts, "sigmoid", classes, LABEL)

    def fetch(self) -> None:
        """Copy what scoring reads into the folder of what was fetched from the Hub.

        Raises:
            OSError: If it is absent, or cannot be downloaded.
            ValueError: If the checkpoint is damaged.
        """
        path = _fetch() if self.checkpoint is None else Path(self.checkpoint)
        kept = kept_file(RELEASE_FILE)
        if self.checkpoint is None and kept is not None and kept != path:
            with atomic_write(kept) as part:
                shutil.copyfile(path, part)
        base = _backbone(path, _contents(path, self.checkpoint is None)[0])
        if not Path(base).is_dir():
            fetch_model(base)

    @cached_property
    def _loaded(self) -> tuple[Any, Any, list[str]]:
        if self.checkpoint is None:
            return load_checkpoint(_fetch(), trusted=True)
        return load_checkpoint(Path(self.checkpoint), trusted=False)


def load_checkpoint(path: Path, trusted: bool) -> tuple[Any, Any, list[str]]:
    """Load the network of a complete checkpoint.

    Args:
        path: File in Detoxify's format. A relative ``model_type`` is resolved against the
            folder of the file.
        trusted: Whether its checksum was verified, so that content other than plain
            weights may be unpickled.

    Returns:
        The classifier in evaluation mode, its tokenizer, and the names of its classes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such checkpoint, or weights are missing or left over.
    """
    import transformers

    arch, classes, weights = _contents(path, trusted)
    kind, reader, base = arch["model_name"], arch["tokenizer_name"], _backbone(path, arch)
    if not hasattr(transformers, kind) or not hasattr(transformers, reader):
        raise ValueError(f"{path} names {kind} and {reader}, which transformers does not have")
    network_class: Any = getattr(transformers, kind)
    config = load_config(base)
    config.num_labels = len(classes)
    network = network_class(config)
    missing, left_over = network.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith(NO_WEIGHTS)]
    if missing or left_over:
        what = f"lacks {missing[0]!r}" if missing else f"has {left_over[0]!r}, which is not in it"
        raise ValueError(
            f"{path} {what}: {len(missing)} weights missing, {len(left_over)} too many for {kind}; "
            "the file is damaged or of another architecture"
        )
    tokenizer = load_any_tokenizer(base)
    return (
        for_inference(network.float()),
        tokenizer,
        [str(NAMES.get(name, name)) for name in classes],
    )


def _contents(path: Path, trusted: bool) -> tuple[dict[str, str], list[str], dict[str, Any]]:
    """Return the names of the network's parts, its classes, and its weights."""
    if not path.is_file():
        raise FileNotFoundError(f"no Detoxify checkpoint at {path}")
    checkpoint = _read(path, trusted)
    try:
        arch = checkpoint["config"]["arch"]["args"]
        classes = list(checkpoint["config"]["dataset"]["args"]["classes"])
        arch = {name: arch[name] for name in ("model_type", "model_name", "tokenizer_name")}
        weights = {k: v for k, v in checkpoint["state_dict"].items() if not k.endswith(NO_WEIGHTS)}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no Detoxify checkpoint: it needs config.arch.args, "
            f"config.dataset.args.classes and state_dict ({error!r})"
        ) from error
    return arch, classes, weights


def _backbone(path: Path, arch: Mapping[str, str]) -> str:
    """Return the folder or name of the model whose configuration and tokenizer are read."""
    local = path.parent / arch["model_type"]
    return str(local) if (local / "config.json").is_file() else published_name(arch["model_type"])


def _read(path: Path, trusted: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trusted:
            raise ValueError(
                f"{path} is damaged or holds more than weights and settings, and loading it would "
                "run its code; save it again with plain values"
            ) from error
    return torch.load(path, map_location="cpu", weights_only=False)


@contextmanager
def _time_limit() -> Iterator[None]:
    """Limit how long an answer is waited for; torch's download has no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _fetch() -> Path:
    """Find what was fetched, or download it into torch's own cache, which the library uses."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / RELEASE_FILE
    if (kept := kept_file(RELEASE_FILE)) is not None and kept.is_file():
        path = kept
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            to = RELEASE, str(path), RELEASE_SHA256
            with _time_limit():
                fetch = partial(torch.hub.download_url_to_file, *to, progress=False)
                asked(fetch, "the Detoxify release")
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"the Detoxify release is not in {path.parent} and cannot be downloaded from "
                f"{RELEASE} ({error}); copy it there or set the scorer's checkpoint"
            ) from error
    if checksum(path) != RELEASE_SHA256:
        raise ValueError(f"{path} is not the Detoxify release; delete it and run again")
    return path
