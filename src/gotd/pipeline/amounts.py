"""How much to select: rows, a share of the pool, or tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gotd.data.pool import pool_facts
from gotd.data.sizes import CHARS_PER_TOKEN
from gotd.pipeline.request import Request
from gotd.pipeline.select import Announce, Prepared
from gotd.pipeline.token_budget import rows_reaching, token_counter
from gotd.storage import progress
from gotd.storage.model_files import model_identity

if TYPE_CHECKING:
    from gotd.engine.local import Engine
    from gotd.storage.artifacts import Store

MOST_TOKENS = 10**15
_POWERS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


@dataclass(frozen=True)
class Amount:
    """A budget.

    Args:
        value: Rows, the share of the pool in (0, 1], or tokens.
        unit: Which of them.
        tokenizer: Counts tokens: ``minilm``, or folder or Hub name of a model.
    """

    value: float
    unit: Literal["rows", "share", "tokens"] = "rows"
    tokenizer: str = "minilm"

    def first_limit(self, rows: int, mean_chars: float) -> int:
        """Return rows to rank at first: the amount, or a guess of the rows of its tokens.

        Args:
            rows: Rows that compete.
            mean_chars: Their mean length.
        """
        if self.unit == "rows":
            return int(self.value)
        if self.unit == "share":
            return max(1, round(self.value * rows))
        guess = 1.5 * self.value * CHARS_PER_TOKEN / max(1.0, mean_chars)
        return min(rows, max(1, math.ceil(guess)))

    @property
    def label(self) -> str:
        """Return the amount as it is in the name of a file: ``2M``, ``500k`` or ``5%``."""
        if self.unit == "share":
            return f"{100 * self.value:g}%"
        if self.unit == "rows":
            return f"{int(self.value)}"
        for power, sign in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
            if self.value % power == 0:
                return f"{int(self.value // power)}{sign}"
        return f"{int(self.value)}"

    def described(self) -> dict[str, Any]:
        """Return what a manifest states: ``unit``, ``amount`` and the tokenizer's identity."""
        stated: dict[str, Any] = {"unit": self.unit, "amount": self.value}
        if self.unit == "tokens":
            stated |= {"tokenizer": self.tokenizer, "identity": model_identity(self.tokenizer)}
        return stated


def parse_share(given: str) -> Amount:
    """Read ``5%``.

    Raises:
        ValueError: If it is no share above 0 and up to 100 %.
    """
    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*%\s*", given[:40])
    if match and 0 < float(match[1]) <= 100:
        return Amount(float(match[1]) / 100, "share")
    raise ValueError(f"a share must be above 0% and at most 100%, such as 5%, not {given[:40]!r}")


def parse_tokens(given: str, tokenizer: str) -> Amount:
    """Read ``2M``, ``500k`` or ``1_000_000``.

    Raises:
        ValueError: If it is no number of tokens of at least 1.
    """
    match = re.fullmatch(r"(\d+(?:_\d+)*(?:\.\d+)?)([kmb]?)", given[:40].strip().lower())
    if match and 1 <= (tokens := round(float(match[1]) * _POWERS[match[2]])) <= MOST_TOKENS:
        return Amount(tokens, "tokens", tokenizer)
    raise ValueError(f"--tokens must be a number such as 2M, 500k or 1000000, not {given[:40]!r}")


@dataclass(frozen=True)
class Budgets:
    """The rows that budgets come to.

    Args:
        rows: Rows of each budget.
        stated: What was asked for, for the manifest (`Amount.described`).
        tokens: Tokens of each number of rows, where the budget is in tokens.
        replay: Rows of replay beside each number of rows, where there is a replay.
        labels: What is in the name of the file of each number of rows.
    """

    rows: list[int]
    stated: list[dict[str, Any]]
    tokens: dict[int, int]
    replay: dict[int, int]
    labels: dict[int, str]

    def summary(self, rows: int) -> dict[str, int]:
        """Return what a summary states about a budget: its tokens and its rows of replay."""
        stated = {"tokens": self.tokens, "replay_rows": self.replay}
        return {name: values[rows] for name, values in stated.items() if rows in values}


