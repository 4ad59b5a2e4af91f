"""Tokenizers of models that are built here, the same bytes every time."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel, WordPiece
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer, WordPieceTrainer
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
END_OF_TEXT = "<|endoftext|>"
"""Ends a text for a causal model, as GPT-2's own token does."""


def masked_tokenizer(tokenizer: Tokenizer, max_length_tokens: int) -> PreTrainedTokenizerFast:
    """Wrap the tokenizer of a masked language model."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length_tokens,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def causal_tokenizer(tokenizer: Tokenizer, max_length_tokens: int) -> PreTrainedTokenizerFast:
    """Wrap the tokenizer of a causal language model: one special token that ends a text.

    It also pads, as is usual for GPT-2; padding is known by masks, never by ids.
    """
    unknown = "[UNK]" if tokenizer.token_to_id("[UNK]") is not None else END_OF_TEXT
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length_tokens,
        model_input_names=["input_ids", "attention_mask"],
        pad_token=END_OF_TEXT,
        unk_token=unknown,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
    )


def word_level(words: Sequence[str]) -> Tokenizer:
    """Build a tokenizer with one token per word, BERT's special tokens around every text."""
    return _with_special_tokens(_one_token_per_word((*SPECIAL_TOKENS, *words)))


def causal_word_level(words: Sequence[str]) -> Tokenizer:
    """Build a tokenizer with one token per word for a causal model, without BERT's own tokens."""
    plain = [word for word in words if word not in SPECIAL_TOKENS]
    tokenizer = _one_token_per_word((END_OF_TEXT, "[UNK]", *plain))
    tokenizer.add_special_tokens([END_OF_TEXT, "[UNK]"])
    return tokenizer


def _one_token_per_word(words: Sequence[str]) -> Tokenizer:
    vocabulary = {word: row for row, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for word in words:
        if word in (*SPECIAL_TOKENS, END_OF_TEXT):
            continue
        if tokenizer.encode(word).tokens != [word]:
            raise ValueError(
                f"the vocabulary's word {word!r} is not one token (letters, digits and "
                "underscores, or punctuation alone); split or rename it"
            )
    return tokenizer


def wordpiece(texts: Sequence[str], vocabulary_size: int) -> Tokenizer:
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


def byte_level_bpe(texts: Sequence[str], vocabulary_size: int) -> Tokenizer:
    """Train a byte-level BPE vocabulary on ``texts``; it can encode every text.

    Source: Radford et al., GPT-2 (2019), section 2.2.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        # All 256 bytes, so that the vocabulary covers what was not in the texts.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _with_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Wrap one text as ``[CLS] a [SEP]``, a pair as ``[CLS] a [SEP] b [SEP]``."""
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer
