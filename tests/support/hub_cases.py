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
    f"{POOL} source.held_out_chars=20000 task.prompts_per_kind=4 task.target_rows=40 "
    "task.held_out_rows=8 evaluation.generation.samples=3 pre_fine_tune.epochs=1"
)
ANSWERED = f"{POOL} task.evaluated_rows=8 pre_fine_tune.epochs=1"
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
        experiment: Its name.
        given: Overrides, after `SMALL`.
        cells: How many cells it has.
        offline: Whether it runs again without a network, after `gotd fetch --models`.
    """

    experiment: str
    given: str
    cells: int
    offline: bool = False

    @property
    def overrides(self) -> list[str]:
        """Return the overrides of the command."""
        name, _, scale = self.experiment.partition("/")
        chosen = f"experiment={name} scale={scale or 'paper'} {SMALL} {self.given}"
        return chosen.split()


LINES = [
    Line("glue", f"task=rte,stsb selector=none,dsir,got_d budget=16 {POOL} {STAGES}", 6, True),
    Line("glue", f"task=cola,mrpc,sst2,qnli,qqp,mnli selector=none budget=16 {POOL} {STAGES}", 6),
    Line("glue", f"task=rte selector=got_d budget=16 pre_fine_tune.tuning=lora {POOL} {STAGES}", 1),
    Line(
        "glue",
        f"task=rte model=roberta_base,distilbert selector=random budget=16 {POOL} {STAGES} "
        "embedder=bert_tokens",
        2,
    ),
    Line("labels", f"limits.labels=24,40 selector=none,random budget=16 {POOL} {ONCE}", 4, True),
    Line("domain", f"selector=none budget=16 {POOL} {STAGES}", 8),
    Line("domain", f"task=chemprot,imdb selector=tsds,got_d budget=16 {POOL} {STAGES}", 4, True),
    Line(
        "toxicity",
        f"selector=none,least_toxic,got_d_contrast budget=16 {TOXIC} "
        f"evaluation.scorer.checkpoint={CHECKPOINT}",
        3,
        True,
    ),
    Line(
        "toxicity",
        f"selector=random budget=16 evaluation=toxicity_two_scorers {TOXIC} "
        f"evaluation.scorer.checkpoint={CHECKPOINT}",
        1,
    ),
    Line("zeroshot", f"selector=none,got_d budget=8,16 rank_rows=16 {ANSWERED}", 3, True),
    Line(
        "zeroshot",
        f"selector=got_d budget=16 rank_rows=16 pre_fine_tune.tuning=lora {ANSWERED}",
        1,
    ),
    Line("zeroshot/paper_boolq", f"selector=none,got_d budget=16 rank_rows=16 {ANSWERED}", 2, True),
    Line(
        "gap",
        f"selector=none,got_d {GAP}",
        2,
        True,
    ),
    Line(
        "instruction",
        f"selector=none,got_d task=mmlu budget=100 rank_rows=100 source.path={DATA} "
        "pre_fine_tune.epochs=1 evaluation.max_new_tokens=4 embedder.dimension=64 "
        "embedder.warm_up_rows=8",
        2,
        True,
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
