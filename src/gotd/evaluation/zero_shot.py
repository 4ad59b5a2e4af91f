"""Zero-shot answers: the choice that is most likely under the language model.

Each choice of a row makes a full text, the instance. The methods differ in what they compare:

    perplexity                   of the full instance: exp(losses / predicted tokens)
    perplexity_all_tokens        the same over all its tokens, including the first, which is
                                 not predicted (OpenICL's, which the paper used)
    log_likelihood               of the choice after its context (harness ``acc``)
    log_likelihood_per_character the same over the choice's length (harness ``acc_norm``)

Source: GOT-D App. E and Table 15; Wu et al., OpenICL (2023), its perplexity inferencer;
EleutherAI's lm-evaluation-harness, multiple choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from gotd.evaluation.metrics import score
from gotd.evaluation.results import Results, score_splits
from gotd.storage.checks import check_at_least, check_choice

if TYPE_CHECKING:
    from gotd.evaluation.likelihood import Likelihood

OF_FULL_TEXT = ("perplexity", "perplexity_all_tokens")
OF_CHOICE = ("log_likelihood", "log_likelihood_per_character")
METHODS = (*OF_FULL_TEXT, *OF_CHOICE)

NAMES = {
    "perplexity": "predicted_tokens",
    "perplexity_all_tokens": "all_tokens",
    "log_likelihood": "choice",
    "log_likelihood_per_character": "choice_per_character",
}
"""Suffixes of metric names by method; ``perplexity`` alone is a metric."""
PRECISIONS = ("float32", "bf16")
BATCH_TOKENS = 4096

BLANK = "_"
"""The gap of a question, which the choice fills."""
GAP = re.compile(r"(?<!\w)_+(?!\w)")
"""A gap: one sign or a run of them, and no part of a name such as ``my_name``."""


@dataclass(frozen=True)
class Prompt:
    """Template of a row's texts and its choices.

    Both parts may contain ``{text}``, ``{text_pair}``, ``{choice}`` and, for texts with a
    gap, ``{before}`` and ``{after}`` it. Blanks at the end of the context move to the
    continuation, because these tokenizers join them to the next word.

    Args:
        context: Text before the choice.
        continuation: The rest of the instance, whose likelihood ``log_likelihood`` uses.
        choices: The choices by label; empty if each row has its own.
    """

    key_name: ClassVar[str] = "Prompt"

    context: str
    continuation: str = " {choice}"
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))
        fields = dict.fromkeys(("text", "text_pair", "choice", "before", "after"), "x")
        for name in ("context", "continuation"):
            try:
                getattr(self, name).format(**fields)
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(
                    f"prompt {name} {getattr(self, name)!r} may name {', '.join(fields)} in "
                    f"braces and nothing else ({error})"
                ) from error
        if len(self.choices) == 1:
            raise ValueError("a prompt needs two choices or more, or none if each row has its own")

    def fill(
        self, text: str, text_pair: str | None, choices: Sequence[str]
    ) -> list[tuple[str, str]]:
        """Fill in a row: context and continuation of each choice.

        Raises:
            ValueError: If the template names what is before or after a gap, and the text has
                no gap or several.
        """
        before, after = self._around_gap(text)
        filled = []
        for choice in choices:
            fields = {
                "text": text,
                "text_pair": text_pair,
                "choice": choice,
                "before": before,
                "after": after.strip(),
            }
            context = self.context.format(**fields)
            bare = context.rstrip()
            moved = context[len(bare) :]
            filled.append((bare, moved + self.continuation.format(**fields)))
        return filled

    def _around_gap(self, text: str) -> tuple[str, str]:
        """Return what is before and after the gap of a text, where the template asks for it."""
        if not any(
            f"{{{name}}}" in self.context + self.continuation for name in ("before", "after")
        ):
            return text, ""
        gaps = list(GAP.finditer(text))
        if len(gaps) != 1:
            raise ValueError(
                f"a question must have one gap, written {BLANK}, and {text[:80]!r} has "
                f"{len(gaps) or 'none'}; repair the question or drop it"
            )
        return text[: gaps[0].start()], text[gaps[0].end() :]


def score_choices(
    likelihood: Likelihood, tokenizer: Any, rows: pa.Table, prompt: Prompt, full_text: bool
) -> pa.Table:
    """Compute the losses of every choice of every row.

    The beginning of the context is cut from an instance that is too long for the model, by
    the same ``cut_tokens`` for all choices of the row.

    Args:
        likelihood: The model.
        tokenizer: Its tokenizer.
        rows: ``id``, ``text`` and, where used, ``text_pair`` and ``choices``.
        prompt: The template.
        full_text: Whether to score the full instance, not the continuation alone.

    Returns:
        ``id``, then per row lists over its choices: ``losses`` (float64, nats, of the
        scored tokens), ``tokens`` (int64, those scored) and ``characters`` (int64, of
        the choice); and ``cut_tokens`` (int64).

    Raises:
        ValueError: If a row has fewer than two choices, or a choice does not fit or adds no
            token, so that its score would be a sum over nothing.
    """
    choices = _choices(rows, prompt)
    second = rows["text_pair"].to_pylist() if "text_pair" in rows.column_names else None
    pairs = second or [None] * rows.num_rows
    texts = rows["text"].to_pylist()
    filled = [
        prompt.fill(text, pair, options)
        for text, pair, options in zip(texts, pairs, choices, strict=True)
    ]
    flat = [instance for row in filled for instance in row]
    tokens = tokenizer([a + b for a, b in flat], add_special_tokens=False)["input_ids"]
    contexts = tokenizer([a for a, _ in flat], add_special_tokens=False)["input_ids"]
    instances, first, cuts = [], [], []
    start = 0
    for name, options in zip(rows["id"].to_pylist(), choices, strict=True):
        own = slice(start, start + len(options))
        start += len(options)
        cut = max(0, max(map(len, tokens[own])) - likelihood.max_tokens)
        if cut and cut >= min(map(len, contexts[own])):
            raise ValueError(
                f"row {name!r}: its choices alone have more tokens than the "
                f"{likelihood.max_tokens - 1} the model reads; shorten them"
            )
        instances.append([row[cut:] for row in tokens[own]])
        first.append([1 if full_text else max(1, len(c) - cut) for c in contexts[own]])
        cuts.append(cut)
        _check_scored(name, instances[-1], first[-1])
    losses = likelihood.choice_losses(instances, first)
    return pa.table(
        {
            "id": rows["id"],
            "losses": pa.array([[float(x.sum()) for x in row] for row in losses]),
            "tokens": pa.array([[len(x) for x in row] for row in losses]),
            "characters": pa.array([[len(choice) for choice in row] for row in choices]),
            "cut_tokens": pa.array(cuts, pa.int64()),
        }
    )


def _check_scored(name: str, instances: list[list[int]], first: list[int]) -> None:
    """Raise if a choice has no token that is scored: it would be the most likely one."""
    for number, (tokens, start) in enumerate(zip(instances, first, strict=True), 1):
        if len(tokens) <= start:
            raise ValueError(
                f"row {name!r}: choice {number} adds no token to its context, so nothing of it "
                "would be scored; write the choice out, or drop the row"
            )


def _choices(rows: pa.Table, prompt: Prompt) -> list[list[str]]:
    if prompt.choices:
        return [list(prompt.choices)] * rows.num_rows
    if "choices" not in rows.column_names:
        raise ValueError("the prompt names no choices and the rows have no column 'choices'")
    choices = rows["choices"].to_pylist()
    for name, options in zip(rows["id"].to_pylist(), choices, strict=True):
        if options is None or len(options) < 2:
            raise ValueError(f"row {name!r} has fewer than two choices; drop it")
        if not all(option and option.strip() for option in options):
            raise ValueError(f"row {name!r} has an empty choice; write it out, or drop the row")
    return choices


def decide(scores: pa.Table, method: str) -> np.ndarray:
    """Choose the most likely choice of each row, the first of equals.

    Args:
        scores: From `score_choices`; of full instances for the two perplexities.
        method: One of `METHODS`.

    Returns:
        int64 ``[n]`` indices of the choices.

    Raises:
        ValueError: If the method is unknown, or a score is not finite (names the row).
    """
    if method not in METHODS:
        raise ValueError(f"zero-shot method must be one of {', '.join(METHODS)}, not {method!r}")
    answers = np.empty(scores.num_rows, dtype=np.int64)
    columns = (scores[c].to_pylist() for c in ("id", "losses", "tokens", "characters"))
    for i, (name, losses, tokens, characters) in enumerate(zip(*columns, strict=True)):
        values = np.array(losses)
        if method == "perplexity":
            values = values / np.array(tokens)
        elif method == "perplexity_all_tokens":
            values = values / (np.array(tokens) + 1)
        elif method == "log_likelihood_per_character":
            values = values / np.array(characters)
        if not np.isfinite(values).all():
            raise ValueError(f"a score of row {name!r} is not finite; the model has diverged")
        answers[i] = int(values.argmin())
    return answers


@dataclass(frozen=True)
class ZeroShot:
    """Accuracy of answers without training.

    Args:
        name: Name in the record.
        method: One of `METHODS`; the others that the same scores allow are recorded, too.
        precision: ``float32`` or ``bf16``.
        batch_tokens: Positions read at once; changes only the last bits.
    """

    key_name: ClassVar[str] = "ZeroShot"

    published: ClassVar[dict[str, Any]] = {"method": "perplexity_all_tokens"}
    """Values of the paper's evaluation code where they differ (Deviation D25)."""
    seeded: ClassVar[str] = "evaluation"

    name: str = "zero_shot"
    method: str = "perplexity"
    precision: str = "float32"
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        check_choice(self, "method", METHODS, "evaluation ")
        check_choice(self, "precision", PRECISIONS, "evaluation ")
        check_at_least(self, 1, "batch_tokens", prefix="evaluation ")

    def key_fields(self) -> dict[str, Any]:
        """Return what determines the numbers in addition to the scores."""
        return {"name": self.name, "method": self.method}

    def results(self, folders: Mapping[str, Path], task: Any) -> Results:
        """Score every reported split by ``method``; the first one is the headline.

        Also recorded are the headline by the other methods and ``most_given_share``, the
        share of the most frequent answer. A model with constant answers scores like one
        that guesses, but for another reason.
        """
        metrics, table = score_splits(
            folders["answers"], task, lambda table: decide(table, self.method)
        )
        answers, labels = decide(table, self.method), table["label"].to_numpy()
        metrics["most_given_share"] = float(np.bincount(answers).max() / table.num_rows)
        for other in OF_FULL_TEXT if self.method in OF_FULL_TEXT else OF_CHOICE:
            if other != self.method:
                value = score(task.headline, decide(table, other), labels)
                metrics[f"{task.headline}_by_{NAMES[other]}"] = value
        return Results(metrics, table.num_rows)
