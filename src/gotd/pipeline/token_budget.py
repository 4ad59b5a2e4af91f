"""A budget in tokens: rows in rank order until their tokens reach it.

Rows differ in length, so equal budgets in rows are unequal amounts of text. The tokens of
all selectors are equal up to the last row. A smaller budget is a prefix of a larger one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gotd.storage.artifacts import Step
from gotd.storage.model_files import is_known, locate, model_identity

if TYPE_CHECKING:
    from gotd.pipeline.ranked_pool import RankedPool


@dataclass(frozen=True)
class TokenBudget:
    """How many tokens to select, and what counts them.

    Args:
        tokens: Tokens to reach, without special ones; a text is counted in full, also where
            training cuts it.
        rank_rows: Rows of the ranking that may be taken.
        base: The step of the base model, whose own tokenizer counts if no other is named.
        tokenizer: ``minilm``, or folder or Hub name of a model whose tokenizer counts.
    """

    tokens: int
    rank_rows: int
    base: Step
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.rank_rows < self.tokens:
            raise ValueError(
                f"budget_unit=tokens: set rank_rows, the rows to rank, to more rows than "
                f"{self.tokens:,} tokens take and fewer than a row for each token; it is "
                f"{self.rank_rows:,}"
            )

    @property
    def parameters(self) -> dict[str, Any]:
        """Return what enters the key of a selection."""
        named = None if self.tokenizer is None else model_identity(self.tokenizer)
        return {"budget_unit": "tokens", "tokenizer": named}

    @property
    def inputs(self) -> dict[str, Step]:
        """Return the step whose tokenizer counts, if it is one."""
        return {"tokenizer": self.base} if self.tokenizer is None else {}

    def rows(self, ranked: RankedPool, inputs: Mapping[str, Path]) -> tuple[int, int]:
        """Return how many rows to take, and their tokens.

        Args:
            ranked: The ranking.
            inputs: Folders of the steps.

        Raises:
            ValueError: If the rows have too few tokens.
            FileNotFoundError: If the tokenizer is not there.
        """
        name = str(inputs.get("tokenizer") or self.tokenizer)
        taken, total = rows_reaching(self.tokens, ranked.texts(), token_counter(name))
        if total >= self.tokens:
            return taken, total
        pool = sum(map(len, ranked.candidates))
        remedy = "raise rank_rows" if taken < pool else "lower the budget or add candidates"
        raise ValueError(
            f"the {taken:,} rows of the ranking have {total:,} tokens, fewer than the budget of "
            f"{self.tokens:,}; {remedy}"
        )


def rows_reaching(
    tokens: int, texts: Iterable[Sequence[str]], count: Callable[[Sequence[str]], Sequence[int]]
) -> tuple[int, int]:
    """Return how many rows have so many tokens, and their tokens; fewer if all rows have fewer.

    Args:
        tokens: Tokens to reach.
        texts: The texts in rank order, block by block.
        count: Returns the tokens of each text.
    """
    taken = total = 0
    for block in texts:
        sums = total + np.cumsum(count(block))
        reached = int(np.searchsorted(sums, tokens))
        if reached < len(sums):
            return taken + reached + 1, int(sums[reached])
        taken, total = taken + len(sums), int(sums[-1])
    return taken, total


def token_counter(
    tokenizer: str, option: str = "budget_tokenizer"
) -> Callable[[Sequence[str]], Sequence[int]]:
    """Load a tokenizer and return what counts the tokens of texts, special ones aside.

    Args:
        tokenizer: ``minilm``, or folder or Hub name of a model.
        option: Name of the setting, for the message.

    Raises:
        FileNotFoundError: If it is not there.
    """
    from gotd.training.loading import load_any_tokenizer

    try:
        name = locate(tokenizer)
        if not Path(name).is_dir() and not is_known(name):
            raise FileNotFoundError(f"{option} {name!r} is no folder, and not known on the Hub")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; or name another tokenizer ({option})") from error
    try:
        loaded = load_any_tokenizer(name)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{option} {name!r} is neither a folder with a tokenizer nor a model that "
            "can be reached on the Hub; check the name"
        ) from error

    def count(texts: Sequence[str]) -> list[int]:
        rows: Any = loaded(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # a text longer than the model reads is no fault here
        )["input_ids"]
        return list(map(len, rows))

    return count
