"""Utility tasks by lm-evaluation-harness, from local rows and local task files.

The harness downloads the rows of its own tasks from the Hub. Here task files with the same
wording are written next to local rows, so that a machine without a network computes what the
literature calls ``acc`` and ``acc_norm``. `gotd.evaluation.zero_shot` computes the same numbers
faster; this is an independent check. With a network the eight tasks of the paper's Table 7 are
evaluated with the harness's own files and rows.

Needs the extra ``harness`` (lm-eval).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import pyarrow as pa

from gotd.storage.checks import check_at_least, check_choice
from gotd.storage.files import write_text
from gotd.training.loading import device_of

_ACC, _NORM = {"metric": "acc"}, {"metric": "acc_norm"}

TASKS: Mapping[str, Mapping[str, Any]] = {
    "arc_easy": {
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "metric_list": [_ACC, _NORM],
    },
    "openbookqa": {
        "doc_to_text": "{{question}}",
        "metric_list": [_ACC, _NORM],
    },
    "piqa": {
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "metric_list": [_ACC, _NORM],
    },
    "boolq": {
        "doc_to_text": "{{passage}}\nQuestion: {{question}}?\nAnswer:",
        "doc_to_choice": ["no", "yes"],
        "metric_list": [_ACC],
    },
    # The choices differ before the gap, so the context is the choice and the rest the target.
    "winogrande": {
        "doc_to_text": "label",
        "doc_to_choice": "{{contexts}}",
        "doc_to_target": "{{after}}",
        "metric_list": [_ACC],
    },
}
"""Wording of each task in the harness (0.4.13); columns are those of the folder ``zeroshot/``.

Choices and target are those of `write_task` where a task has none of its own."""


SPLIT_OF = {"boolq": "validation"}
"""Split of a local task that is evaluated, where it is not ``test``."""

OWN: Mapping[str, Sequence[str]] = {
    "anli": ("anli_r1", "anli_r2", "anli_r3"),
    "boolq": ("boolq",),
    "hellaswag": ("hellaswag",),
    "lambada": ("lambada_openai",),
    "piqa": ("piqa",),
    "race": ("race",),
    "wic": ("wic",),
    "winogrande": ("winogrande",),
}
"""The paper's eight (Table 7) by the names of the harness's own tasks; several are averaged."""

ROWS_FROM = ("source", "harness")


@dataclass(frozen=True)
class UtilitySettings:
    """Settings of the utility tasks.

    Args:
        tasks: Names in `TASKS` for rows of the source, in `OWN` for rows of the harness.
        rows_from: ``source``, or ``harness``: rows and wording that it downloads from the Hub.
        rows: Most rows of a task, its first ones; ``None``: all.
        per_device_batch_size: Sequences the harness reads at once.

    Raises:
        ValueError: If a task is unknown, or a number out of range.
    """

    key_name: ClassVar[str] = "UtilitySettings"

    tasks: tuple[str, ...]
    rows_from: str = "source"
    rows: int | None = None
    per_device_batch_size: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        check_choice(self, "rows_from", ROWS_FROM, "utility ")
        check_at_least(self, 1, "rows", "per_device_batch_size", prefix="utility ")
        known = TASKS if self.rows_from == "source" else OWN
        unknown = [name for name in self.tasks if name not in known]
        if unknown or not self.tasks:
            raise ValueError(
                f"utility tasks must be some of {', '.join(known)}, not {list(self.tasks)}"
            )


def measure_utility(
    model: Path, settings: UtilitySettings, read: Callable[[str], pa.Table], work: Path
) -> dict[str, dict[str, Any]]:
    """Evaluate the tasks one after another; a killed run resumes at the next task.

    Args:
        model: Folder of a causal language model.
        settings: Which tasks.
        read: Returns the source's rows of a local task.
        work: Folder for the results of each task.

    Returns:
        Per task ``acc`` and ``rows``; ``acc_norm`` where the harness has it.
    """
    work.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in settings.tasks:
        path = work / f"{name}.json"
        if not path.exists():
            if settings.rows_from == "source":
                rows = read(name).slice(0, settings.rows)
                one, _ = evaluate_local(model, name, rows, work, settings.per_device_batch_size)
            else:
                one = _evaluate_own(model, name, settings)
            write_text(path, json.dumps(one))
        results[name] = json.loads(path.read_text(encoding="utf-8"))
    return results


def write_task(name: str, rows: pa.Table, folder: Path) -> None:
    """Write the rows of a task as JSON lines, and its task file.

    Args:
        name: One of `TASKS`.
        rows: ``question``, ``label`` and ``choices`` (``passage`` for boolq).
        folder: Folder for ``<name>.jsonl`` and ``<name>.yaml``.

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
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        **TASKS[name],
    }
    # JSON is YAML.
    text = json.dumps(task, indent=1)
    (folder / f"{_local(name)}.yaml").write_text(text, encoding="utf-8")


