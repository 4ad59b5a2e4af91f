"""Classifiers and regressors on an encoder, and how they are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from gotd.training.data import Batch, Part, TokenRows, pad_rows
from gotd.training.models import load_encoder
from gotd.training.optimisation import autocast

HEADS = ("pooler", "mean", "siamese")
CLASSIFIER_FILE = "classifier.json"


class TextClassifier(nn.Module):
    """An encoder, features of its hidden states, and a linear map to logits or a score.

    Args:
        encoder: The encoder; its pooler is dropped unless the head uses it.
        head: ``pooler``, ``mean`` or ``siamese``, the last for pairs only.
        outputs: Classes, or 1 for a score.
        dropout: Dropout before the linear map.
    """

    def __init__(self, encoder: PreTrainedModel, head: str, outputs: int, dropout: float) -> None:
        super().__init__()
        self.config = encoder.config
        self.encoder: Any = encoder
        self.head = head
        self.dropout = nn.Dropout(dropout)
        width = encoder.config.hidden_size * (4 if head == "siamese" else 1)
        self.classifier = nn.Linear(width, outputs)
        self.pre_classifier = None
        if head != "pooler":
            self.encoder.pooler = None
        elif encoder.config.model_type == "distilbert":
            # Its classifiers have a layer of their own where BERT's have the pooler.
            self.pre_classifier = nn.Linear(encoder.config.dim, encoder.config.dim)
        elif getattr(encoder, "pooler", None) is None:
            raise ValueError(
                f"{type(encoder).__name__} has no pooler; choose the head mean or siamese"
            )

    def draw_fresh(self, seed: int, with_pooler: bool) -> None:
        """Draw the classifier, and the pooler if it is fresh, as BERT initialises weights."""
        random = torch.Generator().manual_seed(seed)
        pooler = getattr(self.encoder, "pooler", None) if with_pooler else None
        dense = pooler.dense if pooler is not None else self.pre_classifier
        for layer in (self.classifier, dense):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02, generator=random)
                nn.init.zeros_(layer.bias)

    def forward(self, part: Part) -> Tensor:
        """Return ``[b, outputs]`` float32 logits or scores."""
        inputs = {k: v for k, v in part.items() if k not in ("content", "second", "labels")}
        output = self.encoder(**inputs)
        if self.pre_classifier is not None:
            features = self.pre_classifier(output.last_hidden_state[:, 0]).relu()
        elif self.head == "pooler":
            features = output.pooler_output
        elif self.head == "mean":
            features = mean_over(output.last_hidden_state, part["content"])
        else:
            u = mean_over(output.last_hidden_state, part["content"] & ~part["second"])
            v = mean_over(output.last_hidden_state, part["content"] & part["second"])
            features = torch.cat([u, v, (u - v).abs(), u * v], dim=-1)
        return self.classifier(self.dropout(features)).float()


def mean_over(hidden: Tensor, where: Tensor) -> Tensor:
    """Return the mean of ``[b, t, d]`` states where ``[b, t]`` is true, 0 for no state."""
    weights = where.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def pad_with_content(rows: TokenRows, which: np.ndarray) -> Part:
    """Pad rows and mark their ``content`` and the tokens of the ``second`` text.

    Both ``[b, t]`` bool. ``content`` is false at special tokens; ``second`` is absent for
    single texts.
    """
    part = pad_rows(rows, which)
    inside = part["attention_mask"].bool()
    positions = rows.positions(which)
    content = torch.zeros_like(inside)
    content[inside] = torch.from_numpy(~rows.special[positions])
    marked = {**part, "content": content}
    if rows.second is not None:
        marked["second"] = torch.zeros_like(inside)
        marked["second"][inside] = torch.from_numpy(rows.second[positions])
    return marked


def apply_to_rows(
    network: TextClassifier, rows: TokenRows, precision: str, batch_size: int = 64
) -> np.ndarray:
    """Return ``[n, outputs]`` float32 outputs in row order, computed in order of length."""
    device = next(network.parameters()).device
    order = np.argsort(rows.lengths, kind="stable")
    outputs = np.empty((len(rows), network.classifier.out_features), dtype=np.float32)
    network.eval()
    with torch.no_grad(), autocast(device, precision):
        for start in range(0, len(order), batch_size):
            which = order[start : start + batch_size]
            batch = Batch([pad_with_content(rows, which)], terms=len(which)).to(device)
            outputs[which] = network(batch.parts[0]).float().cpu().numpy()
    return outputs


def decide(outputs: np.ndarray, regression: bool) -> np.ndarray:
    """Return the predictions of outputs: ``[n]`` int64 classes or float64 scores."""
    return outputs[:, 0].astype(np.float64) if regression else outputs.argmax(axis=1)


def save_classifier(
    network: TextClassifier, regression: bool, max_length_tokens: int, precision: str, out: Path
) -> None:
    """Write encoder and head as one safetensors file, and a JSON file that describes the head."""
    encoder = network.encoder
    state = encoder.state_dict(prefix=f"{encoder.base_model_prefix}.")
    for name in ("classifier", "pre_classifier"):
        if getattr(network, name) is not None:
            state |= getattr(network, name).state_dict(prefix=f"{name}.")
    contiguous = {key: value.contiguous() for key, value in state.items()}
    save_file(contiguous, out / "model.safetensors", metadata={"format": "pt"})
    config = encoder.config
    config.num_labels = network.classifier.out_features
    config.save_pretrained(out)
    usage = {
        "head": network.head,
        "regression": regression,
        "outputs": network.classifier.out_features,
        "max_length_tokens": max_length_tokens,
        "precision": precision,
    }
    (out / CLASSIFIER_FILE).write_text(json.dumps(usage, indent=2) + "\n")


def load_classifier(folder: Path) -> tuple[TextClassifier, dict[str, Any]]:
    """Load what :func:`fine_tune` wrote, and its description.

    Raises:
        FileNotFoundError: If the folder holds no classifier.
    """
    file = folder / CLASSIFIER_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; {folder} was not written by fine_tune")
    usage = json.loads(file.read_text())
    encoder, _ = load_encoder(folder)
    network = TextClassifier(encoder, usage["head"], usage["outputs"], dropout=0.0)
    with safe_open(folder / "model.safetensors", framework="pt") as stored:
        for name in ("classifier", "pre_classifier"):
            layer = getattr(network, name)
            if layer is not None:
                parts = ("weight", "bias")
                layer.load_state_dict({part: stored.get_tensor(f"{name}.{part}") for part in parts})
    return network, usage
