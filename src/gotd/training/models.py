"""Build, load and save the models that the two stages hand to one another.

Everything between the stages is a Hugging Face folder (config.json,
model.safetensors, tokenizer), so any stage can be replaced by anybody's tool.
Weights are read from safetensors only; a folder that lacks weights which no stage
can supply is an error, because a silently random layer looks like a bad result.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordLevel, WordPiece
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from gotd.training.data import seed_for

# Version 5 prints a table and a progress bar at every load; missing keys are checked below.
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FOLDER_FILES = ("*.json", "*.safetensors", "*.txt")
TOKENIZERS = ("word_level", "wordpiece")
MASKED_LM_HEADS = (
    ("cls",),  # BERT
    ("lm_head",),  # RoBERTa
    ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),  # DistilBERT
)
"""Where architectures keep the layers of their masked-language-modelling head."""


@dataclass(frozen=True)
class ModelSpec:
    """Say which base model all arms start from.

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
        max_length_tokens: Positions the model knows.
    """

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
        if self.tokenizer not in TOKENIZERS:
            raise ValueError(f"model tokenizer must be one of {TOKENIZERS}, not {self.tokenizer!r}")
        sizes = ("vocabulary_size", "layers", "hidden_size", "heads", "feed_forward_size")
        for name in (*sizes, "max_length_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"model {name} must be at least 1, not {getattr(self, name)}")
        if self.hidden_size % self.heads:
            raise ValueError(f"model hidden_size {self.hidden_size} is no multiple of {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model dropout must lie in [0, 1), not {self.dropout}")


def build_model(spec: ModelSpec, texts_or_vocabulary: Sequence[str], seed: int, out: Path) -> None:
    """Write the folder of a base model.

    A pretrained model is copied as it is. A model built from configuration is a
    ``BertForMaskedLM`` with its decoder tied to the word embeddings; its weights are
    a function of ``spec``, the vocabulary and ``seed``.

    Args:
        spec: What to build.
        texts_or_vocabulary: The words (``word_level``) or the texts to train the
            tokenizer on (``wordpiece``); not read for a pretrained model.
        seed: Seed of the initial weights.
        out: Folder to write, made if needed.

    Raises:
        FileNotFoundError: If the pretrained model cannot be found.
        ValueError: If words or texts are missing, or a word is not one token.
    """
    out.mkdir(parents=True, exist_ok=True)
    if spec.pretrained is not None:
        folder = resolve_folder(spec.pretrained, spec.revision)
        for pattern in FOLDER_FILES:
            for file in folder.glob(pattern):
                shutil.copyfile(file, out / file.name)
        return
    if not texts_or_vocabulary:
        raise ValueError("a model built from configuration needs words or texts; the list is empty")
    if spec.tokenizer == "word_level":
        tokenizer = _word_level_tokenizer(texts_or_vocabulary)
    else:
        tokenizer = _wordpiece_tokenizer(texts_or_vocabulary, spec.vocabulary_size)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=spec.max_length_tokens,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=spec.hidden_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=spec.feed_forward_size,
        hidden_dropout_prob=spec.dropout,
        attention_probs_dropout_prob=spec.dropout,
        max_position_embeddings=spec.max_length_tokens,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "weights"))
        network = BertForMaskedLM(config)
    save_model(network, fast, out)


def _word_level_tokenizer(words: Sequence[str]) -> Tokenizer:
    """Make one token of each word, the special tokens first."""
    vocabulary = {word: row for row, word in enumerate(dict.fromkeys((*SPECIAL_TOKENS, *words)))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for word in words:
        if word not in SPECIAL_TOKENS and tokenizer.encode(word).tokens != [word]:
            raise ValueError(
                f"the vocabulary's word {word!r} is not one token (letters, digits and "
                "underscores, or punctuation alone); split or rename it"
            )
    return _with_special_tokens(tokenizer)


def _wordpiece_tokenizer(texts: Sequence[str], vocabulary_size: int) -> Tokenizer:
    """Train a lower-cased WordPiece vocabulary on ``texts``."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    letters = sorted({c for text in texts for c in normalizer.normalize_str(text)} - set(" "))
    trainer = WordPieceTrainer(
        vocab_size=vocabulary_size,
        # The trainer numbers letters inside words in the random order of a hash map, and
        # breaks ties by number; naming them first makes the vocabulary reproducible.
        special_tokens=[*SPECIAL_TOKENS, *(f"##{letter}" for letter in letters)],
        limit_alphabet=len(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Built anew, because the letters above would count as special tokens.
    trained = Tokenizer(WordPiece(tokenizer.get_vocab(), unk_token="[UNK]"))
    trained.normalizer = normalizer
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained.decoder = decoders.WordPiece()
    return _with_special_tokens(trained)


def _with_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Wrap one text as ``[CLS] a [SEP]``, a pair as ``[CLS] a [SEP] b [SEP]``."""
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def resolve_folder(model: Path | str, revision: str | None = None) -> Path:
    """Return the local folder of a model, fetching it from the Hub if it is a name there.

    Raises:
        FileNotFoundError: If there is no such folder or name, or the folder lacks its
            configuration or safetensors weights.
    """
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(
                snapshot_download(str(model), revision=revision, allow_patterns=list(FOLDER_FILES))
            )
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"the model {str(model)!r} is neither a folder nor reachable on the Hub "
                f"({type(error).__name__}); check the name or fetch it first"
            ) from error
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json; it is not a model folder")
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{folder} has no model.safetensors; convert the weights with save_pretrained"
        )
    return folder


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder.

    Raises:
        ValueError: If it has no padding token (batches cannot be padded).
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer of {folder} has no padding token")
    return tokenizer


def load_masked_lm(folder: Path) -> tuple[PreTrainedModel, bool]:
    """Load a model with a masked-language-modelling head.

    Returns:
        The float32 network and whether its head was absent and is therefore fresh,
        drawn from the global generator (sentence encoders such as MiniLM).

    Raises:
        ValueError: If any other weight is absent, or the head is of an unknown kind.
    """
    network, info = AutoModelForMaskedLM.from_pretrained(
        folder,
        output_loading_info=True,
        use_safetensors=True,
        dtype=torch.float32,
        attn_implementation=_attention(),
    )
    prefixes = tuple(f"{name}." for name in _head_names(network))
    return network, _missing_only(folder, info, prefixes)


def load_encoder(folder: Path) -> tuple[PreTrainedModel, bool]:
    """Load the encoder without any task head.

    Returns:
        The float32 encoder and whether its pooler was absent and is therefore fresh.

    Raises:
        ValueError: If any other weight is absent.
    """
    network, info = AutoModel.from_pretrained(
        folder,
        output_loading_info=True,
        use_safetensors=True,
        dtype=torch.float32,
        attn_implementation=_attention(),
    )
    return network, _missing_only(folder, info, ("pooler.",))


def _attention() -> str:
    """Return the faster attention: on CPU, dropout sends SDPA down a slow path of its own."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def _missing_only(folder: Path, info: Mapping[str, set[str]], prefixes: tuple[str, ...]) -> bool:
    """Return whether weights under ``prefixes`` are missing; refuse any other gap."""
    missing = info["missing_keys"]
    others = sorted(key for key in missing if not key.startswith(prefixes))
    if others or info["mismatched_keys"]:
        lacking = others or sorted(map(str, info["mismatched_keys"]))
        raise ValueError(
            f"{folder} lacks {len(lacking)} weights of its architecture, for instance "
            f"{lacking[0]!r}; the file is damaged or belongs to another configuration"
        )
    return bool(missing)


def check_length(network: PreTrainedModel, max_length_tokens: int) -> None:
    """Refuse rows longer than the positions that ``network`` knows.

    Raises:
        ValueError: If there are fewer positions than ``max_length_tokens``.
    """
    positions = network.config.max_position_embeddings
    if network.config.model_type == "roberta":
        positions -= network.config.pad_token_id + 1  # it counts from after its padding's index
    if max_length_tokens > positions:
        raise ValueError(
            f"max_length_tokens is {max_length_tokens}, but {type(network).__name__} knows only "
            f"{positions} positions; lower it"
        )


def masked_lm_head(network: PreTrainedModel) -> nn.Sequential:
    """Return the layers that map ``[n, hidden]`` states to ``[n, vocabulary]`` logits.

    Raises:
        ValueError: If the architecture keeps its head elsewhere than the known ones.
    """
    names = _head_names(network)
    return nn.Sequential(*(network.get_submodule(name) for name in names))


def _head_names(network: PreTrainedModel) -> tuple[str, ...]:
    """Return the names of the head's layers, in the order in which they apply."""
    for names in MASKED_LM_HEADS:
        if all(hasattr(network, name) for name in names):
            return names
    raise ValueError(
        f"{type(network).__name__} keeps its masked-language-modelling head in no known place; "
        "use a BERT, RoBERTa or DistilBERT model"
    )


def read_pooler(folder: Path) -> dict[str, Tensor]:
    """Read the pooler's weights, ``{}`` where the folder has none.

    A network for masked language modelling has no pooler, so saving it alone loses
    the one that ``folder`` came with.
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
    """Write a Hugging Face folder, with ``pooler`` beside the weights of ``network``.

    The file then holds both heads, as BERT's own release does: ``AutoModel`` finds
    the pooler, ``AutoModelForMaskedLM`` the language-modelling head.
    """
    state = dict(network.state_dict())
    for key, tensor in (pooler or {}).items():
        state[f"{network.base_model_prefix}.{key}"] = tensor
    network.save_pretrained(out, state_dict=state)
    tokenizer.save_pretrained(out)
