"""Compare the measurements of a toxicity cell with plain calls of other libraries.

Prompts are continued 25 times by 20 tokens. We compare with `generate` prompt after prompt, and
with `generate` over left-padded batches as large as ours. Scores are compared with Detoxify's own
class, which gets a list at a time: the 25 continuations of a prompt, or 32 comments.
Perplexity is compared with one call for each text and with padded batches.

The models are a GPT-2 and a BERT of the published shapes, built from their configuration. Their
speed depends on their weights in one place only: the nucleus, which must be sorted. With random
weights it is nearly the whole vocabulary. So GPT-2's last norm is scaled until its next-token
entropy is about that of a trained model.

    DATA=../shared/data python experiments/benchmarks/toxicity.py
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from side_by_side import (
    Contender,
    Outcome,
    claim,
    claims_table,
    command,
    describe_machine,
    number,
    options,
    pin,
    ratio,
    table,
    take_turns,
    write,
)
from transformers import AutoModelForCausalLM, AutoTokenizer
from zero_shot import alone, padded

from gotd.evaluation.generation import GenerationSettings, continue_prompts
from gotd.evaluation.likelihood import Likelihood, load_for_scoring
from gotd.evaluation.perplexity import PerplexitySettings, text_losses
from gotd.evaluation.scorers.detoxify import DetoxifyScorer
from gotd.training.causal_models import CausalSpec
from gotd.training.models import ModelSpec, build_model
from gotd.training.randomness import TrainingSeeds
from gotd.training.scorer import CHECKPOINT, ScorerSettings, train_scorer

OURS = "gotd"
SETTINGS = GenerationSettings()
LIST = 32
"""Comments in one call of Detoxify, where they do not come by prompt."""
ENTROPY_NATS = 4.0
"""Entropy of the next token that GPT-2's last norm is scaled to."""


@dataclass(frozen=True)
class Sizes:
    """Amounts of text, and the shapes of the models."""

    prompts: int = 2
    continuations: int = 50
    comments: int = 20
    passages: int = 8
    layers: int = 12
    hidden_size: int = 768
    heads: int = 12
    vocabulary: int = 50_257


QUICK = Sizes(2, 10, 4, 2, layers=2, hidden_size=64, heads=2, vocabulary=400)


@dataclass(frozen=True)
class Texts:
    """Texts of the comparisons."""

    prompts: list[str]
    continuations: list[str]
    comments: list[str]
    passages: list[str]
    origin: str


def load_texts(sizes: Sizes, seed: int) -> Texts:
    """Read prompts, comments and passages, or generate some without ``DATA``."""
    random = np.random.default_rng(seed)
    if not os.environ.get("DATA"):
        words = ["data", "chosen", "by", "how", "it", "moves", "pools", "towards", "what", "tasks"]

        def some(n: int, least: int, most: int) -> list[str]:
            return [" ".join(random.choice(words, random.integers(least, most))) for _ in range(n)]

        return Texts(
            some(sizes.prompts, 5, 15),
            some(sizes.continuations, 5, 20),
            some(sizes.comments, 5, 120),
            some(sizes.passages, 100, 250),
            "generated texts",
        )
    data = Path(os.environ["DATA"])

    def draw(file: str, column: str, n: int) -> list[str]:
        rows = pq.read_table(data / file, columns=[column])[column].to_pylist()
        return [rows[i] for i in random.permutation(len(rows))[:n]]

    return Texts(
        draw("toxicity/realtoxicityprompts.parquet", "prompt", sizes.prompts),
        draw("toxicity/realtoxicityprompts.parquet", "continuation", sizes.continuations),
        draw("toxicity/wiki_comments/test.parquet", "text", sizes.comments),
        draw("candidates/news-reuters.parquet", "text", sizes.passages),
        "RealToxicityPrompts and their continuations, Wikipedia comments, Reuters passages",
    )


def make_models(folder: Path, sizes: Sizes, texts: Texts, seed: int) -> float:
    """Write the folders ``gpt`` and ``scorer``; return the entropy of the first, in nats."""
    known = [*texts.prompts, *texts.continuations, *texts.comments, *texts.passages]
    spec = CausalSpec(
        vocabulary_size=sizes.vocabulary,
        layers=sizes.layers,
        hidden_size=sizes.hidden_size,
        heads=sizes.heads,
        feed_forward_size=4 * sizes.hidden_size,
        max_length_tokens=1024,
    )
    build_model(spec, known, seed, folder / "gpt")
    network, tokenizer = load_for_scoring(folder / "gpt")
    # All write as many tokens: the one that ends a text has a middling logit, off the nucleus.
    network.get_output_embeddings().weight.data[tokenizer.eos_token_id] = 0.0
    entropy, least, most = math.nan, 1.0, 64.0
    while most / least > 1.01:
        middle = math.sqrt(least * most)
        network.transformer.ln_f.weight.data.fill_(middle)
        entropy = _entropy(network, tokenizer, texts.prompts)
        least, most = (least, middle) if entropy < ENTROPY_NATS else (middle, most)
    network.save_pretrained(folder / "gpt")
    bert = ModelSpec(
        tokenizer="wordpiece",
        vocabulary_size=30_522,
        layers=sizes.layers,
        hidden_size=sizes.hidden_size,
        heads=sizes.heads,
        feed_forward_size=4 * sizes.hidden_size,
        max_length_tokens=512,
    )
    build_model(bert, known, seed, folder / "bert")
    untrained = ScorerSettings(learning_rate=0.0, epochs=0, max_length_tokens=512)
    labels = np.arange(len(known)) % 2
    train_scorer(
        folder / "bert",
        known,
        labels,
        untrained,
        TrainingSeeds.derive(seed),
        folder / "work",
        folder / "scorer",
    )
    return entropy


