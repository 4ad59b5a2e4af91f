"""The cells of a comparison on a task of one's own: an experiment whose source is the files."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal

import pyarrow.compute as pc
from omegaconf import DictConfig, OmegaConf, open_dict

from gotd.data.columns import Columns
from gotd.data.left_out.duplicates import normalised
from gotd.data.own_files import Names, OwnFiles, task_name
from gotd.data.tasks.held_out_target import HeldOutTarget
from gotd.data.tasks.labelled import LabelledTask
from gotd.runs.expand import SweepError, expand
from gotd.runs.overrides import is_sweep, variant
from gotd.runs.own_model import OwnModel
from gotd.selectors.base import FULL_TARGET
from gotd.selectors.registry import did_you_mean, entries, selector_class
from gotd.storage.checks import check_at_least

log = logging.getLogger(__name__)

BASELINE = "none"
LEAST_ROWS = 10
"""Test rows, and rows of each side of a target, below which no score means anything."""
LEAST_TRAIN_ROWS = 20
VALIDATION_SHARE = 0.2
"""Most of the labelled rows on which the epoch is chosen."""
PRETRAINING_SHARE = 0.15
"""Share of the candidates that pre-train a base, or its head, where there is none to load."""
NOT_GIVEN = frozenset({"scores", "labels"})
"""What a selector may need that a comparison has no file for."""


@dataclass(frozen=True)
class OwnTask:
    """What ``gotd compare`` was asked for.

    Args:
        path: Names by role: ``candidates``, and ``train`` and ``test``, or ``target``.
        methods: Selectors.
        budgets: Rows to select.
        seeds: Number of seeds, from 1 on.
        store: Folder of the artifacts.
        model: Folder or Hub name; ``None``: a small base that is built and pre-trained here.
        label: Column of the labels.
        columns: The columns of the candidates.
        target_columns: The columns of the other rows.
        chunks: Fields of `gotd.config.schemas.Chunking` for the candidates.
        keep_overlap: Keep candidates that share words with the evaluated rows.
        settings: Hydra overrides, each of one value.

    Raises:
        ValueError: If a method is unknown or needs something that is not there, a number is
            too small, or a setting has several values.
    """

    path: dict[str, Names]
    methods: tuple[str, ...]
    budgets: tuple[int, ...]
    seeds: int
    store: str
    model: str | None = None
    label: str = "label"
    columns: Columns = field(default_factory=Columns)
    target_columns: Columns = field(default_factory=Columns)
    chunks: dict[str, Any] = field(default_factory=dict)
    keep_overlap: bool = False
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_at_least(self, 1, "seeds")
        for name in self.methods:
            _check_method(name)
        for setting in self.settings:
            if "=" not in setting or setting.startswith(("+", "~")):
                raise SweepError(f"--set takes KEY=VALUE, not {setting!r}")
            if is_sweep(setting):
                raise SweepError(f"--set {setting}: give one value; only methods are compared")

    @property
    def outcome(self) -> Literal["labels", "loss"]:
        """Return what is measured."""
        return "labels" if "train" in self.path else "loss"

    @property
    def name(self) -> str:
        """Return the name of the task in tables."""
        return task_name(self.path["train" if self.outcome == "labels" else "target"])


def _check_method(name: str) -> None:
    """Raise if a selector is none, or needs what a comparison on one's own files lacks."""
    known = [one.name for one in entries() if one.offered or one.name == BASELINE]
    if name not in known:
        raise ValueError(f"--methods: unknown method {name!r}; {did_you_mean(name, known)}")
    if lacking := _requires(name) & NOT_GIVEN:
        raise ValueError(
            f"--methods: {name} needs {', '.join(sorted(lacking))} of the candidates, which gotd "
            "compare has not; leave it out"
        )


def _requires(name: str) -> frozenset[str]:
    """Return what a selector requires, as far as its class states it."""
    requires = frozenset() if name == BASELINE else selector_class(name).requires
    return requires if isinstance(requires, frozenset) else frozenset()


@dataclass(frozen=True)
class CheckedRows:
    """The rows of a comparison, and the model they are for, after both were checked.

    Args:
        model: What is trained.
        source: The files.
        task: The task.
        held_out: Most labelled rows to choose the epoch on; ``None`` for a loss.
    """

    model: OwnModel
    source: OwnFiles
    task: LabelledTask | HeldOutTarget
    held_out: int | None


def check_rows(own: OwnTask) -> CheckedRows:
    """Read and check the labelled rows, or those of the target.

    Raises:
        FileNotFoundError: If a file or the model cannot be found.
        ValueError: If rows cannot be used.
    """
    model = OwnModel.find(own.model)
    source = OwnFiles(
        path=own.path,
        task=own.name,
        store=own.store,
        columns=own.columns,
        target_columns=own.target_columns,
        label=own.label,
        pretraining_share=PRETRAINING_SHARE if model.needs_text else 0.0,
        keep_overlap=own.keep_overlap,
    )
    source.candidates()  # an unknown file is an error now
    if own.outcome == "labels":
        model.check_classifies()
        return CheckedRows(model, source, *_labelled_task(source))
    _check_target(source)
    return CheckedRows(model, source, HeldOutTarget(own.name), None)