def evaluate_local(
    model: Path, name: str, rows: pa.Table, work: Path, batch_size: int = 8
) -> tuple[dict[str, Any], list[list[float]]]:
    """Run the harness over local rows of one task.

    Args:
        model: Folder of a causal language model.
        name: One of `TASKS`.
        rows: Rows, as `write_task` takes them.
        work: Folder for rows, task files and the harness's cache.
        batch_size: Sequences the harness reads at once.

    Returns:
        ``acc``, where the harness has it ``acc_norm``, and ``rows``; and per row the loss of
        each choice, in nats.

    Raises:
        ImportError: If lm-eval is not installed.
        ValueError: If the task is unknown.
    """
    write_task(name, rows, work)
    answer = _ask(model, [_local(name)], batch_size, include_path=str(work))
    samples = sorted(answer["samples"][_local(name)], key=lambda sample: sample["doc_id"])
    losses = [
        [-float(likelihood) for likelihood, _ in sample["filtered_resps"]] for sample in samples
    ]
    return _scores(answer["results"][_local(name)]) | {"rows": rows.num_rows}, losses


def _evaluate_own(model: Path, name: str, settings: UtilitySettings) -> dict[str, Any]:
    """Evaluate a task of the paper with the harness's own files; rounds are averaged.

    Raises:
        ConnectionError: If its rows are not cached and cannot be downloaded.
    """
    names = list(OWN[name])
    try:
        answer = _ask(model, names, settings.per_device_batch_size, limit=settings.rows)
    except ConnectionError as error:
        raise ConnectionError(
            f"the utility task {name} needs rows of the Hub ({error}): run it once on a machine "
            "with a network, or use evaluation=toxicity_utility, which reads the folder's tasks"
        ) from error
    each = [_scores(answer["results"][one]) for one in names]
    shared = set.intersection(*(set(scores) for scores in each))
    rows = sum(int(answer["n-samples"][one]["effective"]) for one in names)
    return {m: sum(scores[m] for scores in each) / len(each) for m in sorted(shared)} | {
        "rows": rows
    }


def _ask(
    model: Path,
    names: list[str],
    batch_size: int,
    include_path: str | None = None,
    limit: int | None = None,
) -> Any:
    """Run the harness on tasks: those in a folder of task files, else its own.

    Raises:
        ImportError: If lm-eval is not installed.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ImportError(
            "the utility tasks need lm-evaluation-harness: pip install 'lm-eval>=0.4.11,<0.5'"
        ) from error
    # Decorators hide their parameters from type checkers.
    load, evaluate = cast("Any", HFLM), cast("Any", simple_evaluate)
    language_model = load(
        pretrained=str(model), device=device_of("auto"), batch_size=batch_size, dtype="float32"
    )
    manager = TaskManager(include_path=include_path, include_defaults=include_path is None)
    return evaluate(
        model=language_model,
        tasks=names,
        task_manager=manager,
        limit=limit,
        bootstrap_iters=0,
        log_samples=include_path is not None,
    )


def _scores(results: Mapping[str, Any]) -> dict[str, float]:
    return {
        metric: float(results[f"{metric},none"])
        for metric in ("acc", "acc_norm")
        if f"{metric},none" in results
    }


def _local(name: str) -> str:
    return f"gotd_{name}"
