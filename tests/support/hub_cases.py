"""The cells of each experiment at the scale of the paper that run on a stand-in of the Hub.

Budgets, rows and epochs are small; models, data sets and their files have their published names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hub_models import detoxify
from hub_rows import texts
from instruction_rows import CHOICE_ROWS

SMALL = (
    "seed=1 tracker=none hydra/launcher=basic limits.target_rows=40 "
    "limits.reported_rows=40 limits.validation_rows=8"
)
POOL = "source.chars_per_domain=20000"
"""Characters of each corpus."""
ONCE = "pre_fine_tune.epochs=1 fine_tune.epochs=1"
STAGES = f"limits.labels=24 {ONCE}"
TOXIC = (
    f"budget=16 {POOL} source.held_out_chars=20000 task.prompts_per_kind=4 task.target_rows=40 "
    "task.held_out_rows=8 evaluation.generation.samples=3 pre_fine_tune.epochs=1"
)
ANSWERED = f"{POOL} rank_rows=16 task.evaluated_rows=8 pre_fine_tune.epochs=1"
DATA = "data"
"""Folder of the rows that are not of the Hub, and of a checkpoint of a scorer."""
GAP = (
    f"task=gap_biomedical budget=16 rank_rows=16 source.path={DATA} source.pool_chars=30000 "
    "source.target_chars=1500 source.evaluation_texts=5 source.pretraining_chars=10000 "
    "pre_fine_tune.epochs=1"
)
CHECKPOINT = f"{DATA}/toxic.ckpt"


@dataclass(frozen=True)
class Line:
    """A command of an experiment.

    Args:
        experiment: Its name, and another scale than ``paper`` after a stroke.
        axes: Tasks, selectors and what else is swept.
        given: The other overrides, after `SMALL`.
        cells: How many cells it has.
        offline: The axes of the cell that runs without a network, after `gotd fetch --models`.
    """

    experiment: str
    axes: str
    given: str
    cells: int
    offline: str = ""

    @property
    def overrides(self) -> list[str]:
        """Return the overrides of the command."""
        return self._overrides(self.axes)

    @property
    def cell(self) -> list[str]:
        """Return the overrides of the cell that runs without a network."""
        return self._overrides(self.offline)

    def _overrides(self, axes: str) -> list[str]:
        name, _, scale = self.experiment.partition("/")
        return f"experiment={name} scale={scale or 'paper'} {SMALL} {axes} {self.given}".split()


LINES = [
    Line(
        "glue",
        "task=rte,stsb selector=none,dsir,got_d",
        f"budget=16 {POOL} {STAGES}",
        6,
        "task=stsb selector=got_d",
    ),
    Line("glue", "task=cola,mrpc,sst2,qnli,qqp,mnli selector=none", f"{POOL} {STAGES}", 6),
    Line(
        "glue",
        "task=rte selector=got_d",
        f"budget=16 pre_fine_tune.tuning=lora {POOL} {STAGES}",
        1,
    ),
    Line(
        "glue",
        "task=rte selector=random model=roberta_base,distilbert",
        f"embedder=bert_tokens budget=16 {POOL} {STAGES}",
        2,
    ),
    Line(
        "labels",
        "selector=none,random limits.labels=24,40",
        f"budget=16 {POOL} {ONCE}",
        4,
        "selector=random limits.labels=40",
    ),
    Line("domain", "selector=none", f"{POOL} {STAGES}", 8),
    Line(
        "domain",
        "task=chemprot,imdb selector=tsds,got_d",
        f"budget=16 {POOL} {STAGES}",
        4,
        "task=imdb selector=got_d",
    ),
    Line(
        "toxicity",
        "selector=none,least_toxic,got_d_contrast",
        f"{TOXIC} evaluation.scorer.checkpoint={CHECKPOINT}",
        3,
        "selector=least_toxic",
    ),
    Line(
        "toxicity",
        "selector=random evaluation=toxicity_two_scorers",
        f"{TOXIC} evaluation.scorer.checkpoint={CHECKPOINT}",
        1,
        "selector=got_d evaluation=toxicity_two_scorers",
    ),
    Line("zeroshot", "selector=none,got_d budget=8,16", ANSWERED, 3, "selector=got_d budget=8"),
    Line("zeroshot", "selector=got_d budget=16", f"{ANSWERED} pre_fine_tune.tuning=lora", 1),
    Line(
        "zeroshot/paper_boolq",
        "selector=none,got_d budget=16",
        ANSWERED,
        2,
        "selector=none budget=16",
    ),
    Line("gap", "selector=none,got_d", GAP, 2, "selector=got_d"),
    Line(
        "instruction",
        "selector=none,got_d task=mmlu",
        f"budget=100 rank_rows=100 source.path={DATA} pre_fine_tune.epochs=1 "
        "evaluation.max_new_tokens=4 embedder.dimension=64 embedder.warm_up_rows=8",
        2,
        "selector=got_d task=mmlu",
    ),
]


def write_data(folder: Path) -> None:
    """Write the passages, instructions and checkpoint that are not of the Hub."""
    domains = "books encyclopedia forum movie_reviews news speeches tech_docs biomedical cs_papers"
    for seed, domain in enumerate([*domains.split(), "math"]):
        found = texts(120, 100, seed)
        columns = {"id": [f"{domain}-{i}" for i in range(120)], "text": found, "domain": domain}
        place = folder / "candidates" / f"{domain}-00.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        columns["domain"] = pa.repeat(domain, 120)
        pq.write_table(pa.table(columns), place)
    prompts, responses = texts(60, 8, 1).to_pylist(), texts(60, 8, 2).to_pylist()
    rows = [
        {"id": f"p{i}", "prompt": prompt, "response": response}
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
    ]
    target = folder / "instruction" / "targets" / "mmlu"
    _write_lines(folder / "instruction" / "pool" / "rows.jsonl", rows)
    _write_lines(target / "examples.jsonl", CHOICE_ROWS[:4])
    _write_lines(target / "test.jsonl", CHOICE_ROWS[4:])
    (folder / "toxic.ckpt").write_bytes(detoxify())


def _write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
