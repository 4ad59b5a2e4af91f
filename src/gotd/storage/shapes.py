"""Sizes of networks, from which memory and the work of a step follow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gotd.storage.model_files import locate


@dataclass(frozen=True)
class Shape:
    """The sizes of a transformer.

    Args:
        layers: Transformer layers.
        hidden: Width of the hidden states.
        heads: Attention heads.
        feed_forward: Width inside the feed-forward layers.
        vocabulary: Rows of the word embeddings.
        positions: Rows of the position embeddings.
        family: ``bert``, ``gpt2`` or ``gpt_neo``: what a layer keeps for its backward pass.
    """

    layers: int
    hidden: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int = 512
    family: str = "bert"

    @property
    def label(self) -> str:
        """Return layers and width; networks of one label run at the same rate."""
        return f"{self.layers}x{self.hidden}"

    @property
    def multiplied(self) -> int:
        """Return the number of weights that every token is multiplied with."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.feed_forward)

    @property
    def weights(self) -> int:
        """Return the number of weights with the embeddings, without biases and norms."""
        return self.multiplied + (self.vocabulary + self.positions + self.hidden) * self.hidden


WORLD_VOCABULARY = 600
"""Words of a generated world, about; they are counted when the world is written."""
BERT_BASE = Shape(12, 768, 12, 3072, 30_522)
PUBLISHED: Mapping[str, Shape] = {
    "roberta-base": Shape(12, 768, 12, 3072, 50_265),
    "distilbert-base-uncased": Shape(6, 768, 12, 3072, 30_522),
    "minilm": Shape(6, 384, 12, 1536, 30_522),
    "gpt2": Shape(12, 768, 12, 3072, 50_257, 1024, "gpt2"),
    "gpt2-medium": Shape(24, 1024, 16, 4096, 50_257, 1024, "gpt2"),
    "gpt2-large": Shape(36, 1280, 20, 5120, 50_257, 1024, "gpt2"),
    "gpt2-xl": Shape(48, 1600, 25, 6400, 50_257, 1024, "gpt2"),
    "gpt-neo-125m": Shape(12, 768, 12, 3072, 50_257, 2048, "gpt_neo"),
    "gpt-neo-1.3B": Shape(24, 2048, 16, 8192, 50_257, 2048, "gpt_neo"),
    "gpt-neo-2.7B": Shape(32, 2560, 20, 10240, 50_257, 2048, "gpt_neo"),
}
"""Shapes by the last part of a model's name; any other name counts as BERT base."""

FIELDS = (
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    ("hidden_size", "n_embd", "dim"),
    ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    ("intermediate_size", "n_inner", "hidden_dim"),
    ("vocab_size",),
    ("max_position_embeddings", "n_positions"),
)
"""Names in config.json of the sizes, in the order of `Shape`: BERT's, GPT-2's, and others'."""


@cache
def named_shape(model: str) -> Shape:
    """Return the shape of ``minilm``, a folder or a Hub model; nothing is downloaded.

    It is read from the model's config.json where that is on this machine, else from `PUBLISHED`.
    """
    from huggingface_hub import try_to_load_from_cache

    try:
        folder = Path(locate(model))
        cached = None if folder.is_dir() else try_to_load_from_cache(model, "config.json")
        path = cached if isinstance(cached, str) else folder / "config.json"
        config = json.loads(Path(path).read_text("utf-8"))
        sizes = [next((config[n] for n in names if config.get(n)), 0) for names in FIELDS]
        sizes[3] = sizes[3] or 4 * sizes[1]  # what GPT-2 does not state
        family = config["model_type"]
        return Shape(*sizes, family=family if family in ("gpt2", "gpt_neo") else "bert")
    except (OSError, ValueError, KeyError):  # no such file, or no such model
        return PUBLISHED.get(model.rpartition("/")[2], BERT_BASE)
