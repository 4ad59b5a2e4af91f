"""Utility tasks by lm-evaluation-harness, from local rows and local task files.

The harness asks its own tasks from the Hub; here the same words stand in files that are
written beside the rows, so that a machine without a network gets the numbers that the
literature calls ``acc`` and ``acc_norm``. `gotd.evaluation.zero_shot` gives the same ones
faster; this is the outside check, and the way to any other task of the harness.

Needs the extra ``harness`` (lm-eval).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

_ACC, _NORM = {"metric": "acc"}, {"metric": "acc_norm"}

TASKS: Mapping[str, Mapping[str, Any]] = {
    "arc_easy": {
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "metric_list": [_ACC, _NORM],
    },
    "openbookqa": {
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "metric_list": [_ACC, _NORM],
    },
    "piqa": {
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "metric_list": [_ACC, _NORM],
    },
    "boolq": {
        "doc_to_text": "{{passage}}\nQuestion: {{question}}?\nAnswer:",
        "doc_to_choice": ["no", "yes"],
        "doc_to_target": "{{label}}",
        "metric_list": [_ACC],
    },
    # What differs stands before the gap, so the context is the choice and the rest the target.
    "winogrande": {
        "doc_to_text": "label",
        "doc_to_choice": "{{contexts}}",
        "doc_to_target": "{{after}}",
        "metric_list": [_ACC],
    },
}
"""How the harness (0.4.13) asks each task; columns are those of the folder ``zeroshot/``."""


def write_task(name: str, rows: pa.Table, folder: Path) -> None:
    """Write the rows of a task as JSON lines and, beside them, its task file.

    Args:
        name: One of `TASKS`.
        rows: ``question``, ``label`` and ``choices`` (``passage`` for boolq).
        folder: Receives ``<name>.jsonl`` and ``<name>.yaml``.

    Raises:
        ValueError: If the task is unknown.
    """
    if name not in TASKS:
        raise ValueError(f"unknown utility task {name!r}; use one of {', '.join(TASKS)}")
    folder.mkdir(parents=True, exist_ok=True)
    records = rows.to_pylist()
    if name == "winogrande":
        for record in records:
            before, _, after = record["question"].partition("_")
            record["contexts"] = [before + choice for choice in record["choices"]]
            record["after"] = after.strip()
    lines = folder / f"{name}.jsonl"
    lines.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    task = {
        "task": _local(name),
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(lines.resolve())},
            "cache_dir": str((folder / "cache").resolve()),
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        **TASKS[name],
    }
    # JSON is YAML, and needs no library of its own to be written.
    text = json.dumps(task, indent=1)
    (folder / f"{_local(name)}.yaml").write_text(text, encoding="utf-8")


def utility(
    model: Path,
    tasks: Mapping[str, pa.Table],
    work: Path,
    batch_size: int = 8,
    samples: bool = False,
) -> dict[str, dict[str, Any]]:
    """Run the harness over local rows.

    Args:
        model: Folder of a causal language model.
        tasks: Rows by task, as `write_task` takes them.
        work: Folder for rows, task files and the harness's cache.
        batch_size: Sequences the harness reads at once.
        samples: Also give ``losses``: per row the loss of each choice, in nats.

    Returns:
        Per task ``acc``, where the harness has it ``acc_norm``, and ``rows``.

    Raises:
        ImportError: If lm-eval is not installed.
        ValueError: If a task is unknown.
    """
    for name, rows in tasks.items():
        write_task(name, rows, work)
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ImportError(
            "the utility tasks need lm-evaluation-harness: pip install 'gotd[harness]'"
        ) from error
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    language_model = HFLM(
        pretrained=str(model), device=device, batch_size=batch_size, dtype="float32"
    )
    answer: Any = simple_evaluate(
        model=language_model,
        tasks=[_local(name) for name in tasks],
        task_manager=TaskManager(include_path=str(work), include_defaults=False),
        bootstrap_iters=0,
        log_samples=samples,
    )
    found = {}
    for name, rows in tasks.items():
        scores = answer["results"][_local(name)]
        found[name] = {
            metric: float(scores[f"{metric},none"])
            for metric in ("acc", "acc_norm")
            if f"{metric},none" in scores
        } | {"rows": rows.num_rows}
        if samples:
            asked = sorted(answer["samples"][_local(name)], key=lambda sample: sample["doc_id"])
            found[name]["losses"] = [
                [-float(likelihood) for likelihood, _ in sample["filtered_resps"]]
                for sample in asked
            ]
    return found


def _local(name: str) -> str:
    return f"gotd_{name}"
