"""Names and settings of the paper's tables in our terms."""

from __future__ import annotations

TABLES_OF = {"glue": (4, 12), "domain": (2, 3), "toxicity": (1, 6, 7), "zeroshot": (16, 17, 18)}
# Embedder of the rows of Table 17, which compares embedding spaces.
SPACE_OF = {
    "DistilBERT (target-tuned)": "distilbert",
    "sentence-transformer MiniLM-L6": "minilm",
    "BERT token space": "bert_tokens",
}
_AS_IN_CONF = ("CoLA", "MNLI", "MRPC", "QQP", "RTE", "SST-2", "STS-B", "QNLI", "RCT", "ChemProt")
TASK_OF = {
    **{name: name.lower().replace("-", "") for name in _AS_IN_CONF},
    **{name: name.lower() for name in ("SciERC", "AGNews", "IMDB", "BoolQ")},
    "ACL-ARC": "acl_arc",
    "HyperP.": "hyperpartisan",
    "Helpf.": "helpfulness",
    "AG News": "agnews",
}
AVERAGES = ("avg", "AVG")
TOXICITY = "toxicity"  # the one task of tables 1, 6 and 7
BY_SCORES = {
    "EMT toxic": "expected_max_toxicity/toxic",
    "EMT nontoxic": "expected_max_toxicity/nontoxic",
    "TP toxic": "toxicity_probability/toxic",
    "TP nontoxic": "toxicity_probability/nontoxic",
}
# Columns that are measures of one task, by table: the metric of our records.
MEASURES_OF_TABLE = {
    1: {**BY_SCORES, "OWTC PPL": "mean_text_perplexity", "utility acc": "utility_accuracy"},
    6: {column: f"second/{metric}" for column, metric in BY_SCORES.items()},
    7: {
        "avg": "utility_accuracy",
        **{
            column: f"utility/{column.lower()}"
            for column in (
                *("ANLI", "BoolQ", "HellaSwag", "LAMBADA"),
                *("PIQA", "RACE", "WiC", "WinoGrande"),
            )
        },
    },
}
IN_PERCENT = (7,)  # tables of measures that are printed times 100
SCALE = "paper"  # the scale whose data and models are the published ones
# Budget and label limit of each fine-tuning block (None: all labels); elsewhere a block's
# name is its budget and there are no labels to limit.
SETTING_OF: dict[tuple[int, str], tuple[int, int | None]] = {
    (2, "150k"): (150_000, None),
    (3, "50k"): (50_000, 5_000),
    (4, "all"): (50_000, None),
    (4, "5k"): (50_000, 5_000),
    (12, "20k"): (20_000, 5_000),
}
