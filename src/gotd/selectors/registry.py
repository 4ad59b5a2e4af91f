"""Selectors by name: what conf/selector and installed packages offer.

A selector is a module and a YAML file (docs/extending.md). The file has all that tables,
figures, ``gotd select --help`` and published rows need to know, so nothing heavy is
imported before a selector is built.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from gotd.config.discovery import Option, options

UNORDERED = 500
"""Table order of a selector that states none: after the usual ones, by name."""


@dataclass(frozen=True)
class Entry:
    """A selector and how it is shown; the fields below ``preset`` are ``about`` in its file.

    Args:
        name: Name in ``selector=…``, in ``--method`` and in the tables.
        target: Dotted path of its class; ``None`` for the arm without pre-fine-tuning.
        preset: Fields of the class that make this variant.
        package: The package that provides it.
        help: One line for ``gotd select --help``.
        order: Position in tables and figures, ascending, ties by name.
        colour: Colour in figures, ``#RRGGBB``; ``None``: the next spare colour.
        published: Rows of the paper's tables that this selector stands for.
        reference: Whether the others are compared with it, one block of tests each.
        offered: Whether ``gotd select`` offers it: it knows no truth of a benchmark.
    """

    name: str
    target: str | None
    preset: Mapping[str, Any] = field(default_factory=dict)
    package: str = "gotd"
    help: str = ""
    order: int = UNORDERED
    colour: str | None = None
    published: tuple[str, ...] = ()
    reference: bool = False
    offered: bool = True


_ABOUT = {item.name for item in dataclasses.fields(Entry)[4:]}


@cache
def entries() -> tuple[Entry, ...]:
    """Return every selector, in table order.

    Raises:
        ValueError: If a file or an entry point is broken; names the package.
    """
    known = options("selector")
    found = [_entry(option, known) for option in known.values()]
    return tuple(sorted(found, key=lambda one: (one.order, one.name)))


def entry(name: str) -> Entry:
    """Return a selector's entry.

    Raises:
        ValueError: If there is none; suggests the nearest name.
    """
    known = {one.name: one for one in entries()}
    if name not in known:
        raise ValueError(f"unknown selector {name!r}; {did_you_mean(name, known)}")
    return known[name]


def order_key(arm: str) -> tuple[int, str]:
    """Return a key that sorts arms into table order, those without an entry included."""
    orders = {one.name: one.order for one in entries()}
    return orders.get(arm, UNORDERED), arm


def colours() -> dict[str, str]:
    """Return the colours of the arms that state one."""
    return {one.name: one.colour for one in entries() if one.colour}


def references() -> tuple[str, ...]:
    """Return the arms with which others are compared, in table order."""
    return tuple(one.name for one in entries() if one.reference)


def arm_of(published: str) -> str | None:
    """Return the arm that a row of the paper's tables is; ``None`` for rows of no arm."""
    return next((one.name for one in entries() if published in one.published), None)


def selector_class(name: str) -> Any:
    """Return the class of a selector.

    Raises:
        ValueError: If there is no such selector, or it has no class.
    """
    one = entry(name)
    if one.target is None:
        raise ValueError(f"the selector {name} selects nothing")
    module, _, kind = one.target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the selector {name} of the package {one.package} cannot be loaded: {error}"
        ) from error


def reads_space(one: Entry) -> bool:
    """Return whether a selector reads embeddings, in a space that is not its own.

    Raises:
        ValueError: If its class cannot be loaded.
    """
    if one.target is None:
        return False
    selector = selector_class(one.name)
    if not isinstance(selector.requires, frozenset):  # it depends on settings
        selector = selector(**one.preset)
    return "embeddings" in selector.requires and selector.space is None


def build_selector(name: str, settings: Mapping[str, Any], device: str = "auto") -> Any:
    """Build a selector that ``gotd select`` offers.

    Args:
        name: Its name.
        settings: Its fields; strings, as from a command line, become what the field holds.
        device: Where it computes, if it can choose and ``settings`` do not say.

    Raises:
        ValueError: If there is no such selector or field, a value is refused, or a needed
            one is missing; suggests the nearest name.
    """
    offered = {one.name: one for one in entries() if one.offered}
    if name not in offered:
        raise ValueError(f"unknown method {name!r}; {did_you_mean(name, offered)}")
    constructor = selector_class(name)
    fields = {f.name: f for f in dataclasses.fields(constructor) if f.init}
    for key in settings:
        if key not in fields:
            raise ValueError(
                f"the method {name} has no setting {key!r}; "
                + (did_you_mean(key, fields) if fields else "it has none")
            )
    given = {**offered[name].preset, **settings}
    if "device" in fields:
        given.setdefault("device", device)
    values = {key: _as(fields[key], value) for key, value in given.items()}
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"the method {name}: {key} must be a finite number, not {value}")
        if isinstance(value, Path) and not value.is_file():
            raise ValueError(f"the method {name}: {key}: there is no file {value}")
    selector = constructor(**values)
    for key in fields.keys() & selector.requires:
        # In an experiment a step fills it in; `gotd select` has such steps for losses alone.
        if getattr(selector, key) is None and "model" not in selector.requires:
            raise ValueError(f"the method {name} needs a setting: give --set {key}=…")
    return selector


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint: the nearest of the known names, or all of them."""
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(known)}"


def _entry(option: Option, known: Mapping[str, Option]) -> Entry:
    if option.path is None:
        raise ValueError(
            f"the package {option.package} has no file {option.name}.yaml beside the module of "
            f"its selector {option.name}"
        )
    node = option.node
    if node.get("arm") != option.name:
        raise ValueError(f"{option.where}: arm must be {option.name}, not {node.get('arm')!r}")
    about = dict(node.get("about") or {})
    for key in about.keys() - _ABOUT:
        raise ValueError(f"{option.where}: about has no field {key!r}; {did_you_mean(key, _ABOUT)}")
    if not isinstance(about.get("order", 0), int):
        raise ValueError(f"{option.where}: about.order must be a whole number")
    about["published"] = tuple(about.get("published", ()))
    method = _method(option, known)
    target = method.pop("_target_", option.target)
    if option.target not in (None, target):
        raise ValueError(f"{option.where} has {target}, but its entry point has {option.target}")
    # What the experiment fills in (`${transport.epsilon}`) is the class's own default here.
    preset = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in method.items()
        if "${" not in str(value)
    }
    return Entry(option.name, target, preset, option.package, **about)


def _method(option: Option, known: Mapping[str, Option]) -> dict[str, Any]:
    """Return the node ``method`` of a file over those of the options that it extends."""
    node = option.node
    method: dict[str, Any] = {}
    for parent in node.get("defaults", ()):
        if parent in known:
            method |= _method(known[parent], known)
    return method | dict(node.get("method") or {})


def _as(item: dataclasses.Field[Any], value: Any) -> Any:
    """Convert a string to what the annotation of a field says."""
    if not isinstance(value, str):
        return value
    kind = str(item.type)
    try:
        if value.lower() in ("none", "null") and "None" in kind:
            return None
        if "bool" in kind:
            return {"true": True, "false": False}[value.lower()]
        if "tuple" in kind:
            return tuple(part for part in value.split(",") if part)
        for name, read in (("int", int), ("float", float), ("Path", Path)):
            if kind.split(" |")[0] == name:
                return read(value)
    except (ValueError, KeyError) as error:
        raise ValueError(f"--set {item.name}={value}: that is no {kind}") from error
    return value
