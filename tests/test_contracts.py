"""Who imports whom: the method on the ground, floor by floor, and the wings that serve it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (  # from the ground up; a module or wing imports only what is on a lower floor, and a wing itself
    "errors labels moments spreadsheet",
    "distance files losses metrics",
    "sampler",
    "config lock",
    "run data model augment",
    "handover batches windows",
    "objective diagnostics",
    "baselines evaluate illustration",
    "trainer results export",
    "segment",
    "figures",
    "mixcl",  # the face, which hands on names of the floors below
    "lessons cli",
    "__main__",
)
FLOOR = {unit: height for height, units in enumerate(FLOORS) for unit in units.split()}
ONLY = {  # what these import of ours at most
    "errors": "", "labels": "", "moments": "", "spreadsheet": "", "distance": "labels", "metrics": "labels",
    "losses": "labels moments", "sampler": "distance labels",
    "files": "errors", "lock": "errors files", "config": "config errors files labels",
    "run": "run config errors files lock", "data": "data config errors files labels lock",
    "model": "config errors files",
}  # fmt: skip
LIGHT = {"data", "results", "figures"}  # never need torch, not for types alone and not within a function


def module(file: Path) -> str:
    """The name by which a file of the package is imported."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(file): ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "mixcl").rglob("*.py")}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, within functions and for type checkers alone, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            whole = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES else str(node.module) for name in whole)


def unit(name: str) -> str:
    """The module of the ground floor, or the wing, that a module of ours belongs to."""
    return name.split(".")[min(1, name.count("."))]


OURS = {name: {other for other in imports(tree) if other in MODULES} for name, tree in MODULES.items()}


def test_every_module_has_a_floor() -> None:
    assert {unit(name) for name in MODULES} <= FLOOR.keys()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_lead_down(name: str) -> None:
    mine, others = unit(name), {unit(other) for other in OURS[name]}
    assert not [other for other in others if other != mine and FLOOR[other] >= FLOOR[mine]]
    if mine in ONLY:
        assert others <= set(ONLY[mine].split())


def test_no_circle_of_imports() -> None:
    TopologicalSorter(OURS).prepare()  # raises CycleError with the circle


def needed(tree: ast.Module) -> Iterator[str]:
    """:func:`imports`, without those for type checkers alone."""
    for node in tree.body:
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield from imports(node)


def heavy(name: str) -> set[str]:
    """The modules that cannot be imported without torch, of all that a module needs, if only once a function runs."""
    known, waiting = {name}, [name]
    while waiting:
        new = {other for other in needed(MODULES[waiting.pop()]) if other in MODULES} - known
        known |= new
        waiting += new
    at_once = {
        other: [node for node in MODULES[other].body if isinstance(node, ast.Import | ast.ImportFrom)]
        for other in known
    }
    return {
        other for other, nodes in at_once.items() if any(n.startswith("torch") for node in nodes for n in imports(node))
    }


@pytest.mark.parametrize("name", sorted(name for name in MODULES if unit(name) in LIGHT))
def test_data_results_and_figures_need_no_torch(name: str) -> None:
    assert not heavy(name)


def test_data_and_results_are_imported_without_torch() -> None:
    light = [name for name in MODULES if unit(name) in LIGHT]
    code = f"import sys, {', '.join(light)}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tests_import_helpers_alone() -> None:
    for file in (ROOT / "tests").rglob("*.py"):
        for name in imports(ast.parse(file.read_text(encoding="utf-8"))):
            assert not {part for part in name.split(".") if part.startswith(("test_", "conftest"))}, file
            assert name.partition(".")[0] != "tests", file
