"""Score texts with a Detoxify model: its release, or a checkpoint in its format.

The library itself loads a checkpoint that lacks weights without a word, unpickles
whatever a file holds and reads all texts in one batch; this reads the same files,
checked, and gives the same numbers.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gotd.evaluation.scorers.classifier import class_scores, to_device, weights_identity

RELEASES = {
    "original": (
        "https://github.com/unitaryai/detoxify/releases/download/v0.1-alpha/"
        "toxic_original-c1212f89.ckpt",
        "c1212f89ac23307ab33932ce29dc446a6e030fb3f384a500890bbe662b7b544a",
    ),
}
"""Address and SHA-256 of each release that is known here."""
NAMES = {
    "toxic": "toxicity",
    "severe_toxic": "severe_toxicity",
    "identity_hate": "identity_attack",
}
"""What the library calls the classes of its checkpoints."""
NO_WEIGHTS = "position_ids"
"""A buffer that older checkpoints carry and newer networks make themselves."""


@dataclass(frozen=True)
class DetoxifyScorer:
    """Take one class of a Detoxify model as toxicity.

    Args:
        checkpoint: A checkpoint in Detoxify's format; ``None`` fetches ``release``.
        release: Name of a release in ``RELEASES``.
        label: The class, as the library names it.

    Raises:
        ValueError: If the release is unknown.
    """

    checkpoint: str | None = None
    release: str = "original"
    label: str = "toxicity"

    def __post_init__(self) -> None:
        if self.checkpoint is None and self.release not in RELEASES:
            known = ", ".join(RELEASES)
            raise ValueError(f"scorer release must be one of {known}, not {self.release!r}")

    def identity(self) -> dict[str, Any]:
        """Give the checkpoint's checksum and the class."""
        if self.checkpoint is None:
            return {"detoxify": RELEASES[self.release][1], "label": self.label}
        return {"detoxify": weights_identity(self.checkpoint), "label": self.label}

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Score texts.

        Raises:
            FileNotFoundError: If the checkpoint is not there, or cannot be fetched.
            ValueError: If it is damaged, lacks weights, or has no such class.
        """
        network, tokenizer, classes = self._loaded
        if self.label not in classes:
            raise ValueError(f"the scorer has no class {self.label!r}; it has {', '.join(classes)}")
        return class_scores(network, tokenizer, texts, "sigmoid")[:, classes.index(self.label)]

    @cached_property
    def _loaded(self) -> tuple[Any, Any, list[str]]:
        if self.checkpoint is None:
            return load_checkpoint(_fetch(self.release), trusted=True)
        return load_checkpoint(Path(self.checkpoint), trusted=False)


def load_checkpoint(path: Path, trusted: bool) -> tuple[Any, Any, list[str]]:
    """Build the network of a checkpoint, complete or not at all.

    Args:
        path: File in Detoxify's format. A relative ``model_type`` in it is looked for
            beside the file.
        trusted: Whether its checksum was compared, so that it may be unpickled where
            plain weights are not all it holds.

    Returns:
        The classifier in evaluation mode, its tokenizer, and the names of its classes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such checkpoint, or weights are missing or left over.
    """
    import transformers

    if not path.is_file():
        raise FileNotFoundError(f"no Detoxify checkpoint at {path}")
    found = _read(path, trusted)
    try:
        how = found["config"]["arch"]["args"]
        classes = list(found["config"]["dataset"]["args"]["classes"])
        backbone, kind, reader = (how[k] for k in ("model_type", "model_name", "tokenizer_name"))
        weights = {k: v for k, v in found["state_dict"].items() if not k.endswith(NO_WEIGHTS)}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no Detoxify checkpoint: it needs config.arch.args, "
            f"config.dataset.args.classes and state_dict ({error!r})"
        ) from error
    if not hasattr(transformers, kind) or not hasattr(transformers, reader):
        raise ValueError(f"{path} names {kind} and {reader}, which transformers does not have")
    beside = path.parent / backbone
    place = str(beside if (beside / "config.json").is_file() else backbone)
    network_class: Any = getattr(transformers, kind)
    config = network_class.config_class.from_pretrained(place, num_labels=len(classes))
    network = network_class(config)
    missing, left_over = network.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith(NO_WEIGHTS)]
    if missing or left_over:
        what = f"lacks {missing[0]!r}" if missing else f"has {left_over[0]!r}, which is not in it"
        raise ValueError(
            f"{path} {what}: {len(missing)} weights missing, {len(left_over)} too many for {kind}; "
            "the file is damaged or of another architecture"
        )
    tokenizer = getattr(transformers, reader).from_pretrained(place)
    return to_device(network.float()), tokenizer, [str(NAMES.get(name, name)) for name in classes]


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


def _fetch(release: str) -> Path:
    """Fetch a release into torch's own cache, where the library keeps it, too."""
    address, checksum = RELEASES[release]
    path = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, str(path), checksum, progress=False)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"the Detoxify release {release!r} is not in {path.parent} and cannot be fetched "
                f"from {address} ({error}); copy it there or set the scorer's checkpoint"
            ) from error
    if weights_identity(str(path))["file"] != checksum:
        raise ValueError(f"{path} is not the release {release!r}; delete it and fetch it again")
    return path
