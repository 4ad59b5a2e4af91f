"""Responses of a model to prompts: their loss, what it writes itself, which choice is likeliest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from gotd.evaluation.batches import by_length, left_padded_inputs, pad
from gotd.evaluation.likelihood import BATCH_TOKENS, Likelihood
from gotd.evaluation.results import Results
from gotd.evaluation.target_loss import mean_losses
from gotd.storage.checks import check_at_least, check_choice
from gotd.storage.keys import key_fields
from gotd.training.causal_models import WEIGHTS
from gotd.training.prompts import (
    PromptFormat,
    Tokens,
    cut_prompt,
    encode_pairs,
    encode_prompts,
)

RESPONSES = "responses.parquet"
METRIC = "response_loss"
KEPT = ("part", "references", "label", "number")
"""Columns of the rows that scoring reads again."""
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Instructed:
    """Loss and quality of responses, without further training.

    Args:
        chat_template: As in the settings of instruction tuning.
        separator: As there.
        max_length_tokens: As there; the model's positions may allow fewer.
        max_new_tokens: Most tokens that the model writes; 0: it writes nothing, and there is no
            exact match, F1 or ROUGE-L.
        name: Name in the record.
        precision: ``float32`` or ``bf16``.
        batch_tokens: Positions read at once; changes only the last bits.
    """

    key_name: ClassVar[str] = "Instructed"

    seeded: ClassVar[str] = "evaluation"

    chat_template: bool = False
    separator: str = "\n\n"
    max_length_tokens: int = 512
    max_new_tokens: int = 32
    name: str = "instruction"
    precision: str = "float32"
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        check_choice(self, "precision", (*WEIGHTS,), "evaluation ")
        check_at_least(self, 2, "max_length_tokens", prefix="evaluation ")
        check_at_least(self, 0, "max_new_tokens", prefix="evaluation ")
        check_at_least(self, 1, "batch_tokens", prefix="evaluation ")

    def key_fields(self) -> dict[str, Any]:
        """Return what determines the numbers in addition to the responses."""
        return {"name": self.name}

    def read_fields(self) -> dict[str, Any]:
        """Return what determines the responses."""
        return {k: v for k, v in key_fields(self).items() if k != "name"}

    def results(self, folders: Mapping[str, Path], task: Any) -> Results:
        """Return the mean loss per token of the right responses, and scores of the model's own.

        The headline is ``response_loss``. ``exact_match``, ``token_f1`` and ``rouge_l`` compare
        what the model writes with the references; ``choice_accuracy`` is of the rows with choices.

        Raises:
            ValueError: If a loss is not finite.
        """
        rows = pq.read_table(folders["responses"] / RESPONSES)
        metrics: dict[str, Any] = {**mean_losses(rows, METRIC)}
        if self.max_new_tokens:
            metrics |= written_scores(rows)
        chosen = rows.filter(pc.is_valid(rows["chosen"]))
        if chosen.num_rows:
            right = pc.equal(chosen["chosen"], chosen["label"])
            metrics["choice_accuracy"] = float(pc.mean(right).as_py())
        metrics |= {"headline_name": METRIC, "headline": metrics[METRIC]}
        return Results(metrics | {"headline_higher_is_better": False}, rows.num_rows)


def respond(network: Any, tokenizer: Any, rows: pa.Table, settings: Instructed) -> pa.Table:
    """Measure the right response of each row, write one, and choose among its choices.

    Args:
        network: From `gotd.evaluation.likelihood.load_for_scoring`.
        tokenizer: From there, too.
        rows: Columns as in `gotd.data.tasks.instruction.ANSWERED`, ``id``, ``prompt`` and
            ``response``.
        settings: See `Instructed`.

    Returns:
        ``id``, ``loss`` (float64, nats, of the response with its end), ``tokens`` (int64, those
        of the response), ``written`` (string), ``chosen`` (int64, null without choices), and
        `KEPT`.
    """
    likelihood = Likelihood(network, settings.batch_tokens)
    longest = min(settings.max_length_tokens, likelihood.max_tokens)
    how = PromptFormat(settings.chat_template, settings.separator, longest)
    prompts, responses = rows["prompt"].to_pylist(), rows["response"].to_pylist()
    pairs = encode_pairs(tokenizer, prompts, responses, how)
    losses = likelihood.losses([row for row, _ in pairs], [begin for _, begin in pairs])
    written = [""] * len(prompts)
    if settings.max_new_tokens:
        most = max(2, likelihood.max_tokens - 1 - settings.max_new_tokens)
        begins = [
            cut_prompt(p, min(most, longest)) for p in encode_prompts(tokenizer, prompts, how)
        ]
        written = write(network, tokenizer, begins, settings)
    return pa.table(
        {
            "id": rows["id"],
            "loss": [float(values.sum()) for values in losses],
            "tokens": pa.array([len(values) for values in losses], pa.int64()),
            "written": pa.array(written, pa.string()),
            "chosen": _choose(likelihood, tokenizer, rows, how),
            **{name: rows[name] for name in KEPT},
        }
    )


def _choose(likelihood: Likelihood, tokenizer: Any, rows: pa.Table, how: PromptFormat) -> pa.Array:
    """Return the likeliest choice of each row by its summed loss, the first of equals."""
    prompts, choices = rows["prompt"].to_pylist(), rows["choices"].to_pylist()
    flat = [
        (number, choice)
        for number, (prompt, options) in enumerate(zip(prompts, choices, strict=True))
        for choice in options or ()
    ]
    if not flat:
        return pa.nulls(len(prompts), pa.int64())
    pairs = encode_pairs(tokenizer, [prompts[n] for n, _ in flat], [c for _, c in flat], how)
    grouped: dict[int, list[tuple[Tokens, int]]] = {}
    for (number, _), pair in zip(flat, pairs, strict=True):
        grouped.setdefault(number, []).append(pair)
    losses = likelihood.choice_losses(
        [[row for row, _ in options] for options in grouped.values()],
        [[begin for _, begin in options] for options in grouped.values()],
    )
    chosen: list[int | None] = [None] * len(prompts)
    for number, values in zip(grouped, losses, strict=True):
        chosen[number] = int(np.argmin([value.sum() for value in values]))
    return pa.array(chosen, pa.int64())


def write(
    network: Any, tokenizer: Any, prompts: Sequence[Tokens], settings: Instructed
) -> list[str]:
    """Write the likeliest token after token until the end token, for each prompt.

    Args:
        network: A causal language model in evaluation mode.
        tokenizer: Its tokenizer.
        prompts: ``[n]`` rows of tokens.
        settings: See `Instructed`.

    Returns:
        ``[n]`` texts.
    """
    texts = [""] * len(prompts)
    lengths = [len(prompt) + settings.max_new_tokens for prompt in prompts]
    for batch in by_length(lengths, settings.batch_tokens, network.device.type):
        ids, mask = pad([prompts[i] for i in batch], network.device, left=True)
        with torch.inference_mode():
            inputs = left_padded_inputs(ids, mask)
            written = network.generate(
                **inputs,
                max_new_tokens=settings.max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        new = written[:, ids.shape[1] :]
        decoded = tokenizer.batch_decode(new, skip_special_tokens=True)
        for i, text in zip(batch, decoded, strict=True):
            texts[i] = text.strip()
    return texts


def written_scores(rows: pa.Table) -> dict[str, float]:
    """Score what the model wrote against the references, the best of them for each row.

    Exact match and F1 are those of SQuAD: without case, punctuation and articles. Where the
    answer is a number, the last number of a text counts for the exact match.

    Args:
        rows: From `respond`.

    Returns:
        ``exact_match``, ``token_f1`` and ``rouge_l`` (F-measure), shares.
    """
    # Imported here, because the import takes seconds.
    from torchmetrics.functional.text import rouge_score, squad

    texts, references = rows["written"].to_pylist(), rows["references"].to_pylist()
    numbers = rows["number"].to_pylist()
    read = [_last_number(t) if n else t for t, n in zip(texts, numbers, strict=True)]
    found = squad(
        [{"prediction_text": text, "id": str(i)} for i, text in enumerate(read)],
        [
            {"answers": {"answer_start": [0] * len(some), "text": some}, "id": str(i)}
            for i, some in enumerate(references)
        ],
    )
    rouge = rouge_score(texts, references, accumulate="best", rouge_keys="rougeL")
    return {
        "exact_match": float(found["exact_match"]) / 100,
        "token_f1": float(found["f1"]) / 100,
        "rouge_l": float(rouge["rougeL_fmeasure"]),
    }


def _last_number(text: str) -> str:
    """Return the last number of a text without thousands separators; the text if it has none."""
    numbers = _NUMBER.findall(text)
    return numbers[-1].replace(",", "") if numbers else text
