"""Compare the memory estimates of `gotd plan` with measured peaks, one process per row.

Models are built from their configuration with random weights, which take as much memory as
published ones. Each row runs in a process of its own. It trains two optimiser steps, since
moments exist from the second one on, or scores choices. The peak of resident memory counts.
The allocator returns blocks above 1 MiB (MALLOC_MMAP_THRESHOLD_). By default glibc keeps freed
blocks of up to 32 MiB, and a peak is up to a fifth higher.

    OMP_NUM_THREADS=2 python experiments/benchmarks/memory.py                # up to 355M
    OMP_NUM_THREADS=2 python experiments/benchmarks/memory.py --rows 2.7B    # 24 GiB, an hour
    python experiments/benchmarks/memory.py --list        # the rows, and which are measured
    python experiments/benchmarks/memory.py --rows '110M bert_base train precision=bf16'
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gotd.storage.shapes import Shape
from gotd.training.memory import RUNTIME_GIB, Training, scoring_memory, training_memory

VOCABULARY = 50_257
SHAPES = {
    "bert_base": (Shape(12, 768, 12, 3072, 30_522, 512), "bert", "110M"),
    "gpt2": (Shape(12, 768, 12, 3072, VOCABULARY, 1024), "gpt2", "124M"),
    "gpt2_medium": (Shape(24, 1024, 16, 4096, VOCABULARY, 1024), "gpt2", "355M"),
    "gpt_neo_125m": (Shape(12, 768, 12, 3072, VOCABULARY, 2048), "gpt_neo", "125M"),
    "gpt_neo_2_7b": (Shape(32, 2560, 20, 10240, VOCABULARY, 2048), "gpt_neo", "2.7B"),
}
STEPS = 2
MASKED_SHARE = 0.15
KNOWN = [a + b for a in ("the", "cat", "sat", "on", "mat", "good") for b in ("", "s", "ed")]
"""The words of all texts."""


@dataclass(frozen=True)
class Row:
    """One measurement: a model, the work and its settings."""

    model: str
    task: str
    rows: int
    length_tokens: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Short and unique."""
        how = [f"{k}={v}" for k, v in self.settings.items()]
        return " ".join([SHAPES[self.model][2], self.model, self.task, *how])


LORA = {"tuning": "lora"}
CHECKPOINTED = {"gradient_checkpointing": True}
BF16 = {"precision": "bf16"}
BF16_WEIGHTS = {"precision": "bf16", "weights": "bf16"}
ROWS = [
    Row("gpt2", "train", 4, 128, {"precision": "float32"}),
    Row("gpt2", "train", 4, 128, BF16),
    Row("gpt2", "train", 4, 128, {**BF16, **CHECKPOINTED}),
    Row("gpt2", "train", 4, 128, {**BF16, **LORA}),
    Row("gpt2", "train", 4, 128, {**BF16_WEIGHTS, **LORA, **CHECKPOINTED}),
    Row("bert_base", "train", 8, 128, {"precision": "float32"}),
    Row("bert_base", "train", 8, 128, BF16),
    Row("bert_base", "train", 8, 128, {**BF16, **CHECKPOINTED}),
    Row("bert_base", "train", 8, 128, {**BF16, **LORA}),
    Row("gpt_neo_125m", "train", 4, 128, BF16),
    Row("gpt_neo_125m", "train", 4, 128, {**BF16_WEIGHTS, **LORA}),
    Row("gpt2_medium", "train", 2, 128, BF16),
    Row("gpt2_medium", "train", 2, 128, {**BF16_WEIGHTS, **LORA}),
    Row("gpt2_medium", "train", 2, 128, {**BF16_WEIGHTS, **LORA, **CHECKPOINTED}),
    Row("gpt2", "score", 8, 128, {"precision": "float32"}),
    Row("gpt_neo_125m", "score", 8, 128, BF16),
    Row("gpt2_medium", "score", 8, 128, BF16),
    Row("gpt_neo_2_7b", "train", 1, 64, {**BF16_WEIGHTS, **LORA, **CHECKPOINTED}),
    Row("gpt_neo_2_7b", "score", 2, 64, BF16),
]


