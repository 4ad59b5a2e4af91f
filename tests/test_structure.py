"""Which package may import which, and how large modules and functions may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src" / "gotd"
ROOT_FILES = {"__init__.py", "_version.py", "api.py", "products.py", "py.typed"}
MODULE_LINES, FUNCTION_LINES = 350, 60

ALLOWED: dict[str, set[str]] = {
    "storage": set(),
    "config": {"storage"},
    "engine": {"storage"},
    "products": set(),
    "transport": {"products"},
    "data": {"storage", "config", "engine"},
    "training": {"storage", "config", "products"},
    "embedding": {"storage", "config", "engine", "data", "training"},
    "selectors": {"storage", "config", "engine", "data", "transport"},
    "evaluation": {"storage", "config", "data", "training"},
    "selection_report": {"storage", "engine", "data", "selectors", "transport"},
    "reporting": {"storage", "config", "selectors", "evaluation", "selection_report"},
    "pipeline": {
        "storage",
        "config",
        "engine",
        "data",
        "embedding",
        "selectors",
        "training",
        "evaluation",
        "selection_report",
        "reporting",
        "transport",
    },
    "runs": {
        "storage",
        "config",
        "data",
        "training",
        "evaluation",
        "selectors",
        "selection_report",
        "reporting",
        "pipeline",
    },
    "planning": {
        "storage",
        "products",
        "config",
        "data",
        "training",
        "pipeline",
        "runs",
    },
    "api": {"storage", "engine", "data", "embedding", "selectors", "pipeline", "selection_report"},
    "cli": {
        "storage",
        "config",
        "engine",
        "data",
        "embedding",
        "selectors",
        "pipeline",
        "planning",
        "reporting",
        "runs",
        "selection_report",
        "training",
    },
}
"""The packages that each package may import, itself aside; the order is from below to above."""


def packages(module: Path) -> str:
    """Return the package of a module, or the module's own name in the root."""
    parts = module.relative_to(SOURCES).parts
    return parts[0].removesuffix(".py")


def imports(module: Path) -> Iterator[tuple[int, str]]:
    """Yield line and package of every import of gotd, those inside functions included."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = (
                [f"gotd.{alias.name}" for alias in node.names]
                if node.module == "gotd"
                else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "gotd" and len(parts) > 1:
                yield node.lineno, parts[1]


def modules() -> list[Path]:
    return sorted(SOURCES.rglob("*.py"))


def forbidden(module: Path) -> list[str]:
    """Return the imports of a module that the table does not allow."""
    own = packages(module)
    if own in ("__init__", "_version"):
        return []
    allowed = ALLOWED[own] | {own, "_version"}
    return [
        f"{module.relative_to(SOURCES)}:{line} imports {package}"
        for line, package in imports(module)
        if package not in allowed
    ]


def test_imports_go_one_way():
    assert [line for module in modules() for line in forbidden(module)] == []


def test_the_table_has_no_cycle():
    order = list(ALLOWED)
    for package, allowed in ALLOWED.items():
        later = [name for name in allowed if order.index(name) > order.index(package)]
        assert not later, f"{package} may import {later}, which stand above it"


def test_an_upward_import_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.SOURCES", tmp_path)
    module = tmp_path / "storage" / "files.py"
    module.parent.mkdir()
    module.write_text("def f():\n    from gotd.pipeline import steps\n")
    assert forbidden(module) == ["storage/files.py:2 imports pipeline"]


def test_the_root_holds_packages_alone():
    names = {path.name for path in SOURCES.iterdir() if path.is_file()}
    assert names <= ROOT_FILES


@pytest.mark.parametrize("module", modules(), ids=lambda p: str(p.relative_to(SOURCES)))
def test_size(module: Path):
    """An exception states its reason in a comment ``# long: …`` on its first line."""
    text = module.read_text("utf-8")
    lines = text.splitlines()
    if "# long:" not in "\n".join(lines[:3]):
        assert len(lines) <= MODULE_LINES, f"{module} has {len(lines)} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            argued = any("# long:" in line for line in lines[node.lineno - 2 : node.body[0].lineno])
            assert length <= FUNCTION_LINES or argued, (
                f"{module}:{node.lineno} {node.name} has {length} lines"
            )
