"""Options of the conf groups: the files of conf/ and the entry points of installed packages.

A package adds an option to a group by an entry point, for a selector:

    [project.entry-points."gotd.selectors"]
    shortest = "my_package.shortest:Shortest"

and a file ``shortest.yaml`` beside the module. Neither is imported here, and neither are
Hydra and OmegaConf, so that ``gotd --help`` stays fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

EXTENSIBLE = (
    *("embedder", "evaluation", "model", "scorer"),
    *("selector", "source", "task", "tracker"),
)
"""Conf groups that packages can extend; the entry point group of ``task`` is ``gotd.tasks``."""


@dataclass(frozen=True)
class Option:
    """An option of a conf group.

    Args:
        name: Name of the option.
        path: Its YAML file; ``None`` for a class without one.
        target: Dotted path of the class that an entry point names; ``None`` for files of conf/.
        package: The package that provides it.
    """

    name: str
    path: Path | None
    target: str | None = None
    package: str = "gotd"

    @property
    def node(self) -> Mapping[str, Any]:
        """Return the content of the file, interpolations as strings.

        Raises:
            ValueError: If the file is not a mapping in YAML.
        """
        if self.path is None:
            return {}
        try:
            node = read_yaml(self.path)
        except yaml.YAMLError as error:
            raise ValueError(f"{self.where}: {' '.join(str(error).split())}") from error
        if not isinstance(node, dict):
            raise ValueError(f"{self.where}: the file must be a mapping")
        return node

    @property
    def where(self) -> str:
        """Return file and package, for messages."""
        return f"{self.path} of the package {self.package}"


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        yaml.YAMLError: If it is no YAML.
    """
    # The compiled loader is many times as fast; some builds of PyYAML lack it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text("utf-8"), Loader=loader)


def conf_folder() -> Path:
    """Return the folder of the configuration: that of the checkout, else that of the wheel."""
    package = Path(__file__).resolve().parents[1]
    packed = package / "conf"
    return packed if packed.is_dir() else package.parents[1] / "conf"


@cache
def options(group: str) -> Mapping[str, Option]:
    """Return the options of a group by name: the files of conf/, then those of packages.

    Raises:
        ValueError: If an entry point is broken, or its name is taken; names the package.
    """
    files = sorted((conf_folder() / group).glob("*.yaml"))
    known = {path.stem: Option(path.stem, path) for path in files}
    for option in plugins(group):
        if option.name in known:
            raise ValueError(
                f"the package {option.package} offers {group}={option.name}, which the package "
                f"{known[option.name].package} has already; rename or uninstall one of them"
            )
        known[option.name] = option
    return known


def plugins(group: str) -> list[Option]:
    """List what installed packages add to a group, by name.

    Raises:
        ValueError: If an entry point is broken; names the package.
    """
    points = sorted(entry_points(group=f"gotd.{group}s"), key=lambda point: point.name)
    return [_option(point) for point in points]


def _option(point: EntryPoint) -> Option:
    package = point.dist.name if point.dist else "unknown"
    where = f"entry point {point.name!r} ({point.group}) of the package {package}"
    if not point.attr:
        raise ValueError(f"{where}: {point.value!r} must be of the form module:Class")
    folder = _folder(point.module)
    if folder is None:
        raise ValueError(
            f"{where}: there is no module {point.module!r}; repair or uninstall the package"
        )
    path, target = folder / f"{point.name}.yaml", f"{point.module}.{point.attr}"
    return Option(point.name, path if path.is_file() else None, target, package)


def _folder(module: str) -> Path | None:
    """Return the folder of a module without an import of it or of the packages around it."""
    top, *parts = module.split(".")
    spec = find_spec(top)
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
