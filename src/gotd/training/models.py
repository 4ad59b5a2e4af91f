"""Build, load and save models.

Between the two stages a model is a Hugging Face folder (config.json, model.safetensors,
tokenizer), so other tools can read and write it. Weights are read from safetensors only.
Weights that no stage supplies are an error: a random layer would look like a bad result.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from gotd.storage.checks import check_at_least, check_choice, check_share
from gotd.storage.hub_models import model_folder
from gotd.storage.model_files import not_fetched
from gotd.storage.seeds import derive_seed
from gotd.storage.shapes import WORLD_VOCABULARY, Shape, named_shape
from gotd.training.loading import check_folder, device_of, load_any_tokenizer, load_network
from gotd.training.tokenizers import masked_tokenizer, word_level, wordpiece

# Version 5 prints a table and a progress bar at every load; missing keys are checked below.
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

FOLDER_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
NOT_THE_MODELS = ("manifest.json", "report.json")
"""Other files in the model folders that steps write."""
MASKED_LM_HEADS = (
    ("cls",),  # BERT
    ("lm_head",),  # RoBERTa
    ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),  # DistilBERT
)
"""Names of the layers of the masked-language-modelling head, by architecture."""


@dataclass(frozen=True)
class ModelSpec:
    """Specification of the base model that all arms start from.

    Either ``pretrained`` names one, or a BERT is built from the other fields.

    Args:
        pretrained: A Hub name (``bert-base-uncased``) or a folder; ``None`` builds one.
        revision: The Hub commit, so that the name means the same bytes next year.
        tokenizer: ``word_level`` (one token per word of a given vocabulary) or
            ``wordpiece`` (lower-cased, trained on given texts).
        vocabulary_size: Most tokens of a WordPiece vocabulary.
        layers: Transformer layers.
        hidden_size: Width of the hidden states.
        heads: Attention heads; divides ``hidden_size``.
        feed_forward_size: Width inside the feed-forward layers.
        dropout: Dropout of hidden states and attention.
        max_length_tokens: Positions of the model.
    """

    key_name: ClassVar[str] = "ModelSpec"

    choices: ClassVar[dict[str, tuple[str, ...]]] = {"tokenizer": ("word_level", "wordpiece")}
    sizes: ClassVar[tuple[str, ...]] = (
        *("vocabulary_size", "layers", "hidden_size", "heads", "feed_forward_size"),
        "max_length_tokens",
    )

    pretrained: str | None = None
    revision: str | None = None
    tokenizer: str = "word_level"
    vocabulary_size: int = 8192
    layers: int = 1
    hidden_size: int = 128
    heads: int = 4
    feed_forward_size: int = 512
    dropout: float = 0.1
    max_length_tokens: int = 128

    def __post_init__(self) -> None:
        for name, choices in self.choices.items():
            check_choice(self, name, choices, "model ")
        check_at_least(self, 1, *self.sizes, prefix="model ")
        if self.hidden_size % self.heads:
            raise ValueError(f"model hidden_size {self.hidden_size} is no multiple of {self.heads}")
        check_share(self, "dropout", "model ")

    def shape(self) -> Shape:
        """Return the sizes of the network."""
        words = WORLD_VOCABULARY if self.tokenizer == "word_level" else self.vocabulary_size
        sizes = self.layers, self.hidden_size, self.heads, self.feed_forward_size
        built = Shape(*sizes, words, self.max_length_tokens)
        return built if self.pretrained is None else named_shape(self.pretrained, self.revision)

    def build_tokenizer(self, texts_or_vocabulary: Sequence[str]) -> PreTrainedTokenizerBase:
        """Build the tokenizer from a vocabulary, or train it on texts."""
        if self.tokenizer == "word_level":
            tokenizer = word_level(texts_or_vocabulary)
        else:
            tokenizer = wordpiece(texts_or_vocabulary, self.vocabulary_size)
        return masked_tokenizer(tokenizer, self.max_length_tokens)

    def build_network(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """Build the network, with weights from the global generator."""
        return BertForMaskedLM(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=self.hidden_size,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                intermediate_size=self.feed_forward_size,
                hidden_dropout_prob=self.dropout,
                attention_probs_dropout_prob=self.dropout,
                max_position_embeddings=self.max_length_tokens,
            )
        )


def build_model(spec: ModelSpec, texts_or_vocabulary: Sequence[str], seed: int, out: Path) -> None:
    """Write the folder of a base model.

    A pretrained model is copied as it is. The weights of one that is built are a function of
    ``spec``, the vocabulary and ``seed``; its head is tied to the word embeddings.

    Args:
        spec: What to build: a masked model, or with `CausalSpec` a causal one.
        texts_or_vocabulary: The words (``word_level``) or the texts to train the
            tokenizer on; not read for a pretrained model.
        seed: Seed of the initial weights.
        out: Folder to write, made if needed.

    Raises:
        FileNotFoundError: If the pretrained model cannot be found.
        ValueError: If words or texts are missing, or a word is not one token.
    """
    out.mkdir(parents=True, exist_ok=True)
    if spec.pretrained is not None:
        copy_model(spec.pretrained, spec.revision, out)
        return
    if not texts_or_vocabulary:
        raise ValueError("a model built from configuration needs words or texts; the list is empty")
    tokenizer = spec.build_tokenizer(texts_or_vocabulary)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "weights"))
        network = spec.build_network(tokenizer)
    save_model(network, tokenizer, out)


def resolve_folder(model: Path | str, revision: str | None = None) -> Path:
    """Return the local folder of a model, after a download if it is a Hub name.

    Raises:
        FileNotFoundError: If there is no such folder or name, or the folder lacks its
            configuration or safetensors weights.
    """
    folder = Path(model)
    if not folder.is_dir():
        try:
            folder = model_folder(str(model), revision)
        except (OSError, ValueError) as error:
            raise not_fetched(str(model), error) from error
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json; it is not a model folder")
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{folder} has no model.safetensors; convert the weights with save_pretrained"
        )
    return folder


def copy_model(model: Path | str, revision: str | None, out: Path) -> None:
    """Copy a model's configuration, safetensors weights and tokenizer into ``out``.

    Raises:
        FileNotFoundError: As :func:`resolve_folder`.
        ValueError: If it is an adapter, or its configuration is damaged.
    """
    folder = resolve_folder(model, revision)
    check_folder(folder)
    for pattern in FOLDER_FILES:
        for file in folder.glob(pattern):
            if file.name not in NOT_THE_MODELS:
                shutil.copyfile(file, out / file.name)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder.

    Raises:
        ValueError: If it has no padding token (batches cannot be padded).
    """
    tokenizer = load_any_tokenizer(folder)
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer of {folder} has no padding token")
    return tokenizer