def prepare(
    request: Request,
    amounts: list[Amount],
    store: Store,
    engine: Engine,
    announce: Announce = lambda steps: None,
) -> tuple[Prepared, Budgets]:
    """Score the candidates and find the rows of each budget.

    A method that makes lists ranks more rows until they have the tokens.

    Args:
        request: What to select.
        amounts: The budgets.
        store: The store of artifacts.
        engine: Maps over shards.
        announce: See `Prepared`.

    Raises:
        ValueError: If the pool is too small; and as for `Prepared`.
        FileNotFoundError: If a tokenizer is not there.
    """
    if request.bounds.min_per_domain and (len(amounts) > 1 or amounts[0].unit == "tokens"):
        raise ValueError("min_per_domain needs one budget in rows or as a share; give --budget")
    names = {amount.tokenizer for amount in amounts if amount.unit == "tokens"}
    counters = {name: token_counter(name, "--tokenizer") for name in names}

    def limit_of(prepared: Prepared, rows: int) -> int:
        lengths = pool_facts(prepared.folder("candidates"))["length_chars"]
        total = sum(count for _, count in lengths)
        mean = sum(length * count for length, count in lengths) / total
        return max(amount.first_limit(rows, mean) for amount in amounts)

    prepared = Prepared(request, limit_of, store, engine, announce)
    while True:
        rows, tokens = [], {}
        for amount in amounts:
            if amount.unit != "tokens":
                rows.append(amount.first_limit(prepared.competing, 1.0))
                continue
            wanted, count = int(amount.value), counters[amount.tokenizer]
            with progress.step("counting tokens"):
                taken, reached = rows_reaching(wanted, prepared.ranked.texts(), count)
            if reached < wanted and prepared.limit >= prepared.competing:
                raise ValueError(
                    f"all {taken:,} candidates that can be chosen have {reached:,} tokens, fewer "
                    f"than the budget of {wanted:,}; lower it or add candidates"
                )
            rows.append(taken)
            tokens |= {taken: reached}
            if reached < wanted:
                break
        else:
            return prepared, _budgets(prepared, amounts, rows, tokens, counters)
        prepared = Prepared(request, min(prepared.competing, 2 * taken), store, engine)


def _budgets(
    prepared: Prepared,
    amounts: Sequence[Amount],
    rows: list[int],
    tokens: dict[int, int],
    counters: Mapping[str, Callable[[Sequence[str]], Sequence[int]]],
) -> Budgets:
    """Return the budgets with the rows of replay beside them, and their labels."""
    tokens_alone = all(amount.unit == "tokens" for amount in amounts)
    labels, replay = {}, {}
    if prepared.replay is not None:
        prepared.replay.leave_out_selected(max(rows))
    for amount, count in zip(amounts, rows, strict=True):
        labels[count] = amount.label if tokens_alone else str(count)
        if prepared.replay is not None:
            counter = counters.get(amount.tokenizer)
            replay[count] = _replay_rows(prepared, count, tokens.get(count), counter)
    return Budgets(rows, [amount.described() for amount in amounts], tokens, replay, labels)


def _replay_rows(
    prepared: Prepared,
    rows: int,
    tokens: int | None,
    count: Callable[[Sequence[str]], Sequence[int]] | None,
) -> int:
    """Return the rows of replay beside so many rows, or tokens, that were selected."""
    if prepared.replay is None:
        return 0
    share = prepared.replay.replay
    if tokens is not None and count is not None:
        return prepared.replay.rows_of(share.beside(tokens), count)
    needed = share.beside(rows)
    prepared.replay.first(needed)  # an error comes before anything is written
    return needed
