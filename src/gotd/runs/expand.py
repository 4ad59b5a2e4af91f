"""Expand a command line into the cells it means, composed as Hydra composes them.

A run that is done must answer at once and `gotd plan` must show what a run would do, so
cells are laid out here without Hydra's launcher.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
from gotd.storage.keys import RUN_ONLY

AXES = ("task", "selector", "model", "budget", "seed", "protocol", "experiment", "scale")
"""Overrides that name a cell by themselves; any other one goes into its variant."""
_NO_VARIANT = ("hydra", "hydra/launcher", "store", "workers", "threads", "tracker")


Configured = tuple[DictConfig, str]
"""A composed configuration and its variant."""


class SweepError(ValueError):
    """A command line does not compose; the message says which override and why."""


@contextmanager
def _configured() -> Iterator[None]:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield


def resolve(overrides: Sequence[str]) -> list[str]:
    """Turn ``experiment=glue scale=folder`` into the file ``experiment=glue/folder``.

    An experiment is a delta for each scale, because a scale changes model, budget and
    tasks together; on the command line the two stay separate words.

    Raises:
        SweepError: If there is no such experiment, or it has no such scale.
    """
    chosen: dict[str, str] = {}
    rest = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in ("experiment", "scale"):
            rest.append(override)
            continue
        if "," in value:
            raise SweepError(
                f"{override}: an experiment changes model, budget and tasks together, so it is no "
                "axis of a sweep; run one after the other"
            )
        chosen[key] = value
    experiment = chosen.get("experiment", "glue")
    if "/" not in experiment:
        experiment = f"{experiment}/{chosen.get('scale', 'micro')}"
    elif "scale" in chosen and not experiment.endswith(f"/{chosen['scale']}"):
        raise SweepError(
            f"experiment={experiment} names a scale, and scale={chosen['scale']} another"
        )
    if not (conf_folder() / "experiment" / f"{experiment}.yaml").is_file():
        known = ", ".join(experiments())
        raise SweepError(
            f"there is no experiment={experiment.replace('/', ' scale=')}; known: {known}"
        )
    for override in rest:
        if override.startswith("source.path=") and _is_sweep(override):
            raise SweepError(
                f"{override}: where rows stand is in no record, so it is no axis of a sweep; run "
                "one after the other, each with a store=… of its own"
            )
        if override.startswith("+"):
            raise SweepError(
                f"{override}: a field that no schema has would change nothing but the key"
            )
    return [f"experiment={experiment}", *rest]


def expand(overrides: Sequence[str]) -> list[Configured]:
    """Compose every cell that a command line means, in the order Hydra runs them.

    Args:
        overrides: Hydra overrides, ``experiment=…`` among them.

    Returns:
        Composed configurations, each with its variant.

    Raises:
        SweepError: At the first override that does not compose.
    """
    overrides = resolve([o for o in overrides if not o.startswith("-")])
    try:
        with _configured():
            plain = [o for o in overrides if not _is_sweep(o)]
            root = compose("config", overrides=plain, return_hydra_config=True)
            params = root.hydra.sweeper.params or {}
            texts = [f"{k}={v}" for k, v in params.items()] + list(overrides)
            parsed = OverridesParser.create().parse_overrides(texts)
            (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
            return list(zip(compose_all(batch), map(variant, batch), strict=True))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise SweepError(_one_line(error)) from error


def expand_cells(overrides: Sequence[str]) -> tuple[list[Cell], list[str]]:
    """Lay out every cell that a command line means; nothing runs.

    Returns:
        The cells, and the tasks that were skipped because the source does not hold them.

    Raises:
        SweepError: At the first override that does not compose.
        ValueError: If a value is refused; the message names the field.
        FileNotFoundError: If the source cannot say what its rows are, or holds no task.
    """
    try:
        held, skipped = part_held(expand(overrides))
        return [plan_cell(config, name) for config, name in held], skipped
    except OmegaConfBaseException as error:
        raise SweepError(_one_line(error)) from error


def part_held(configs: Sequence[Configured]) -> tuple[list[Configured], list[str]]:
    """Part the cells whose task the source holds from the names of other tasks.

    A folder with six of eight tasks runs six; the two are no failure, but they are named.

    Raises:
        FileNotFoundError: If the source cannot say what it holds, or holds none of them.
    """
    held = [cell for cell in configs if holds_task(cell[0])]
    names = dict.fromkeys(config.task.name for config, _ in configs)
    skipped = [name for name in names if name not in {config.task.name for config, _ in held}]
    if not held:
        source = build(configs[0][0].source)
        raise FileNotFoundError(
            f"the source {source.name} holds none of the tasks {', '.join(skipped)}; it holds "
            f"{', '.join(source.tasks()) or 'none at all'}"
        )
    return held, skipped


def holds_task(config: DictConfig) -> bool:
    """Tell whether a cell's source holds its task."""
    # A toxicity task reads rows that a source knows by another name.
    return config.task.get("rated", config.task.name) in build(config.source).tasks()