def load_masked_lm(folder: Path) -> tuple[PreTrainedModel, bool]:
    """Load a model with a masked-language-modelling head.

    Returns:
        The float32 network and whether its head was absent and is therefore fresh,
        from the global generator (sentence encoders such as MiniLM).

    Raises:
        ValueError: If any other weight is absent, or the head is of an unknown kind.
    """
    heads = tuple(f"{name}." for names in MASKED_LM_HEADS for name in names)
    network, fresh_head = load_network(AutoModelForMaskedLM, folder, heads)
    masked_lm_head(network)  # raises for an unknown kind
    return network, fresh_head


def load_encoder(folder: Path) -> tuple[PreTrainedModel, bool]:
    """Load the encoder without any task head.

    Returns:
        The float32 encoder and whether its pooler was absent and is therefore fresh.

    Raises:
        ValueError: If any other weight is absent.
    """
    return load_network(AutoModel, folder, ("pooler.",))


def for_inference(network: Any) -> Any:
    """Move a network to the fastest device, in evaluation mode and without gradients."""
    return network.eval().requires_grad_(False).to(device_of("auto"))


def check_length(network: PreTrainedModel, max_length_tokens: int) -> None:
    """Validate the length of rows against the positions of ``network``.

    Raises:
        ValueError: If there are fewer positions than ``max_length_tokens``.
    """
    positions = network.config.max_position_embeddings
    if network.config.model_type == "roberta":
        positions -= network.config.pad_token_id + 1  # positions start after the padding's index
    if max_length_tokens > positions:
        raise ValueError(
            f"max_length_tokens is {max_length_tokens}, but {type(network).__name__} knows only "
            f"{positions} positions; lower it"
        )


def recompute_activations(network: PreTrainedModel) -> None:
    """Compute activations again in the backward pass instead of keeping them."""
    # Newer versions of transformers have another name for it.
    enable = getattr(network, "activation_checkpointing_enable", None)
    (enable or network.gradient_checkpointing_enable)({"use_reentrant": False})


def masked_lm_head(network: PreTrainedModel) -> nn.Sequential:
    """Return the layers that map ``[n, hidden]`` states to ``[n, vocabulary]`` logits.

    Raises:
        ValueError: If the layers of the head are not known for the architecture.
    """
    for names in MASKED_LM_HEADS:
        if all(hasattr(network, name) for name in names):
            return nn.Sequential(*(network.get_submodule(name) for name in names))
    raise ValueError(
        f"the masked-language-modelling head of {type(network).__name__} is not known; "
        "use a BERT, RoBERTa or DistilBERT model"
    )


def read_pooler(folder: Path) -> dict[str, Tensor]:
    """Read the pooler's weights, ``{}`` where the folder has none.

    A network for masked language modelling has no pooler, so saving the network alone would
    lose the pooler of ``folder``.
    """
    weights: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118 -- safe_open is no mapping
                if ".pooler." in f".{key}":
                    weights[key[key.index("pooler.") :]] = stored.get_tensor(key).float()
    return weights


def save_model(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    pooler: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a Hugging Face folder, with ``pooler`` in the file of the weights of ``network``.

    The file then contains both heads, as BERT's own release does: ``AutoModel`` loads
    the pooler, ``AutoModelForMaskedLM`` the language-modelling head.
    """
    state = dict(network.state_dict())
    for key, tensor in (pooler or {}).items():
        state[f"{network.base_model_prefix}.{key}"] = tensor
    network.save_pretrained(out, state_dict=state)
    tokenizer.save_pretrained(out)