def lay_out(own: OwnTask, rows: CheckedRows) -> list[tuple[DictConfig, str]]:
    """Compose the configurations of all cells.

    Args:
        own: What was asked for.
        rows: Its rows, or those of the same files with other methods.

    Raises:
        ValueError: If a setting does not compose.
    """
    sweep = {
        "experiment": f"compare/{own.outcome}",
        "selector": ",".join(own.methods),
        "seed": ",".join(map(str, range(1, own.seeds + 1))),
        "budget": ",".join(map(str, own.budgets)),
        "rank_rows": max(own.budgets),
        **{f"candidate_chunks.{name}": value for name, value in own.chunks.items()},
        **rows.model.groups(own.outcome),
    }
    overrides = [f"{name}={value}" for name, value in sweep.items()]
    name, configs = variant(own.settings), []
    for config, _ in expand([*overrides, *own.settings]):
        with open_dict(config):
            config.source, config.task = _node(rows.source), _node(rows.task)
            config.store = own.store
        if rows.held_out is not None:
            config.limits.validation_rows = min(config.limits.validation_rows or 1, rows.held_out)
        rows.model.configure(config)
        configs.append((config, name))
    return configs


def with_counts(configs: Sequence[tuple[DictConfig, str]], rows: int, tokens: float) -> None:
    """Set how many candidates there are, and their mean tokens, once the pool is read."""
    for config, _ in configs:
        config.source.pool_rows, config.source.row_tokens = rows, tokens


def _labelled_task(source: OwnFiles) -> tuple[LabelledTask, int]:
    """Return the task, and the most rows of train to choose the epoch on.

    Raises:
        ValueError: If there are too few rows or classes; says which.
    """
    train, test = (source.split(source.task, split) for split in ("train", "test"))
    classes = len(pc.unique(train["label"]))
    if train.num_rows < LEAST_TRAIN_ROWS:
        raise ValueError(
            f"--train has {train.num_rows} rows; fine-tuning needs {LEAST_TRAIN_ROWS} at least"
        )
    if classes < 2:
        raise ValueError(
            f"--train: all rows have the label {train['label'][0].as_py()!r}; there must be two "
            "classes or more"
        )
    if classes > train.num_rows // 2:
        raise ValueError(
            f"--train: the column {source.label!r} holds {classes:,} different values in "
            f"{train.num_rows:,} rows, so they are no classes; name another --label-column"
        )
    if test.num_rows < LEAST_ROWS:
        raise ValueError(
            f"--test has {test.num_rows} rows; a score needs {LEAST_ROWS} at least, better 300"
        )
    if len(pc.unique(test["label"])) < 2:
        raise ValueError(
            f"--test: all rows have the label {test['label'][0].as_py()!r}, so no score tells "
            "methods apart; give rows of several classes"
        )
    known = set(map(normalised, train["text"].to_pylist()))
    if again := sum(normalised(text) in known for text in test["text"].to_pylist()):
        log.warning(
            "--test: %s of %s rows have the text of a row of --train, so the score says little "
            "about new rows; leave them out",
            f"{again:,}",
            f"{test.num_rows:,}",
        )
    task = LabelledTask(
        name=source.task,
        text_columns=("text",),
        label_kind="class",
        classes=classes,
        metrics=("macro_f1", "accuracy"),
        headline="macro_f1",
        reported_splits={"test": "test"},
    )
    mapped = task.label_mapping(source)
    if mapped is not None:
        unknown = sorted({*test["label"].unique().to_pylist()} - {*mapped}, key=str)
        if unknown:
            raise ValueError(
                f"--test has labels that --train lacks: {', '.join(map(repr, unknown[:5]))}; "
                "repair them or drop these rows"
            )
    return task, max(1, round(VALIDATION_SHARE * train.num_rows))


def _check_target(source: OwnFiles) -> None:
    """Raise if the target is too small to be split."""
    target, held_out = (source.split(source.task, split) for split in ("target", "held_out"))
    if min(target.num_rows, held_out.num_rows) < LEAST_ROWS:
        raise ValueError(
            f"--target: {target.num_rows} rows to select for and {held_out.num_rows} to measure "
            f"the loss on, of which there must be {LEAST_ROWS} each; give more rows"
        )


def takes_budget(own: OwnTask) -> bool:
    """Return whether any method selects from the pool."""
    return any(name != BASELINE and FULL_TARGET not in _requires(name) for name in own.methods)


def _node(value: Any) -> DictConfig:
    """Return the node from which `gotd.config.build.build` makes an equal object."""
    node = OmegaConf.create(_plain(value))
    assert isinstance(node, DictConfig)
    return node


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        kind = type(value)
        fields = {
            item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)
        }
        return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **fields}
    if isinstance(value, dict):
        return {name: _plain(content) for name, content in value.items()}
    if isinstance(value, tuple):
        return [_plain(content) for content in value]
    # A file may be named like an interpolation.
    return value.replace("${", "\\${") if isinstance(value, str) else value
