"""Scores of a sequence classifier, from a folder or the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from gotd.evaluation.batches import by_length
from gotd.storage.checks import check_choice
from gotd.storage.model_files import model_identity
from gotd.storage.printing import listed
from gotd.training.loading import load_any_tokenizer, load_network
from gotd.training.models import for_inference

BATCH_TOKENS = 8192
"""Positions read at once; bounds the memory of activations."""
MOST_TOKENS = 512
"""Length to which texts are cut if the tokenizer has no limit of its own."""


@dataclass(frozen=True)
class ClassifierScorer:
    """Toxicity as one class of a Hugging Face classifier.

    Args:
        model: Folder, or Hub name (``unitary/toxic-bert``).
        label: Name of the class in ``id2label`` of its configuration.
        activation: ``sigmoid`` for independent classes, ``softmax`` for classes that exclude
            one another.
        revision: The Hub commit.
    """

    model: str
    label: str = "toxic"
    activation: str = "softmax"
    revision: str | None = None

    def __post_init__(self) -> None:
        check_choice(self, "activation", ("sigmoid", "softmax"), "scorer ")

    def identity(self) -> dict[str, Any]:
        """Return checksums of the folder's files, or name and revision on the Hub."""
        how = {"label": self.label, "activation": self.activation}
        return {"classifier": model_identity(self.model, self.revision), **how}

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Score texts.

        Raises:
            OSError: If there is no such model.
            ValueError: If it has no such class, or lacks weights.
        """
        network, tokenizer = self._loaded
        classes = [str(name) for _, name in sorted(network.config.id2label.items())]
        return class_scores(network, tokenizer, texts, self.activation, classes, self.label)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSequenceClassification

        network, _ = load_network(
            AutoModelForSequenceClassification,
            self.model,
            revision=self.revision,
            attn_implementation=None,  # the library's own choice
        )
        return for_inference(network), load_any_tokenizer(self.model, self.revision)


def class_scores(
    network: Any,
    tokenizer: Any,
    texts: Sequence[str],
    activation: str,
    classes: Sequence[str],
    label: str,
) -> np.ndarray:
    """Compute the scores of one class, in batches of similar length.

    Args:
        network: A sequence classifier in evaluation mode.
        tokenizer: Its tokenizer.
        texts: The texts; longer ones than the model reads are cut.
        activation: ``sigmoid`` or ``softmax``.
        classes: Names of the network's classes.
        label: Name of the class.

    Returns:
        float64 ``[texts]``.

    Raises:
        ValueError: If there is no such class.
    """
    if label not in classes:
        raise ValueError(f"the scorer has no class {label!r}; it has {listed(classes, label)}")
    if len(texts) == 0:
        return np.zeros(0)
    positions = int(getattr(network.config, "max_position_embeddings", MOST_TOKENS))
    most = min(tokenizer.model_max_length, positions, MOST_TOKENS)
    encoded = tokenizer(list(texts), truncation=True, max_length=most, return_attention_mask=False)
    lengths = [len(row) for row in encoded["input_ids"]]
    scores = np.zeros(len(texts))
    with torch.inference_mode():
        for batch in by_length(lengths, BATCH_TOKENS, network.device.type):
            rows = {name: [values[i] for i in batch] for name, values in encoded.items()}
            padded = tokenizer.pad(rows, return_tensors="pt").to(network.device)
            logits = network(**padded).logits.double()
            shares = logits.sigmoid() if activation == "sigmoid" else logits.softmax(dim=-1)
            scores[batch] = shares[:, classes.index(label)].cpu().numpy()
    return scores
