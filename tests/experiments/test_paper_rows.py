"""Every row of the paper's tables has a command: it composes at the published setting and runs."""

from pathlib import Path

import pytest

from gotd.data.hub.corpora import CORPORA
from gotd.pipeline.experiment import run_cell
from gotd.reporting.paper import AVERAGES, MEASURES_OF_TABLE, SETTING_OF, TASK_OF, TOXICITY
from gotd.reporting.published import read_published
from gotd.runs.expand import expand
from gotd.selectors.registry import arm_of

PUBLISHED = read_published(Path(__file__).parents[2] / "results" / "paper")

BOOLQ = ["experiment=zeroshot", "scale=paper_boolq"]
# The command of each published block, its row apart: (table, block) to overrides.
COMMANDS = {
    (2, "150k"): ["experiment=domain", "scale=paper"],
    (3, "50k"): ["experiment=domain", "scale=paper_few_labels"],
    (4, "all"): ["experiment=glue", "scale=paper", "limits.labels=null"],
    (4, "5k"): ["experiment=glue", "scale=paper"],
    (12, "20k"): ["experiment=glue", "scale=paper", "budget=20000"],
    (16, "0"): ["experiment=zeroshot", "scale=paper"],
    **{
        (table, f"{k}k"): ["experiment=zeroshot", "scale=paper", f"budget={k}000"]
        for table, k in [(16, 5), (16, 10), (16, 20), (16, 40), (17, 5), (17, 20)]
    },
    (18, "0"): BOOLQ,
    (18, "40k"): BOOLQ,
    **{
        (table, block): ["experiment=toxicity", "scale=paper", *budget, *scorers]
        for table, scorers in [
            (1, []),
            (6, ["evaluation=toxicity_two_scorers"]),
            (7, ["evaluation=toxicity_utility_hub"]),
        ]
        for block, budget in [("0", []), ("10k", []), ("20k", ["budget=20000"])]
    },
}
# What a row adds where it is not an arm of the same name (an embedding space, a scorer).
ROWS: dict[tuple[int, str], list[str]] = {
    (17, "DistilBERT (target-tuned)"): ["selector=got_d", "embedder=distilbert"],
    (17, "sentence-transformer MiniLM-L6"): ["selector=got_d", "embedder=minilm"],
    (17, "BERT token space"): ["selector=got_d", "embedder=bert_tokens"],
}
# Tables whose experiments are not there yet.
PENDING: set[int] = set()
# The same cell in seconds: experiment to overrides.
SMALL = {
    "domain": [
        "experiment=domain/micro",
        "task=rct",
        "source.rare_share=0.1",
        "source.labels=60",
        "source.evaluation_rows=50",
        "fine_tune.epochs=1",
    ],
    "glue": [
        "experiment=glue/micro",
        "task=sst2",
        "source.labels=60",
        "source.evaluation_rows=50",
        "limits.validation_rows=20",
        "fine_tune.epochs=1",
    ],
    "zeroshot": [
        "experiment=zeroshot/micro",
        "source.evaluation_rows=40",
        "limits.target_rows=60",
        "model.spec.layers=1",
        "pre_fine_tune.epochs=1",
        "fine_tune.epochs=1",
        "rank_rows=20",
    ],
    "toxicity": [
        "experiment=toxicity/micro",
        "source.rated_rows=300",
        "source.comments=100",
        "source.held_out_documents=20",
        "model.pretraining.epochs=0.5",
        "task.prompts_per_kind=6",
        "task.target_rows=30",
        "task.held_out_rows=10",
        "evaluation.generation.samples=2",
        "evaluation.scorer.settings.epochs=1",
    ],
}
TINY_WORLD = [
    "seed=1001",
    "tracker=none",
    "budget=20",
    "source.pretraining_documents=400",
    "source.candidate_documents=2000",
    "model.pretraining.epochs=1",
]


def choices(table: int, rows: set[str]) -> dict[tuple[str, ...], set[str]]:
    """Give the overrides that add a table's rows to its command, each with the arms it means."""
    arms = {arm_of(row) for row in rows if (table, row) not in ROWS}
    found: dict[tuple[str, ...], set[str]] = {}
    if arms:
        found[(f"selector={','.join(sorted(arms))}",)] = arms
    for row in rows:
        if (table, row) in ROWS:
            found[tuple(ROWS[table, row])] = set()
    return found


def test_every_table_has_a_command_or_is_pending():
    assert {(e.table, e.block) for e in PUBLISHED if e.table not in PENDING} == set(COMMANDS)


@pytest.mark.parametrize(
    ("table", "block"),
    [pytest.param(*c, marks=[] if c[0] in (2, 3) else pytest.mark.slow) for c in COMMANDS],
)
def test_the_rows_of_a_block_compose_at_its_setting(table, block):
    entries = [e for e in PUBLISHED if (e.table, e.block) == (table, block)]
    measures = MEASURES_OF_TABLE.get(table, {})
    wanted = {
        TOXICITY if e.column in measures else TASK_OF[e.column]
        for e in entries
        if e.column not in AVERAGES
    }
    for choice, arms in choices(table, {e.row for e in entries}).items():
        cells = [c for c, _ in expand([*COMMANDS[table, block], *choice, "seed=1"])]
        assert {(arm, task) for arm in arms for task in wanted} <= {
            (cell.selector.arm, cell.task.name) for cell in cells
        }
        for cell in cells:
            assert cell.scale_name == "paper"
            if (table, block) in SETTING_OF:
                assert (cell.budget, cell.limits.labels) == SETTING_OF[table, block]


@pytest.mark.parametrize(
    ("overrides", "files", "target_rows"),
    [
        (["experiment=zeroshot", "scale=paper"], ["openwebtext"], 5000),
        (["experiment=toxicity", "scale=paper"], ["openwebtext"], None),
        (BOOLQ, list(CORPORA), None),
    ],
)
def test_a_pool_is_read_and_can_be_changed(overrides, files, target_rows):
    for given, wanted in ((overrides, files), ([*overrides, "candidates=all"], [])):
        config, _ = expand([*given, "selector=got_d", "seed=1"])[0]
        assert config.candidates.files == wanted
        assert config.source.domains == wanted
        assert config.limits.target_rows == target_rows


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """Stand in for the encoders of an embedding ablation, which the Hub would give."""
    from gotd.data.microworld.world import Microworld
    from gotd.training.models import ModelSpec, build_model

    folder = tmp_path_factory.mktemp("encoder")
    build_model(ModelSpec(hidden_size=32, heads=2), Microworld(seed=1001).vocabulary(), 0, folder)
    return folder


OFTEN = ("glue",)
"""The others take longer."""


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(e, marks=[] if e in OFTEN else pytest.mark.slow) for e in SMALL],
)
def test_the_rows_of_an_experiment_run_small(experiment, tiny_encoder, tmp_path):
    tables = {table for (table, _), o in COMMANDS.items() if o[0] == f"experiment={experiment}"}
    assert tables
    wanted = {c for t in tables for c in choices(t, {e.row for e in PUBLISHED if e.table == t})}
    for choice in sorted(wanted):
        overrides = [*TINY_WORLD, *SMALL[experiment], *choice, f"store={tmp_path}"]
        if any(override.startswith("embedder=") for override in choice):
            overrides.append(f"embedder.model={tiny_encoder}")
        for config, variant in expand(overrides):
            record = run_cell(config, variant)
            assert record["status"] == "done", record["error"]
