"""Imports point downwards only, and importing the package is cheap."""

import ast
import importlib
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ce_align"

#: From the top of the house to its foundation; a room imports only lower ones.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"api", "demonstration"},
    {"sweeps"},
    {"costs"},
    {"recipes"},
    {"runner"},
    {"report"},
    {"stages"},
    {"brainscore"},
    {"trainer", "models", "metrics"},
    {"augment", "data", "backbones"},
    {"vision"},
    {
        "config",
        "results",
        "arrays",
        "checks",
        "digests",
        "environment",
        "errors",
        "files",
        "foreign",
        "index",
        "names",
        "progress",
    },
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FOUNDATION = len(FLOORS) - 1
#: Rooms of arrays in, arrays out: they know the foundation alone.
PURE = {"metrics", "augment"}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def _imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(_tree(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "ce_align" and parts[1] != "__version__":
                rooms.add(parts[1])
    return rooms


def _upward_imports(files: dict[Path, set[str]]) -> list[str]:
    found = []
    for path, rooms in files.items():
        own = _room(path)
        for room in rooms - {own}:
            below = FLOOR_OF[room] > FLOOR_OF[own] or FLOOR_OF[own] == FOUNDATION
            if own in PURE:
                below = below and FLOOR_OF[room] == FOUNDATION
            if not below:
                found.append(f"{path.relative_to(PACKAGE)} imports {room}")
    return found


def _modules() -> dict[Path, set[str]]:
    return {
        path: _imported_rooms(path)
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"
    }


def test_every_module_belongs_to_a_floor():
    assert {_room(path) for path in _modules()} <= FLOOR_OF.keys()


#: Modules that read what the system or the package holds, not what a user names.
SYSTEM = {
    *("environment.py", "files.py", "models/memory.py", "trainer/memory.py"),
    *("cli/completion.py", "models/content.py", "brainscore/plugin/probe.py"),
    *("sweeps/processes.py", "report/page/__init__.py"),
}


def _opened(node: ast.AST) -> ast.expr | None:
    """The path that a call opens to read, if it does."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    called, given = node.func, [getattr(arg, "value", None) for arg in node.args]
    reads = called.attr == "open" and given in ([], ["r"], ["rb"])
    if reads or called.attr in ("read_text", "read_bytes"):
        return called.value
    loads = ast.unparse(called) in ("np.load", "pd.read_csv")
    return node.args[0] if loads else None


@pytest.mark.slow
def test_files_are_opened_once_they_are_known_to_be_plain():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).as_posix() in SYSTEM:
            continue
        for node in ast.walk(_tree(path)):
            opened = _opened(node)
            if opened is not None and "check_regular" not in ast.unparse(opened):
                found.append(f"{path.name}:{node.lineno} {ast.unparse(opened)}")
    assert not found


def test_imports_point_downwards():
    assert _upward_imports(_modules()) == []


def test_an_upward_import_would_be_found():
    guilty = {PACKAGE / "metrics" / "pls.py": {"data"}}
    assert _upward_imports(guilty) == ["metrics/pls.py imports data"]


HEAVY = {"torch", "brainscore_vision", "sklearn", "scipy", "pandas", "matplotlib"}


@pytest.mark.parametrize("module", ["ce_align", "ce_align.cli"])
def test_importing_it_imports_nothing_heavy(module):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not HEAVY & set(loaded)


@pytest.mark.slow
@pytest.mark.parametrize("room", ["metrics", "augment", "data", "models.catalogue"])
def test_array_rooms_import_without_torch_and_brainscore(room):
    code = (
        "import importlib, pkgutil, sys\n"
        f"module = importlib.import_module('ce_align.{room}')\n"
        "for found in pkgutil.iter_modules(getattr(module, '__path__', [])):\n"
        f"    importlib.import_module('ce_align.{room}.' + found.name)\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "brainscore_vision"} & set(loaded)


@pytest.mark.slow
def test_a_score_from_the_store_needs_no_package_but_torch():
    """Of those that take about as long to import as torch itself."""
    code = (
        "import sys, ce_align.cli.score, ce_align.stages.score, ce_align.models.load\n"
        "import ce_align.data.netcdf, ce_align.report.terminal\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torchvision", "xarray", "pandas", "sklearn", "requests"} & set(loaded)


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _trees() -> dict[str, ast.Module]:
    return {_module_name(path): _tree(path) for path in PACKAGE.rglob("*.py")}


def _taken_from(tree: ast.Module) -> list[tuple[str, str]]:
    """Modules of the package and the names that are imported from them."""
    return [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if node.module.startswith("ce_align")
    ]


@pytest.mark.slow
def test_what_others_import_is_what_a_module_exports():
    trees = _trees()
    exported = {
        name: set(getattr(importlib.import_module(name), "__all__", ()))
        for name in trees
        if not name.endswith("__main__")
    }
    taken = {
        f"{own} takes {name} from {module}"
        for own, tree in trees.items()
        for module, name in _taken_from(tree)
        if f"{module}.{name}" not in trees
        and module != "ce_align"
        and name not in exported[module]
    }
    assert taken == set()


def test_there_is_no_circle_of_imports_inside_a_room():
    trees = _trees()
    graph: dict[str, set[str]] = {}
    for own, tree in trees.items():
        # Those of functions and of type checkers come when all modules are there.
        graph[own] = {
            f"{module}.{name}" if f"{module}.{name}" in trees else module
            for module, name in _taken_from(ast.Module(_top(tree), []))
        } - {own}
    assert _circle(graph) == []


def test_a_circle_would_be_found():
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert _circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def _circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _top(tree: ast.Module) -> list[ast.stmt]:
    return [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