def compose_all(jobs: Sequence[Sequence[str]]) -> list[DictConfig]:
    """Compose every job as Hydra does, but nothing twice.

    A composition reads and merges some forty files, and the cells of a sweep differ in
    few of them. So group choices are composed apart from plain values, which Hydra puts
    in last of all and which are put into a copy here.

    Args:
        jobs: The overrides of each cell: the same keys in the same order.

    Returns:
        What ``compose("config", overrides=job)`` gives for each.
    """
    parse = functools.cache(OverridesParser.create().parse_override)
    loader = GlobalHydra.instance().config_loader()
    is_group = functools.cache(lambda key: bool(loader.get_group_options(key, None)))

    def is_value(text: str) -> bool:
        override = parse(text)
        return isinstance(override.value(), dict) or not is_group(override.key_or_group)

    if any(parse(text).type is not OverrideType.CHANGE for job in jobs for text in job):
        return _by_choices([tuple(job) for job in jobs])  # what adds and deletes is left to Hydra
    choices = [tuple(text for text in job if not is_value(text)) for job in jobs]
    configs = []
    for job, composed in zip(jobs, _by_choices(choices), strict=True):
        config = copy.deepcopy(composed)
        try:
            for override in map(parse, filter(is_value, job)):
                if not override.is_hydra_override():
                    OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            config = compose("config", overrides=list(job))  # Hydra's own words for what is wrong
        configs.append(config)
    return configs


def _by_choices(choices: Sequence[tuple[str, ...]]) -> list[DictConfig]:
    """Compose each choice of groups; as sums of single changes where that is the same.

    Eight tasks and eight arms need 15 compositions instead of 64, as long as a task
    changes only the node ``task`` and an arm only ``selector``; the farthest
    combination is composed whole to make sure. Otherwise each combination is composed.
    """
    distinct = list(dict.fromkeys(choices))
    first = distinct[0]
    composed = {first: compose("config", overrides=list(first))}
    changes = {(place, choice[place]) for choice in distinct for place in range(len(first))} - set(
        enumerate(first)
    )
    if len(changes) + 2 < len(distinct):
        composed |= _by_sums(first, composed[first], sorted(changes), distinct)
    for choice in distinct:
        if choice not in composed:
            composed[choice] = compose("config", overrides=list(choice))
    return [composed[choice] for choice in choices]


def _by_sums(
    first: tuple[str, ...],
    base: DictConfig,
    changes: Sequence[tuple[int, str]],
    wanted: Sequence[tuple[str, ...]],
) -> dict[tuple[str, ...], DictConfig]:
    """Put single changes together; nothing if a change reaches beyond its own node."""
    nodes = {}
    plain = OmegaConf.to_container(base)
    for place, text in changes:
        group = text.partition("=")[0]
        one = compose("config", overrides=[*first[:place], text, *first[place + 1 :]])
        changed = OmegaConf.to_container(one)
        assert isinstance(plain, dict)
        assert isinstance(changed, dict)
        if group not in plain or {**plain, group: None} != {**changed, group: None}:
            return {}
        nodes[place, text] = (group, one[group])
    sums = {}
    for choice in wanted:
        config = copy.deepcopy(base)
        for change in set(enumerate(choice)) & nodes.keys():
            group, node = nodes[change]
            config[group] = node
        sums[choice] = config
    whole = compose("config", overrides=list(wanted[-1]))
    agree = OmegaConf.to_container(sums[wanted[-1]]) == OmegaConf.to_container(whole)
    return sums if agree else {}


def _is_sweep(override: str) -> bool:
    return bool(OverridesParser.create().parse_override(override).is_sweep_override())


def _one_line(error: BaseException) -> str:
    """Say what Hydra refused without its traceback of defaults lists."""
    # Schemas, where Hydra looked, and its advice to add what does not exist.
    noise = ("base_", "Config search path", "provider=", "To append to your config")
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(noise)]
    cause = error.__cause__
    if cause is not None and str(cause) not in str(error):
        lines += [line.strip() for line in str(cause).splitlines()[:1]]
    return " | ".join(lines[:40])


def variant(overrides: Sequence[str]) -> str:
    """Name the overrides that are no axis of their own, to tell cells apart."""
    named = []
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0]
        path = key.split(".")
        if key in AXES or key == "source.path":  # where rows stand says nothing about them
            continue
        if path[0] not in _NO_VARIANT and path[-1] not in RUN_ONLY:
            named.append(override)
    return " ".join(sorted(named))


def experiments() -> list[str]:
    """List the experiments that conf/experiment holds, with their scales."""
    folder = conf_folder() / "experiment"
    return sorted(f"{path.parent.name} scale={path.stem}" for path in folder.glob("*/*.yaml"))
