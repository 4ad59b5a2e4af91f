"""Compare zero-shot scoring and perplexity with plain calls of transformers.

Three ways score the choices of the same questions. Ours reads a shared prefix once, batches rows by
length and computes only the needed logits. The naive call reads each full text alone. The third
pads batches of full texts in their order. Perplexity is compared with padded batches of 16, as in
`evaluate`'s metric. The numbers must agree, and the sides run in turns. The model is a GPT-2 of
124M built from its configuration; its speed does not depend on its weights.

    DATA=../shared/data OMP_NUM_THREADS=1 python experiments/benchmarks/zero_shot.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gotd.evaluation.likelihood import Likelihood, load_for_scoring
from gotd.evaluation.perplexity import PerplexitySettings, text_losses
from gotd.evaluation.zero_shot import Prompt, score_choices
from gotd.storage.environment import hardware
from gotd.training.causal_models import CausalSpec
from gotd.training.models import build_model

TOPICS = ("World", "Sports", "Business", "Science/Technology")
NEWS = Prompt("{text}", choices=TOPICS)
BOOLQ = Prompt("{text_pair} Question: {text}? The answer is", choices=("No", "Yes"))
SIZES = {
    "gpt2": {"layers": 12, "hidden_size": 768, "heads": 12, "feed_forward_size": 3072},
    "small": {"layers": 4, "hidden_size": 256, "heads": 8, "feed_forward_size": 1024},
}


def load_rows(n: int) -> tuple[dict[str, tuple[pa.Table, Prompt]], list[str]]:
    """Read questions, and passages for the vocabulary and for perplexity."""
    data = Path(os.environ["DATA"])
    news = pq.read_table(data / "domain" / "agnews" / "test.parquet")
    boolq = pq.read_table(data / "zeroshot" / "boolq" / "validation.parquet")
    random = np.random.default_rng(0)
    tables = {}
    for name, table, prompt in (("agnews", news, NEWS), ("boolq", boolq, BOOLQ)):
        rows = table.take(random.permutation(table.num_rows)[:n])
        if name == "boolq":
            rows = rows.rename_columns({"question": "text", "passage": "text_pair"})
        tables[name] = (
            rows.append_column("id", pa.array([str(i) for i in range(rows.num_rows)])),
            prompt,
        )
    passages = pq.read_table(data / "candidates" / "news-reuters.parquet", columns=["text"])
    return tables, passages["text"][:4000].to_pylist()


def instances(tokenizer: Any, rows: pa.Table, prompt: Prompt) -> list[list[list[int]]]:
    """Tokenise every full text, as a plain caller would."""
    pairs = (
        rows["text_pair"].to_pylist()
        if "text_pair" in rows.column_names
        else [None] * rows.num_rows
    )
    return [
        [tokenizer(a + b)["input_ids"] for a, b in prompt.fill(text, pair, prompt.choices)]
        for text, pair in zip(rows["text"].to_pylist(), pairs, strict=True)
    ]


def alone(network: Any, rows: list[list[list[int]]]) -> np.ndarray:
    """Score each full text by a call of its own: ``[n, choices]`` losses."""
    losses = []
    for row in rows:
        for tokens in row:
            ids = torch.tensor([tokens])
            with torch.inference_mode():
                mean = network(ids, labels=ids).loss
            losses.append(float(mean) * (len(tokens) - 1))
    return np.array(losses).reshape(len(rows), -1)


def padded(network: Any, texts: list[list[int]], batch: int = 16) -> np.ndarray:
    """Score full texts in padded batches with logits everywhere: ``[n]`` losses."""
    losses = []
    for start in range(0, len(texts), batch):
        some = texts[start : start + batch]
        width = max(map(len, some))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in some])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in some])
        with torch.inference_mode():
            logits = network(input_ids=ids, attention_mask=mask).logits
            each = torch.nn.functional.cross_entropy(
                logits[:, :-1].transpose(1, 2).float(), ids[:, 1:], reduction="none"
            )
        losses.append((each * mask[:, 1:]).sum(dim=1))
    return torch.cat(losses).numpy()


def take_turns(
    sides: dict[str, Callable[[], np.ndarray]], texts: int, repeats: int
) -> dict[str, Any]:
    """Run the sides in turns; return core-seconds, texts per core-second and the differences."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    values: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        for side, run in sides.items():
            began = time.process_time()
            values[side] = run()
            seconds[side].append(time.process_time() - began)
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    reference = next(side for side in sides if side != "gotd")
    return {
        "texts_per_core_s": {side: texts / median for side, median in medians.items()},
        "speed_up": {s: m / medians["gotd"] for s, m in medians.items() if s != "gotd"},
        "largest_relative_difference": float(
            np.max(np.abs(values["gotd"] / values[reference] - 1))
        ),
        "core_s": seconds,
    }


