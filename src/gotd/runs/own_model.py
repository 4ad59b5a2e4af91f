"""The model of a comparison: a folder, a model of the Hub, or a small one that is built here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from gotd.storage.model_files import config_file
from gotd.storage.shapes import named_shape

Kind = Literal["masked", "causal", "encoder", "built"]
"""``encoder`` has no language-modelling head, so one is trained first."""

GROUPS: Mapping[Kind, Mapping[str, str]] = {
    "built": {},
    "masked": {"model": "bert_base", "pre_fine_tune": "bert_domain", "fine_tune": "bert_domain"},
    "encoder": {"model": "minilm", "pre_fine_tune": "minilm", "fine_tune": "minilm"},
    "causal": {"model": "gpt2", "pre_fine_tune": "gpt2"},
}
"""Options of conf/ by the kind of model: its objective, and settings for its size."""
LONGEST_TOKENS = 256
SPARE_POSITIONS = 2
"""Positions that RoBERTa keeps for itself."""


@dataclass(frozen=True)
class OwnModel:
    """A model, and how it is trained.

    Args:
        kind: What it can do.
        name: Folder or Hub name; ``None`` for one that is built.
    """

    kind: Kind
    name: str | None = None

    @classmethod
    def find(cls, name: str | None) -> OwnModel:
        """Find a model by its config.json; of a Hub name only this file is fetched.

        Raises:
            FileNotFoundError: If there is no such model.
            ValueError: If it is none that can be trained here.
        """
        if name is None:
            return cls("built")
        config = json.loads(config_file(name).read_text("utf-8"))
        architectures = config.get("architectures") or []
        if any(each.endswith("ForMaskedLM") for each in architectures):
            return cls("masked", name)
        if any(each.endswith(("ForCausalLM", "LMHeadModel")) for each in architectures):
            return cls("causal", name)
        if config.get("model_type") in ("bert", "roberta", "distilbert"):
            return cls("encoder", name)
        raise ValueError(
            f"--model {name} is a {', '.join(architectures) or config.get('model_type')}; give a "
            "BERT, RoBERTa, DistilBERT or a causal language model"
        )

    @property
    def needs_text(self) -> bool:
        """Return whether it, or its head, is trained on a part of the candidates first."""
        return self.kind in ("built", "encoder")

    @property
    def described(self) -> str:
        """Return one sentence for the user."""
        if self.kind == "built":
            return (
                "no --model: the base is a small BERT (2 layers, width 128) that is built and "
                "pre-trained here on a part of the candidates; its scores are far below those of "
                "published models"
            )
        if self.kind == "encoder":
            return f"{self.name} has no language-modelling head; one is trained first"
        return f"{self.name}: a {self.kind} language model"

    def check_classifies(self) -> None:
        """Raise if it cannot be fine-tuned on labels."""
        if self.kind == "causal":
            raise ValueError(
                f"--model {self.name} is a causal language model, and labels are learnt by "
                "encoders alone; give a BERT, RoBERTa or DistilBERT, or --outcome loss"
            )

    def groups(self, outcome: str) -> dict[str, str]:
        """Return the options of conf/ for this model."""
        groups = dict(GROUPS[self.kind])
        return (
            groups if outcome == "labels" else {k: v for k, v in groups.items() if k != "fine_tune"}
        )

    def configure(self, config: DictConfig) -> None:
        """Set the model of a composed configuration, and cut texts where its positions end."""
        if self.name is None:
            return
        config.model.name = Path(self.name).name
        config.model.spec.pretrained = self.name
        config.model.spec.revision = None
        config.model.mnli_start = config.model.mnli_start_revision = None
        positions = named_shape(self.name).positions - SPARE_POSITIONS
        most = min(LONGEST_TOKENS, positions) if positions > 0 else LONGEST_TOKENS
        stages: list[Any] = [config.pre_fine_tune, config.fine_tune, config.model.pretraining]
        for stage in stages:
            if stage is not None:
                stage.max_length_tokens = min(stage.max_length_tokens, most)