def _entropy(network: Any, tokenizer: Any, texts: list[str]) -> float:
    """Return the mean entropy of the token after each text."""
    found = []
    for text in texts:
        with torch.inference_mode():
            logits = network(**tokenizer(text, return_tensors="pt")).logits[0, -1]
        found.append(torch.distributions.Categorical(logits=logits).entropy())
    return float(torch.stack(found).mean())


def generation(model: Path, prompts: list[str], seed: int) -> list[Contender]:
    """Return the ways to continue prompts; each returns the tokens it wrote."""
    rows = pa.table({"id": [f"p{i}" for i in range(len(prompts))], "text": prompts})
    tokens = len(prompts) * SETTINGS.samples * SETTINGS.max_new_tokens

    def ours() -> Callable[[], int]:
        network, tokenizer = load_for_scoring(model)

        def run() -> int:
            written = continue_prompts(network, tokenizer, rows, SETTINGS, seed)
            return tokens if written.num_rows == len(prompts) else 0

        return run

    def theirs(batch: int) -> Callable[[], Callable[[], int]]:
        def prepare() -> Callable[[], int]:
            network = AutoModelForCausalLM.from_pretrained(model).eval()
            tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
            end = tokenizer.eos_token_id
            tokenizer.pad_token_id = end

            def run() -> int:
                torch.manual_seed(seed)
                written = 0
                for start in range(0, len(prompts), batch):
                    some = tokenizer(
                        prompts[start : start + batch], return_tensors="pt", padding=True
                    )
                    found = network.generate(
                        **some,
                        do_sample=True,
                        top_p=SETTINGS.top_p,
                        top_k=0,
                        max_new_tokens=SETTINGS.max_new_tokens,
                        num_return_sequences=SETTINGS.samples,
                        pad_token_id=end,
                    )
                    written += int((found[:, some["input_ids"].shape[1] :] != end).sum())
                return written

            return run

        return prepare

    together = max(1, SETTINGS.per_device_batch_size // SETTINGS.samples)
    return [
        Contender(OURS, ours),
        Contender("generate, prompt after prompt", theirs(1)),
        Contender("generate, padded batches", theirs(together)),
    ]


def scoring(scorer: Path, texts: list[str], at_once: int) -> list[Contender]:
    """Return the two ways to score texts; each returns ``[n]`` scores."""

    def ours() -> Callable[[], np.ndarray]:
        mine = DetoxifyScorer(str(scorer / CHECKPOINT))
        mine.score(texts[:1])
        return lambda: mine.score(texts)

    def theirs() -> Callable[[], np.ndarray]:
        from detoxify import Detoxify

        os.chdir(scorer)  # a checkpoint names its configuration by where it stands
        library = Detoxify(checkpoint=CHECKPOINT)

        def run() -> np.ndarray:
            lists = [texts[i : i + at_once] for i in range(0, len(texts), at_once)]
            return np.concatenate([np.atleast_1d(library.predict(x)["toxicity"]) for x in lists])

        return run

    return [Contender(OURS, ours), Contender("Detoxify.predict", theirs, ("detoxify",))]


def perplexity(model: Path, passages: list[str]) -> list[Contender]:
    """Return the ways to compute losses; each returns ``[n]`` sums, in nats."""
    rows = pa.table({"id": [f"t{i}" for i in range(len(passages))], "text": passages})
    settings = PerplexitySettings(long_texts="cut")

    def prepare(way: str) -> Callable[[], np.ndarray]:
        network, tokenizer = load_for_scoring(model)
        most = network.config.max_position_embeddings
        likelihood = Likelihood(network)

        def encoded() -> list[list[int]]:
            start = tokenizer.bos_token_id
            return [[start, *tokenizer(text)["input_ids"]][:most] for text in passages]

        ways: dict[str, Callable[[], np.ndarray]] = {
            OURS: lambda: text_losses(likelihood, tokenizer, rows, settings)["loss"].to_numpy(),
            "each text alone": lambda: alone(network, [[row] for row in encoded()])[:, 0],
            "padded batches": lambda: padded(network, encoded()),
        }
        return ways[way]

    return [
        Contender(way, lambda way=way: prepare(way))
        for way in (OURS, "each text alone", "padded batches")
    ]


def summary(
    what: str, unit: str, amount: int, outcomes: dict[str, Outcome], exact: bool
) -> dict[str, Any]:
    """Return the numbers of one comparison.

    Args:
        what: Name of the comparison.
        unit: What is counted a second.
        amount: How many of them one round handles.
        outcomes: Its measurements.
        exact: Whether all must return the same numbers; their largest difference is reported.
    """
    ours = outcomes[OURS]
    rows, differences = {}, []
    for name, outcome in outcomes.items():
        row = outcome.row()
        median = row["median_core_s"]
        row["per_core_s"] = None if median is None else amount / median
        row["ours_is_faster"] = ratio(outcome, ours) if name != OURS else None
        rows[name] = row
        if exact and name != OURS and outcome.value is not None:
            differences.append(float(np.max(np.abs(outcome.value / ours.value - 1.0))))
        if not exact and outcome.value not in (None, amount):
            row["reason"] = f"wrote {outcome.value:,} tokens, not {amount:,}"
    return {
        "what": what,
        "unit": unit,
        "amount": amount,
        "contenders": rows,
        "largest_relative_difference": max(differences, default=None),
    }


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    rows = [
        [
            entry["what"],
            name,
            f"{number(row['per_core_s'])} {entry['unit']}" if row["per_core_s"] else None,
            row["ours_is_faster"],
            row["peak_mib"],
            entry["largest_relative_difference"] if name == OURS else None,
            row["reason"],
        ]
        for entry in result["comparisons"]
        for name, row in entry["contenders"].items()
    ]
    return [
        f"GPT-2 and BERT from their configuration ({result['shape']}), float32, one core, "
        f"{result['rounds']} rounds in turns; texts: {result['texts']}. Loading is not in the "
        f"time, tokenising is. {result['samples']} continuations of {result['new_tokens']} tokens "
        f"a prompt, nucleus .9, the next token's entropy {result['entropy_nats']:.1f} nats. "
        "Differences are relative, of scores and losses.",
        "",
        *table(
            [
                "what",
                "way",
                "a core-second",
                "times as fast is gotd",
                "peak MiB",
                "largest difference",
                "note",
            ],
            rows,
        ),
        "",
        *claims_table(result["claims"]),
    ]


def claims(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the claims: nothing is slower than the plain call, and the numbers agree."""
    found = []
    for entry in comparisons:
        others = [
            (name, row["ours_is_faster"]["median"])
            for name, row in entry["contenders"].items()
            if row["ours_is_faster"] is not None
        ]
        name, least = min(others, key=lambda other: other[1], default=("any plain call", None))
        found.append(claim(f"{entry['what']}: times as fast as {name}", least, 1.0))
        if entry["largest_relative_difference"] is not None:
            says = f"{entry['what']}: largest relative difference"
            found.append(claim(says, entry["largest_relative_difference"], 1e-4, at_most=True))
    return found


def main() -> None:
    """Run all comparisons, and write the page and the JSON file."""
    parser = options(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    pin(arguments.core)
    machine = describe_machine(("torch", "transformers", "detoxify", "gotd"))
    texts = load_texts(sizes, arguments.seed)
    comparisons = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entropy = make_models(folder, sizes, texts, arguments.seed)

        def run(what: str, unit: str, amount: int, contenders: list[Contender]) -> None:
            outcomes = take_turns(contenders, arguments.rounds, arguments.limit)
            comparisons.append(
                summary(what, unit, amount, outcomes, exact=unit != "tokens written")
            )

        written = sizes.prompts * SETTINGS.samples * SETTINGS.max_new_tokens
        found = generation(folder / "gpt", texts.prompts, arguments.seed)
        run("generation", "tokens written", written, found)
        by_prompt = scoring(folder / "scorer", texts.continuations, SETTINGS.samples)
        run("scoring continuations", "texts", len(texts.continuations), by_prompt)
        mixed = scoring(folder / "scorer", texts.comments, LIST)
        run("scoring comments", "texts", len(texts.comments), mixed)
        tokenizer = AutoTokenizer.from_pretrained(folder / "gpt")
        read = sum(min(1023, len(row)) for row in tokenizer(texts.passages)["input_ids"])
        run("perplexity", "tokens read", read, perplexity(folder / "gpt", texts.passages))
    result = {
        "command": command(),
        "hardware": machine,
        "seeds": {"texts, weights, sampling": arguments.seed},
        "texts": texts.origin,
        "shape": f"{sizes.layers} layers of {sizes.hidden_size}",
        "samples": SETTINGS.samples,
        "new_tokens": SETTINGS.max_new_tokens,
        "entropy_nats": entropy,
        "rounds": arguments.rounds,
        "comparisons": comparisons,
        "claims": claims(comparisons),
    }
    title = "Toxicity: gotd against transformers and Detoxify called plainly"
    write(arguments, result, title, as_page(result))


if __name__ == "__main__":
    main()
