"""Expand a command line into the configurations of its cells, equal to those of Hydra.

`gotd plan` and a finished run need all cells without running any, so they are composed here
and not by Hydra's launcher.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gotd.config.build import build, register
from gotd.config.discovery import conf_folder
from gotd.pipeline.experiment import Cell, plan_cell
from gotd.runs.hints import field_meant
from gotd.runs.overrides import is_run_only, is_sweep, key_of, variant
from gotd.runs.spaces import SPACE, once
from gotd.storage.checks import meant
from gotd.storage.printing import listed

OWN = "compare"
"""The experiment on files of one's own."""

Choice = tuple[str, ...]
"""One ``group=option`` of each group that a sweep changes."""

Job = tuple[str, ...]
"""The overrides of one cell, as a launcher of Hydra reads them."""

Configured = tuple[DictConfig, str]
"""A composed configuration and its variant."""


Name = TypeVar("Name")  # of a cell: its variant, or its overrides


class SweepError(ValueError):
    """A command line that does not compose; the message has the override and the reason."""


@contextmanager
def composing() -> Iterator[None]:
    """Set up Hydra for `compose`."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield


def resolve(overrides: Sequence[str]) -> list[str]:
    """Replace ``experiment=glue scale=folder`` by the name of a file, ``experiment=glue/folder``.

    The scale changes model, budget and tasks, so each experiment has a file for each scale.

    Raises:
        SweepError: If there is no such experiment, or it has no such scale.
    """
    chosen = {"experiment": "glue", "scale": ""}
    rest = []
    for override in overrides:
        check_readable(override)
        key, _, value = override.partition("=")
        if key in chosen and "," in value:
            raise SweepError(
                f"{override}: an experiment changes model, budget and tasks together, so it is "
                "not an axis of a sweep; run one after the other"
            )
        if key == "source.path" and is_sweep(override):
            raise SweepError(
                f"{override}: the path of the rows is in no record, so it is not an axis of a "
                "sweep; run one after the other, each with another store=…"
            )
        group = key.partition("@")[0].lstrip("+~")
        if value.startswith("[") and (conf_folder() / group).is_dir() and "." not in group:
            raise SweepError(
                f"{override}: a list in brackets chooses the last entry alone; write "
                f"{key}={value.strip('[]').replace(' ', '')}"
            )
        if is_run_only(override) and is_sweep(override):
            raise SweepError(
                f"{override}: {key} changes no result, so it is not an axis of a sweep; give one "
                "value"
            )
        if key.startswith("+"):
            raise SweepError(f"{override}: no schema has this field; remove it or fix its name")
        if key in chosen:
            chosen[key] = value
        else:
            rest.append(override)
    experiment, scale = chosen["experiment"], chosen["scale"]
    if "/" not in experiment:
        experiment = f"{experiment}/{scale or 'micro'}"
    elif scale and not experiment.endswith(f"/{scale}"):
        raise SweepError(f"experiment={experiment} has another scale than scale={scale}")
    if not (conf_folder() / "experiment" / f"{experiment}.yaml").is_file():
        name, _, of_file = experiment.partition("/")
        raise SweepError(_no_such_experiment(name, of_file, scale_is_given=bool(scale)))
    return [f"experiment={experiment}", *rest]


def _no_such_experiment(name: str, scale: str, *, scale_is_given: bool) -> str:
    """Return what to say of an experiment, or a scale of one, that is not there."""
    says = f"there is no experiment={name}" + f" scale={scale}" * scale_is_given
    known = [one.split(" scale=") for one in experiments()]
    if scales := [found for one, found in known if one == name]:
        return f"{says}; its scales are {', '.join(scales)}{meant(scale, scales)}"
    names = list(dict.fromkeys(one for one, _ in known))
    return f"{says}; the experiments are {', '.join(names)}{meant(name, names)}"


def check_readable(override: str) -> None:
    """Raise a `SweepError` if an override has no form that Hydra can read."""
    try:
        OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise SweepError(
            f"{override!r} cannot be read; write name=value, several values with one comma "
            "between two, and other signs in quotes"
        ) from error


def expand(overrides: Sequence[str]) -> list[Configured]:
    """Compose every cell of a command line, in the order in which Hydra runs them.

    Args:
        overrides: Hydra overrides, with ``experiment=…``.

    Returns:
        Composed configurations, each with its variant.

    Raises:
        SweepError: At the first override that does not compose.
    """
    return [(config, variant(job)) for config, job in _expand_jobs(overrides)]


def compose_shared(overrides: Sequence[str]) -> DictConfig:
    """Compose what all cells of a command line share, with Hydra's settings; in `composing`."""
    plain = [o for o in resolve(overrides) if not (o.startswith("-") or is_sweep(o))]
    config = compose("config", overrides=plain, return_hydra_config=True)
    if config.hydra.launcher.get("n_jobs", 1) == 0:
        raise SweepError(
            "hydra.launcher.n_jobs=0 runs nothing; give the cells to run at once, or -1"
        )
    return config


