"""A plugin's code as data: read and folded, never imported or executed."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ce_align.brainscore.plugin.folding import learn, try_folded

__all__ = ["Call", "PluginSource", "Registration", "scanned_identifiers"]

#: As Brain-Score's own code spells it, with quotes made equal.
REGISTRY = "model_registry"


def scanned_identifiers(text: str) -> list[str]:
    """Identifiers that Brain-Score's submission finds in the text of a plugin.

    It takes all between the first bracket after ``model_registry`` and the *last*
    bracket of the line, without the quotes.
    """
    found = []
    for line in text.splitlines():
        match = re.search(REGISTRY + r"\[(.*)\]", line)
        if match:
            found.append(match.group(1)[1:-1])
    return found


@dataclass(frozen=True)
class Registration:
    """One assignment to the registry.

    Attributes
    ----------
    identifier : key, None where it is no literal text
    line : in __init__.py
    found_to_load : whether loading finds it, a search for ``model_registry['id']``
    found_to_submit : whether submission reads the same identifier off the line
    """

    identifier: str | None
    line: int
    found_to_load: bool
    found_to_submit: bool


@dataclass(frozen=True)
class Call:
    """One call in a plugin's code.

    Attributes
    ----------
    name : dotted, by what was imported: ``urllib.request.urlretrieve``
    file, line : where
    node : the call
    known : values of names where it stands
    """

    name: str
    file: str
    line: int
    node: ast.Call
    known: Mapping[str, Any]

    def keyword(self, name: str) -> ast.expr | None:
        """Expression of a keyword argument."""
        values = (k.value for k in self.node.keywords if k.arg == name)
        return next(values, None)

    def value(self, name: str) -> Any:
        """Folded value of a keyword argument, or None."""
        return try_folded(self.keyword(name), self.known)


@dataclass(frozen=True)
class PluginSource:
    """Code of one plugin.

    Attributes
    ----------
    folder : of the plugin
    """

    folder: Path

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @cached_property
    def texts(self) -> dict[str, str]:
        """Text of every Python file, by its path in the plugin."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_text(
                encoding="utf-8", errors="replace"
            )
            for path in sorted(self.folder.rglob("*.py"))
            if path.is_file()
        }

    @cached_property
    def _parsed(self) -> tuple[dict[str, ast.Module], dict[str, str]]:
        trees, faults = {}, {}
        for name, text in self.texts.items():
            try:
                trees[name] = ast.parse(text)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                faults[name] = f"{type(error).__name__}: {error}"
        return trees, faults

    @property
    def trees(self) -> dict[str, ast.Module]:
        """Syntax of every Python file that has any."""
        return self._parsed[0]

    @property
    def unreadable(self) -> dict[str, str]:
        """What is wrong with the other Python files."""
        return self._parsed[1]

    @cached_property
    def registrations(self) -> list[Registration]:
        """Networks that __init__.py registers."""
        tree = self.trees.get("__init__.py")
        if tree is None:
            return []
        lines = self.texts["__init__.py"].splitlines()
        found = []
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                if _is_registry(target):
                    found.append(_registration(target, lines))
        return found

    @property
    def identifiers(self) -> list[str]:
        """Identifiers of the networks, each once."""
        stated = [r.identifier for r in self.registrations if r.identifier is not None]
        return list(dict.fromkeys(stated))

    @cached_property
    def model_file(self) -> str:
        """Python file with get_model: model.py, or where else it is defined."""
        for name in ("model.py", *self.trees):
            if name in self.trees and self.function("get_model", name) is not None:
                return name
        return "model.py"

    def function(self, name: str, file: str | None = None) -> ast.FunctionDef | None:
        """A function at the top of a file, by default the model's."""
        tree = self.trees.get(file or self.model_file)
        functions = (
            (n for n in tree.body if isinstance(n, ast.FunctionDef)) if tree else ()
        )
        return next((f for f in functions if f.name == name), None)

    def returned(self, name: str, identifier: str = "") -> Any:
        """What a function of the model's file returns, or None if not constant."""
        function = self.function(name)
        if function is None:
            return None
        known = self._known_in(self.model_file, function, identifier)
        returns = [n for n in ast.walk(function) if isinstance(n, ast.Return)]
        return try_folded(returns[-1].value, known) if returns else None

    def constant(self, name: str) -> Any:
        """Value of a constant at the top of the model's file, or None."""
        return self._constants(self.model_file).get(name)

    def _constants(self, file: str) -> dict[str, Any]:
        known: dict[str, Any] = {}
        learn(self.trees[file].body if file in self.trees else [], known)
        return known

    def _known_in(
        self, file: str, function: ast.FunctionDef, identifier: str
    ) -> dict[str, Any]:
        """Values of names inside a function of a network's identifier."""
        known = self._constants(file)
        parameters = [argument.arg for argument in function.args.args]
        if parameters and identifier:
            known[parameters[0]] = identifier
        learn(function.body, known)
        return known

    def calls(self, identifier: str = "") -> Iterator[Call]:
        """Calls in every file but tests and setup."""
        for file, tree in self.trees.items():
            if not Path(file).name.startswith(("test", "setup", "conftest")):
                yield from self._calls_in(file, tree, identifier)

    def _calls_in(self, file: str, tree: ast.Module, identifier: str) -> Iterator[Call]:
        imported = _imported(tree)
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        scopes = {id(n): f for f in functions for n in ast.walk(f)}
        values = {id(f): self._known_in(file, f, identifier) for f in functions}
        constants = self._constants(file)
        for node in ast.walk(tree):
            name = _dotted(node.func, imported) if isinstance(node, ast.Call) else None
            if isinstance(node, ast.Call) and name is not None:
                scope = scopes.get(id(node))
                known = constants if scope is None else values[id(scope)]
                yield Call(name, file, node.lineno, node, known)

    def texts_of(self, identifier: str) -> set[str]:
        """Every text that the model's file makes of constants, for one network."""
        tree = self.trees.get(self.model_file)
        if tree is None:
            return set()
        found = set(_made_texts(tree, self._constants(self.model_file)))
        for function in (n for n in tree.body if isinstance(n, ast.FunctionDef)):
            known = self._known_in(self.model_file, function, identifier)
            found.update(_made_texts(function, known))
        return found

    def attribute(self, name: str, identifier: str) -> Any:
        """Constant that the model's file assigns to an attribute, or None."""
        tree = self.trees.get(self.model_file)
        functions = (
            (n for n in tree.body if isinstance(n, ast.FunctionDef)) if tree else ()
        )
        for function in functions:
            known = self._known_in(self.model_file, function, identifier)
            for node in ast.walk(function):
                targets = node.targets if isinstance(node, ast.Assign) else []
                if any(
                    isinstance(t, ast.Attribute) and t.attr == name for t in targets
                ):
                    return try_folded(getattr(node, "value", None), known)
        return None

    def tables(self) -> Iterator[tuple[int, dict[Any, Any]]]:
        """Constant dictionaries of the model's file, with their lines."""
        for node in ast.walk(self.trees.get(self.model_file, ast.Module([], []))):
            if isinstance(node, ast.Dict):
                table = try_folded(node, {})
                if isinstance(table, dict):
                    yield node.lineno, table


def _is_registry(target: ast.expr) -> bool:
    if not isinstance(target, ast.Subscript):
        return False
    value = target.value
    name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
    return name == REGISTRY


def _registration(target: ast.expr, lines: list[str]) -> Registration:
    key = try_folded(target.slice, {}) if isinstance(target, ast.Subscript) else None
    line = lines[target.lineno - 1]
    if not isinstance(key, str):
        return Registration(None, target.lineno, False, False)
    return Registration(
        key,
        target.lineno,
        f"{REGISTRY}['{key}']" in line.replace('"', "'"),
        key in scanned_identifiers(line),
    )


def _made_texts(tree: ast.AST, known: Mapping[str, Any]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
            value = try_folded(node, known)
            if isinstance(value, str):
                yield value


def _imported(tree: ast.Module) -> dict[str, str]:
    """Names in a file, and what was imported under them."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return found


def _dotted(node: ast.expr, imported: Mapping[str, str]) -> str | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([imported.get(node.id, node.id), *parts])