def compare_choices(
    network: Any, tokenizer: Any, rows: pa.Table, prompt: Prompt, repeats: int
) -> Any:
    """Compare the three ways to score the choices of a task."""
    full = instances(tokenizer, rows, prompt)
    flat = [tokens for row in full for tokens in row]
    likelihood = Likelihood(network)
    return take_turns(
        {
            "gotd": lambda: np.array(
                score_choices(likelihood, tokenizer, rows, prompt, full_text=True)[
                    "losses"
                ].to_pylist()
            ),
            "each text alone": lambda: alone(network, full),
            "padded batches": lambda: padded(network, flat).reshape(len(full), -1),
        },
        len(flat),
        repeats,
    )


def compare_perplexity(network: Any, tokenizer: Any, texts: list[str], repeats: int) -> Any:
    """Compare the two ways to compute perplexities of passages."""
    table = pa.table({"id": [str(i) for i in range(len(texts))], "text": texts})
    settings = PerplexitySettings(long_texts="cut")
    start = tokenizer.bos_token_id
    most = network.config.max_position_embeddings
    rows = [[start, *tokenizer(text)["input_ids"]][:most] for text in texts]
    likelihood = Likelihood(network)
    return take_turns(
        {
            "gotd": lambda: text_losses(likelihood, tokenizer, table, settings)["loss"].to_numpy(),
            "padded batches": lambda: padded(network, rows),
        },
        len(texts),
        repeats,
    )


def as_markdown(result: dict[str, Any]) -> str:
    """Format the result as Markdown."""
    lines = [
        "# Zero-shot scoring and perplexity against plain transformers",
        "",
        f"{result['model']} from its configuration, {result['texts']} questions or passages, "
        f"medians of {result['repeats']} turns; texts a second of one core (a choice's full text "
        "is a text). The largest difference is relative, of our losses to the next side's.",
        "",
        "| what | arithmetic | gotd | each text alone | padded batches | times each alone "
        "| times padded | largest difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in result["comparisons"]:
        speed, faster = entry["texts_per_core_s"], entry["speed_up"]
        cells = [
            f"{speed[side]:.1f}" if side in speed else ""
            for side in ("gotd", "each text alone", "padded batches")
        ]
        ratios = [
            f"{faster[side]:.2f}" if side in faster else ""
            for side in ("each text alone", "padded batches")
        ]
        difference = f"{entry['largest_relative_difference']:.1e}"
        row = [entry["what"], entry["precision"], *cells, *ratios, difference]
        lines.append(f"| {' | '.join(row)} |")
    machine = ", ".join(f"{key} {value}" for key, value in result["hardware"].items())
    command = f"Command: `{result['command']}`"
    return "\n".join([*lines, "", f"Hardware: {machine}.", "", command, ""])


def main() -> None:
    """Run all comparisons, and write the page and the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--texts", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", choices=SIZES, default="gpt2")
    parser.add_argument("--precisions", default="float32,bf16")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    precisions = arguments.precisions.split(",")
    if unknown := set(precisions) - {"float32", "bf16"}:
        parser.error(f"--precisions: there is no {min(unknown)!r}; choose from float32, bf16")
    if "DATA" not in os.environ:
        raise SystemExit("set DATA to the folder that holds domain/, zeroshot/ and candidates/")
    tables, passages = load_rows(arguments.texts)
    comparisons = []
    with tempfile.TemporaryDirectory() as name:
        spec = CausalSpec(vocabulary_size=50_257, max_length_tokens=1024, **SIZES[arguments.model])  # type: ignore[arg-type]
        build_model(spec, passages, 0, Path(name))
        for precision in precisions:
            network, tokenizer = load_for_scoring(Path(name), precision)
            for task, (rows, prompt) in tables.items():
                found = compare_choices(network, tokenizer, rows, prompt, arguments.repeats)
                comparisons.append({"what": f"choices of {task}", "precision": precision, **found})
            some = passages[: arguments.texts]
            found = compare_perplexity(network, tokenizer, some, arguments.repeats)
            comparisons.append({"what": "perplexity", "precision": precision, **found})
            print(json.dumps(comparisons[-3:], indent=1), flush=True)
    result = {
        "command": "python " + " ".join(["experiments/benchmarks/zero_shot.py", *sys.argv[1:]]),
        "model": {"gpt2": "GPT-2 of 124M weights", "small": "a GPT-2 of 16M weights"}[
            arguments.model
        ],
        "texts": arguments.texts,
        "repeats": arguments.repeats,
        "comparisons": comparisons,
        "hardware": {**hardware(), "threads": torch.get_num_threads()},
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "zero_shot.json").write_text(json.dumps(result, indent=2) + "\n")
    (arguments.out / "zero_shot.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
