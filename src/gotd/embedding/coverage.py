"""Whether a tokenizer covers the scripts of texts.

A tokenizer that lacks a script gives unknown tokens, or cuts every word into single characters.
The vectors of such texts then say little about their content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gotd.data.rows import Rows

LOST_SHARE = 0.5
"""Share of lost tokens from which a text is not covered.

MiniLM loses .7 of the tokens of Chinese, .8 of Arabic and all of Thai, and under .1 of English.
"""
SAMPLE_ROWS = 500
WARNED_SHARE = 0.01


def lost_shares(tokenizer: Any, texts: Sequence[str], max_length_tokens: int) -> np.ndarray:
    """Return the share of the tokens of each text that are lost: float64 ``[n]``.

    A token is lost if it is unknown, or a single character inside a word.

    Args:
        tokenizer: A tokenizer of transformers.
        texts: The texts; one without tokens has a share of 0.
        max_length_tokens: Tokens of each that are read.
    """
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length_tokens,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=tokenizer.is_fast,
    )
    shares = np.zeros(len(texts))
    for row, ids in enumerate(encoded["input_ids"]):
        lost = np.array(ids) == tokenizer.unk_token_id if ids else np.zeros(0, bool)
        if tokenizer.is_fast and ids:
            words = np.array([-1 if word is None else word for word in encoded.word_ids(row)])
            starts, ends = np.array(encoded["offset_mapping"][row]).T
            lost[1:] |= (words[1:] == words[:-1]) & (ends - starts <= 1)[1:]
        shares[row] = lost.mean() if ids else 0.0
    return shares


def coverage_warning(shares: np.ndarray, side: str, encoder: str) -> str | None:
    """Return the warning about a side whose scripts the encoder lacks, if it has such rows.

    Args:
        shares: float64 ``[n]`` from `lost_shares`, of a sample of rows.
        side: ``target`` or ``candidates``.
        encoder: Name of the encoder.
    """
    share = float((shares >= LOST_SHARE).mean()) if len(shares) else 0.0
    if share < WARNED_SHARE:
        return None
    return (
        f"{share:.0%} of the rows of the {side} are in a script that the encoder {encoder} does "
        f"not cover ({len(shares):,} rows looked at), so their scores say little; use the encoder "
        "tfidf_svd, which reads every language, or a multilingual one"
    )


def spaced_texts(shards: Sequence[Rows], length_chars: int) -> list[str]:
    """Return the beginnings of about `SAMPLE_ROWS` texts, evenly spaced over a pool."""
    step = -(-sum(map(len, shards)) // SAMPLE_ROWS)
    return [text.as_py()[:length_chars] for shard in shards for text in shard.texts[::step]]