def _expand_jobs(overrides: Sequence[str]) -> list[tuple[DictConfig, Job]]:
    values = resolve([o for o in overrides if not o.startswith("-")])
    try:
        with composing():
            params = compose_shared(overrides).hydra.sweeper.params or {}
            texts = [f"{k}={v}" for k, v in params.items()] + values
            loader = GlobalHydra.instance().config_loader()  # lists what glob(…) stands for
            parsed = OverridesParser.create(loader).parse_overrides(texts)
            (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
            jobs = [tuple(job) for job in batch]
            if SPACE not in params:
                return list(zip(compose_all(jobs), jobs, strict=True))
            cells = once(jobs, _own_space(overrides))
            return list(zip(compose_all(list(cells)), cells.values(), strict=True))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise SweepError(one_line(error)) from error


def expand_cells(overrides: Sequence[str]) -> tuple[dict[Job, Cell], list[str]]:
    """Plan every cell of a command line without running it.

    Returns:
        The cells by their overrides, and the tasks that are skipped because the source does
        not have them.

    Raises:
        SweepError: At the first override that does not compose.
        ValueError: If a value is invalid; the message has the field.
        FileNotFoundError: If the source cannot be read, or has none of the tasks.
    """
    try:
        held, skipped = part_held(_expand_jobs(overrides))
        return {job: plan_cell(config, variant(job)) for config, job in held}, skipped
    except OmegaConfBaseException as error:
        raise incomplete(error) from error


def _own_space(overrides: Sequence[str]) -> str:
    """Return the embedder of an experiment, whichever the overrides choose."""
    others = [o for o in overrides if key_of(o).partition(".")[0] != SPACE]
    return compose_shared(others).hydra.runtime.choices[SPACE]


def incomplete(error: OmegaConfBaseException) -> SweepError:
    """Return the error of a configuration in which a value is missing."""
    return SweepError(f"{one_line(error)}: an override with ~ may have removed it")


def part_held(
    configs: Sequence[tuple[DictConfig, Name]],
) -> tuple[list[tuple[DictConfig, Name]], list[str]]:
    """Split cells into those whose task the source has, and the names of the other tasks.

    A folder with six of eight tasks runs six of them, and the other two are reported.

    Raises:
        FileNotFoundError: If the source cannot be read, or has none of the tasks.
    """
    held = [cell for cell in configs if holds_task(cell[0])]
    names = dict.fromkeys(config.task.name for config, _ in configs)
    skipped = [name for name in names if name not in {config.task.name for config, _ in held}]
    if not held:
        source = build(configs[0][0].source)
        raise FileNotFoundError(
            f"the source {source.name} holds none of the tasks {listed(skipped)}; it holds "
            f"{listed(source.tasks(), skipped[0]) or 'none at all'}"
        )
    return held, skipped


def holds_task(config: DictConfig) -> bool:
    """Return whether a cell's source has its task."""
    if "missing" in config.task:
        return True  # the rows are texts of domains; one that is absent is an error
    # A toxicity task reads rows under another name of the source.
    return config.task.get("rated", config.task.name) in build(config.source).tasks()


def compose_all(jobs: Sequence[Sequence[str]]) -> list[DictConfig]:
    """Compose every job as Hydra does, but each part only once.

    A composition reads and merges some forty files, and the cells of a sweep differ in few
    of them. So the choices of groups are composed without the plain values, which Hydra
    applies last of all. The values are then set in a copy.

    Args:
        jobs: The overrides of each cell: the same keys in the same order.

    Returns:
        The same as ``compose("config", overrides=job)`` for each job.
    """
    parse = functools.cache(OverridesParser.create().parse_override)
    loader = GlobalHydra.instance().config_loader()
    # A group has slashes, a field has dots; the first costs a search of all folders.
    is_group = functools.cache(
        lambda key: "." not in key and bool(loader.get_group_options(key, None))
    )

    def is_value(text: str) -> bool:
        override = parse(text)
        return isinstance(override.value(), dict) or not is_group(override.key_or_group)

    if any(parse(text).type is not OverrideType.CHANGE for job in jobs for text in job):
        return [_compose(job) for job in jobs]  # additions and deletions
    choices = [tuple(text for text in job if not is_value(text)) for job in jobs]
    by_choice = _compose_choices(list(dict.fromkeys(choices)))
    configs = []
    for job, choice in zip(jobs, choices, strict=True):
        config = copy.deepcopy(by_choice[choice])
        try:
            for override in map(parse, filter(is_value, job)):
                if not override.is_hydra_override():
                    OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            config = _compose(job)  # for Hydra's own error message
        configs.append(config)
    return configs


def _compose(overrides: Sequence[str]) -> DictConfig:
    return compose("config", overrides=list(overrides))


def _compose_choices(choices: Sequence[Choice]) -> dict[Choice, DictConfig]:
    """Compose choices of groups, by combining single changes where that is equivalent.

    Eight tasks and eight arms need 15 compositions instead of 64, as long as a task changes
    only the node ``task`` and an arm only ``selector``. The last combination, which has the
    most changes, is composed as a check. If it differs, each choice is composed by itself.
    """
    first, last = choices[0], choices[-1]
    base = _compose(first)
    changes = {change for choice in choices for change in enumerate(choice)} - {*enumerate(first)}
    nodes: dict[tuple[int, str], tuple[str, DictConfig]] = {}
    for position, text in changes if len(changes) + 2 < len(choices) else ():
        group = text.partition("=")[0]
        config = _compose([*first[:position], text, *first[position + 1 :]])
        if group not in base or {**_plain(base), group: 0} != {**_plain(config), group: 0}:
            nodes = {}  # it changes another node, too
            break
        nodes[position, text] = group, config[group]
    combined = {choice: copy.deepcopy(base) for choice in choices if nodes}
    for choice, config in combined.items():
        for group, node in (nodes[change] for change in enumerate(choice) if change in nodes):
            config[group] = node
    if combined and _plain(combined[last]) == _plain(_compose(last)):
        return combined
    return {first: base} | {choice: _compose(choice) for choice in choices[1:]}


def _plain(config: DictConfig) -> dict:
    return OmegaConf.to_container(config)  # type: ignore[return-value]


def one_line(error: BaseException) -> str:
    """Return Hydra's message in one line, without its lists of defaults and search paths."""
    noise = ("base_", "Config search path", "provider=", "To append to your config")
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(noise)]
    cause = str(error.__cause__ or "")
    if cause not in str(error):
        lines.append(cause.splitlines()[0].strip())
    message = " | ".join(lines[:40])
    return message + field_meant(message)


def experiments() -> list[str]:
    """Return the experiments in conf/experiment with their scales.

    `OWN` is left out: its source is files that ``gotd compare`` names.
    """
    folder = conf_folder() / "experiment"
    paths = [path for path in folder.glob("*/*.yaml") if path.parent.name != OWN]
    return sorted(f"{path.parent.name} scale={path.stem}" for path in paths)