def estimate_gib(row: Row) -> float:
    """Return the estimate of `gotd plan`, with the process itself."""
    shape, family, size = SHAPES[row.model]
    shape = replace(shape, family=family)
    stored = "bf16" if size == "2.7B" else "float32"
    if row.task == "score":
        memory = scoring_memory(
            shape,
            row.settings["precision"],
            row.rows * row.length_tokens,
            row.length_tokens,
            stored,
        )
    else:
        how = Training(
            row.rows,
            row.length_tokens,
            predicted=MASKED_SHARE if family == "bert" else 1.0,
            dropout=family != "gpt_neo",  # its published configurations have none
            stored=stored,
            **row.settings,
        )
        memory = training_memory(shape, how)
    return memory.gib + RUNTIME_GIB


def words(random: np.random.Generator, n: int, length: int) -> list[str]:
    """Draw texts that are about ``length`` tokens long."""
    return [" ".join(random.choice(KNOWN, length)) for _ in range(n)]


def build(model: str, folder: Path) -> None:
    """Write a model of a shape with random weights, bf16 where it is large."""
    from gotd.training.causal_models import CausalSpec
    from gotd.training.models import ModelSpec, build_model

    shape, family, size = SHAPES[model]
    if family == "bert":
        masked = ModelSpec(
            layers=shape.layers,
            hidden_size=shape.hidden,
            heads=shape.heads,
            feed_forward_size=shape.feed_forward,
            max_length_tokens=shape.positions,
        )
        least = [f"word{i}" for i in range(shape.vocabulary - len(KNOWN) - 5)]  # 5 special tokens
        build_model(masked, [*KNOWN, *least], 0, folder)
        return
    spec = CausalSpec(
        architecture=family,
        vocabulary_size=shape.vocabulary,
        layers=shape.layers,
        hidden_size=shape.hidden,
        heads=shape.heads,
        feed_forward_size=shape.feed_forward,
        max_length_tokens=shape.positions,
        dropout=0.1 if family == "gpt2" else 0.0,
        weights="bf16" if size == "2.7B" else "float32",
    )
    build_model(spec, words(np.random.default_rng(0), 50, 100), 0, folder)


def measure(row: Row, folder: Path) -> dict[str, Any]:
    """Run a row in this process; return its peak, seconds and speed."""
    from gotd.storage.environment import peak_memory_gib, reset_peak_memory

    texts = words(np.random.default_rng(1), 64, row.length_tokens)
    if row.task == "score":
        import pyarrow as pa

        from gotd.evaluation.likelihood import Likelihood, load_for_scoring
        from gotd.evaluation.zero_shot import Prompt, score_choices

        reset_peak_memory()
        network, tokenizer = load_for_scoring(folder, row.settings["precision"])
        cut = [
            tokenizer.decode(tokenizer(text)["input_ids"][: row.length_tokens - 8])
            for text in texts[: 2 * row.rows]
        ]
        table = pa.table({"id": [str(i) for i in range(len(cut))], "text": cut})
        prompt = Prompt("{text}", choices=("good", "the cat sat"))
        began = time.perf_counter()
        likelihood = Likelihood(network, row.rows * row.length_tokens)
        scores = score_choices(likelihood, tokenizer, table, prompt, full_text=True)
        seconds = time.perf_counter() - began
        done = {"texts_per_s": scores.num_rows / seconds}
    else:
        from gotd.training import causal_lm, masked_lm
        from gotd.training.language_model import pre_fine_tune
        from gotd.training.randomness import TrainingSeeds

        masked = SHAPES[row.model][1] == "bert"
        make = masked_lm.MaskedLMSettings if masked else causal_lm.CausalLMSettings
        settings: Any = make(
            learning_rate=1e-4,
            epochs=10,
            max_steps=STEPS,
            global_batch_size=row.rows,
            per_device_batch_size=row.rows,
            max_length_tokens=row.length_tokens,
            **row.settings,
        )
        reset_peak_memory()
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            work, out = Path(place) / "work", Path(place) / "out"
            report = pre_fine_tune(folder, texts, settings, TrainingSeeds.derive(0), work, out)
        seconds = report["cost"]["elapsed_s"]
        done = {"tokens_per_s": report["cost"]["tokens_per_s"], "loss": report["loss_curve"]}
    return {"peak_gib": peak_memory_gib(), "seconds": seconds, **done}


