"""Sizes of networks, from which memory and the work of a step follow."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from gotd.storage.model_files import config_file

log = logging.getLogger(__name__)


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
    def is_masked(self) -> bool:
        """Return whether it predicts masked tokens; others predict every next token."""
        return self.family == "bert"

    @property
    def multiplied(self) -> int:
        """Return the number of weights that every token is multiplied with."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.feed_forward)

    @property
    def weights(self) -> int:
        """Return the number of weights with the embeddings, without biases and norms."""
        return self.multiplied + (self.vocabulary + self.positions + self.hidden) * self.hidden


MASKED_SHARE = 0.15
"""Share of the tokens that a masked model predicts."""
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
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
    ("hidden_size", "n_embd", "dim", "d_model"),
    ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
    ("intermediate_size", "n_inner", "hidden_dim", "ffn_hidden_size", "d_ff", "encoder_ffn_dim"),
    ("vocab_size",),
    ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
)
"""Names in config.json of the sizes, in the order of `Shape`: BERT's, GPT-2's, and others'."""


@cache
def named_shape(model: str, revision: str | None = None) -> Shape:
    """Return the shape of ``minilm``, a folder or a Hub model at a revision.

    It is read from the model's config.json, the only file that is fetched. Without one, or if
    it does not state the sizes, it is that of `PUBLISHED`; of another name that of BERT base,
    with a warning.
    """
    try:
        config = json.loads(config_file(model, revision).read_text("utf-8"))
        config = {**config, **config.get("text_config", {})}
        sizes = [next((config[n] for n in names if config.get(n)), 0) for names in FIELDS]
        sizes[3] = sizes[3] or 4 * sizes[1]  # what GPT-2 does not state
        if not all(sizes[:5]):
            raise ValueError("no sizes")
        family = config["model_type"]
        return Shape(*sizes, family=family if family in ("gpt2", "gpt_neo") else "bert")
    except (OSError, ValueError, KeyError):
        name = model.rpartition("/")[2]
        if name not in PUBLISHED and not name.startswith("bert-base"):
            log.warning(
                "the sizes of the model %s are not known without its config.json; its cost is "
                "counted as that of BERT base",
                model,
            )
        return PUBLISHED.get(name, BERT_BASE)
