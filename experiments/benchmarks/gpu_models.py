"""Training and generation on a GPU, beside what `gotd plan` states of them.

Models are built from their configuration with random weights, which cost as much as published
ones. The 2.7B one takes a minute to build.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from gpu_cells import Cell
from memory import BF16, BF16_WEIGHTS, CHECKPOINTED, LORA, SHAPES, Row, build, estimate_gib, words

from gotd.planning.estimates import Machine
from gotd.storage.shapes import Shape
from gotd.storage.work import reading_work
from gotd.training.memory import RUNTIME_GIB, scoring_memory

MODELS = "models"
TINY: dict[str, tuple[Shape, str, str]] = {
    "tiny_bert": (Shape(2, 64, 2, 128, 400, 128), "bert", "tiny"),
    "tiny_gpt_neo": (Shape(2, 64, 2, 128, 400, 128), "gpt_neo", "tiny"),
    "tiny_gpt2": (Shape(2, 64, 2, 128, 400, 128), "gpt2", "tiny"),
}
PROMPT_WORDS = 10


@dataclass(frozen=True)
class Work:
    """A training to measure: steps of a row of the memory benchmark."""

    name: str
    row: Row
    steps: int


@dataclass(frozen=True)
class Writing:
    """A generation to measure."""

    model: str
    prompts: int
    samples: int
    new_tokens: int
    precision: str


TRAININGS = [
    Work("warm-up, masked LM", Row("bert_base", "train", 64, 128, BF16), 100),
    Work(
        "LoRA, recomputed, bf16",
        Row("gpt_neo_2_7b", "train", 8, 512, {**BF16_WEIGHTS, **LORA, **CHECKPOINTED}),
        10,
    ),
]
TINY_TRAININGS = [
    Work("warm-up, masked LM", Row("tiny_bert", "train", 4, 16, BF16), 3),
    Work(
        "LoRA, recomputed, bf16",
        Row("tiny_gpt_neo", "train", 2, 16, {**BF16_WEIGHTS, **LORA, **CHECKPOINTED}),
        2,
    ),
]
WRITING, TINY_WRITING = (
    Writing("gpt2", 100, 25, 20, "bf16"),
    Writing("tiny_gpt2", 2, 3, 5, "float32"),
)


def shape_of(model: str) -> Shape:
    """Return the sizes of a model, with its architecture."""
    shape, family, _ = SHAPES[model]
    return replace(shape, family=family)


def built(model: str, folder: Path) -> Path:
    """Return the folder of a model, which is built if it is not there."""
    if not (folder / model / "config.json").exists():
        build(model, folder / model)
    return folder / model


def settings_of(work: Work) -> Any:
    """Return the settings of a training."""
    from gotd.training import causal_lm, masked_lm

    masked = SHAPES[work.row.model][1] == "bert"
    make: Any = masked_lm.MaskedLMSettings if masked else causal_lm.CausalLMSettings
    return make(
        learning_rate=1e-4,
        epochs=2,
        max_steps=work.steps,
        global_batch_size=work.row.rows,
        per_device_batch_size=work.row.rows,
        max_length_tokens=work.row.length_tokens,
        **work.row.settings,
    )


def training(work: Work, folder: Path, device: str, machine: Machine) -> Cell:
    """Return the cell of a training; its time is that of the loop."""
    settings, row = settings_of(work), work.row
    texts = words(np.random.default_rng(1), row.rows * work.steps, row.length_tokens)

    def prepare() -> Callable[[], dict[str, Any]]:
        from gotd.training.language_model import pre_fine_tune
        from gotd.training.randomness import TrainingSeeds

        base = built(row.model, folder)

        def run() -> dict[str, Any]:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                out = Path(place)
                seeds = TrainingSeeds.derive(0)
                return pre_fine_tune(base, texts, settings, seeds, out / "work", out / "model")

        return run

    def judge(report: dict[str, Any]) -> dict[str, Any]:
        stated = settings.work(shape_of(row.model), len(texts), row.length_tokens)
        return {
            "loop_s": report["cost"]["elapsed_s"],
            "tokens_per_s": report["cost"]["tokens_per_s"],
            "planned_s": machine.seconds(stated),
            "planned_gib": estimate_gib(row) - (RUNTIME_GIB if device == "cuda" else 0.0),
        }

    size = f"{row.model}, {row.rows} x {row.length_tokens}, {work.steps} steps"
    return Cell(MODELS, work.name, size, prepare, judge, most_rounds=1)


def generation(writing: Writing, folder: Path, device: str, machine: Machine) -> Cell:
    """Return the cell of a generation."""
    from gotd.evaluation.generation import GenerationSettings, continue_prompts
    from gotd.evaluation.likelihood import load_for_scoring

    texts = words(np.random.default_rng(2), writing.prompts, PROMPT_WORDS)
    rows = pa.table({"id": [f"p{i}" for i in range(len(texts))], "text": texts})
    settings = GenerationSettings(
        samples=writing.samples, max_new_tokens=writing.new_tokens, precision=writing.precision
    )
    tokens = writing.prompts * writing.samples * writing.new_tokens

    def prepare() -> Callable[[], float]:
        network, tokenizer = load_for_scoring(built(writing.model, folder), writing.precision)
        continue_prompts(network, tokenizer, rows[:1], settings, 0)

        def run() -> float:
            return continue_prompts(network, tokenizer, rows, settings, 0).num_rows

        return run

    def judge(_: Any) -> dict[str, Any]:
        shape = shape_of(writing.model)
        continuations = writing.prompts * writing.samples
        stated = reading_work(shape, continuations, writing.new_tokens, logits=1.0)
        memory = scoring_memory(shape, writing.precision, 4096, writing.new_tokens).gib
        return {
            "planned_s": machine.seconds(stated),
            "planned_gib": memory + (0.0 if device == "cuda" else RUNTIME_GIB),
        }

    size = f"{writing.model}, {tokens:,} tokens, {writing.precision}"
    return Cell(MODELS, "generation", size, prepare, judge)


def model_cells(folder: Path, device: str, machine: Machine, tiny: bool) -> Iterator[Cell]:
    """Yield the cells of models, the largest last.

    Args:
        folder: Where models are built.
        device: ``cuda`` or ``cpu``.
        machine: The rates by which `gotd plan` estimates seconds.
        tiny: Whether models are tiny.
    """
    SHAPES.update(TINY)
    small, large = TINY_TRAININGS if tiny else TRAININGS
    yield training(small, folder, device, machine)
    yield generation(TINY_WRITING if tiny else WRITING, folder, device, machine)
    yield training(large, folder, device, machine)