def run_apart(arguments: list[str]) -> str:
    """Run this script in a process of its own; return what it printed last."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1] if done.stdout else ""


def as_markdown(results: list[dict[str, Any]], hardware: dict[str, Any]) -> str:
    """Return the page of all rows measured so far."""
    lines = [
        "# Memory: estimate of `gotd plan` against the measured peak",
        "",
        "Models built from their configuration with random weights; vocabulary 50,257, BERT's "
        "30,522. `rows x tokens` is one device's batch; the 2.7B model's file is bf16, the others' "
        "float32. Peaks are of the whole process, of two optimiser steps or "
        "of scoring two choices a text by the perplexity of the whole instance; the estimate "
        f"counts {RUNTIME_GIB} GiB for the process itself.",
        "",
        "| model | task | rows x tokens | estimate GiB | measured GiB | estimate / measured |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for entry in results:
        row = Row(**entry["row"])
        how = " ".join(f"{k}={v}" for k, v in row.settings.items())
        lines.append(
            f"| {row.model} ({SHAPES[row.model][2]}) | {row.task} {how} "
            f"| {row.rows} x {row.length_tokens} | {entry['estimate_gib']:.2f} "
            f"| {entry['peak_gib']:.2f} | {entry['estimate_gib'] / entry['peak_gib']:.2f} |"
        )
    machine = ", ".join(f"{key} {value}" for key, value in hardware.items())
    return "\n".join([*lines, "", f"Hardware: {machine}.", ""])


def main() -> None:
    """Build, measure and compare; earlier rows stay until they are measured again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", default="", help="the row of this name, or those that hold it")
    parser.add_argument("--list", action="store_true", help="list the rows and exit")
    parser.add_argument("--models", type=Path, help="keep the built models here")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--build", help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        build(arguments.build, arguments.models)
        return
    if arguments.measure:
        row = Row(**json.loads(arguments.measure))
        print(json.dumps(measure(row, arguments.models)))
        return
    file = arguments.out / "memory.json"
    known = json.loads(file.read_text())["rows"] if file.exists() else []
    if arguments.list:
        done = {Row(**entry["row"]).name for entry in known}
        for row in ROWS:
            state = "measured" if row.name in done else "not measured"
            print(f"{row.name}: {estimate_gib(row):.2f} GiB, {state}")
        return
    wanted = [r for r in ROWS if r.name == arguments.rows] or [
        r for r in ROWS if arguments.rows in r.name and (arguments.rows or "2.7B" not in r.name)
    ]
    from gotd.storage.environment import hardware

    with tempfile.TemporaryDirectory() as scratch:
        for row in wanted:
            folder = (arguments.models or Path(scratch)).resolve() / row.model
            if not (folder / "config.json").exists():
                run_apart(["--build", row.model, "--models", str(folder)])
            found = run_apart(["--measure", json.dumps(asdict(row)), "--models", str(folder)])
            entry = {"row": asdict(row), "estimate_gib": estimate_gib(row), **json.loads(found)}
            print(f"{row.name}: {entry['estimate_gib']:.2f} GiB, measured {entry['peak_gib']:.2f}")
            known = [{**e, "estimate_gib": estimate_gib(Row(**e["row"]))} for e in known]
            known = [e for e in known if e["row"] != entry["row"]] + [entry]
            order = {r.name: place for place, r in enumerate(ROWS)}
            known.sort(key=lambda e: order.get(Row(**e["row"]).name, len(order)))
            arguments.out.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"hardware": hardware(), "rows": known}, indent=2) + "\n")
            (arguments.out / "memory.md").write_text(as_markdown(known, hardware()))


if __name__ == "__main__":
    main()
