"""A plugin's code as data: read and folded, never imported or executed."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ce_align.files import read_text

__all__ = ["Call", "PluginSource", "folded", "scanned_identifiers"]

#: As Brain-Score's own code spells it, with quotes made equal.
REGISTRY = "model_registry"

#: Methods of text that are folded; none has an effect.
TEXT_METHODS = {
    *("split", "rsplit", "replace", "strip", "lstrip", "rstrip", "lower", "upper"),
    *("join", "format", "removeprefix", "removesuffix", "partition", "rpartition"),
}

#: Longest text or list that folding makes.
MAX_LENGTH = 10_000


def scanned_identifiers(text: str) -> list[str]:
    """Identifiers that Brain-Score's submission finds in the text of a plugin.

    It takes all between the first bracket after ``model_registry`` and the *last*
    bracket of the line, without the quotes.
    """
    return [key[1:-1] for key in re.findall(REGISTRY + r"\[(.*)\]", text)]


def folded(node: ast.AST | None, known: Mapping[str, Any]) -> Any:
    """Value of an expression that needs no running, or None.

    It may hold constants, `known` names, additions, indices and methods of text.
    """
    try:
        return _folded(node, known)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
        return None


def _folded(node: ast.AST | None, known: Mapping[str, Any]) -> Any:
    value: Any
    match node:
        case ast.Name(id=name):
            return known[name]
        case ast.JoinedStr(values=parts):
            value = "".join(str(_folded(part, known)) for part in parts)
        case ast.FormattedValue(value=inner, format_spec=None):
            return _folded(inner, known)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_folded(item, known) for item in items]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            value = _folded(left, known) + _folded(right, known)
        case ast.Subscript(value=inner, slice=index):
            return _folded(inner, known)[_folded(index, known)]
        case ast.Call(func=ast.Attribute(value=inner, attr=method), keywords=[]):
            text = _folded(inner, known)
            # A width after a colon would make text of any length.
            if not isinstance(text, str) or method not in TEXT_METHODS or ":" in text:
                raise ValueError(method)
            arguments = [_folded(argument, known) for argument in node.args]
            value = getattr(text, method)(*arguments)
        case ast.expr():
            return ast.literal_eval(node)
        case _:
            raise ValueError(node)
    if isinstance(value, str | list) and len(value) > MAX_LENGTH:
        raise ValueError(f"longer than {MAX_LENGTH}")
    return value


def _learn(body: list[ast.stmt], known: dict[str, Any]) -> dict[str, Any]:
    """Known names, and those that the statements of one block bind to constants."""
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=expression):
                value = folded(expression, known)
                if value is None:
                    known.pop(name, None)
                else:
                    known[name] = value
            case ast.With(body=inner):
                _learn(inner, known)
    return known


@dataclass(frozen=True)
class Registration:
    """One assignment to the registry in ``__init__.py``.

    Its identifier is None where the key is no literal text. Loading finds it by a
    search for ``model_registry['id']``, and submission reads it off the line.
    """

    identifier: str | None
    line: int
    found_to_load: bool
    found_to_submit: bool


@dataclass(frozen=True)
class Call:
    """One call; its name is dotted, by what was imported: ``torch.hub.load``."""

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
        return folded(self.keyword(name), self.known)


class PluginSource:
    """Code of the plugin in a folder.

    Attributes
    ----------
    trees : syntax of every Python file, by its path in the plugin
    unreadable : what is wrong with files that have none
    identifiers : of the networks that ``__init__.py`` registers, each once
    model_file : file with ``get_model``
    constants, functions : of that file's top level, by name
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.trees: dict[str, ast.Module] = {}
        self.unreadable: dict[str, str] = {}
        for path in sorted(folder.rglob("*.py")):
            file = path.relative_to(folder).as_posix()
            if path.is_dir():
                continue
            try:
                self.trees[file] = ast.parse(read_text(path, errors="replace"))
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                self.unreadable[file] = f"{type(error).__name__}: {error}"
        self.registrations = list(self._registrations())
        found = [r.identifier for r in self.registrations if r.identifier is not None]
        self.identifiers = list(dict.fromkeys(found))
        with_model = [f for f in self.trees if "get_model" in _functions(self.trees[f])]
        self.model_file = "model.py"
        if with_model and "model.py" not in with_model:
            self.model_file = with_model[0]
        tree = self.trees.get(self.model_file, ast.Module([], []))
        self.constants = _learn(tree.body, {})
        self.functions = _functions(tree)

    def _registrations(self) -> Iterator[Registration]:
        if "__init__.py" not in self.trees:
            return
        text = read_text(self.folder / "__init__.py", errors="replace")
        lines = text.splitlines()
        for node in ast.walk(self.trees["__init__.py"]):
            for target in node.targets if isinstance(node, ast.Assign) else ():
                if not isinstance(target, ast.Subscript):
                    continue
                owner = getattr(target.value, "id", getattr(target.value, "attr", ""))
                if owner != REGISTRY:
                    continue
                key, line = folded(target.slice, {}), lines[target.lineno - 1]
                if not isinstance(key, str):
                    yield Registration(None, target.lineno, False, False)
                    continue
                yield Registration(
                    key,
                    target.lineno,
                    f"{REGISTRY}['{key}']" in line.replace('"', "'"),
                    key in scanned_identifiers(line),
                )

    def nodes(
        self, identifier: str = "", file: str | None = None
    ) -> Iterator[tuple[ast.AST, Mapping[str, Any]]]:
        """Parts of a file, by default the model's, and the values of names in each.

        The first argument of every function is taken to be the identifier.
        """
        tree = self.trees.get(file or self.model_file, ast.Module([], []))
        constants = _learn(tree.body, {})
        known = dict.fromkeys(ast.walk(tree), constants)
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                first = [argument.arg for argument in function.args.args[:1]]
                given = dict.fromkeys(first, identifier) if identifier else {}
                inside = _learn(function.body, {**constants, **given})
                known |= dict.fromkeys(ast.walk(function), inside)
        yield from known.items()

    def returned(self, name: str, identifier: str) -> Any:
        """What a function of the model's file returns, or None if not constant."""
        function: ast.AST = self.functions.get(name, ast.Module([], []))
        returns = [n for n in ast.walk(function) if isinstance(n, ast.Return)]
        known = dict(self.nodes(identifier))
        return folded(returns[-1].value, known[returns[-1]]) if returns else None

    def texts(self, identifier: str) -> set[str]:
        """Every text that the model's file makes of constants, for one network."""
        made = (
            folded(node, known)
            for node, known in self.nodes(identifier)
            if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp)
        )
        return {text for text in made if isinstance(text, str)}

    def calls(self, identifier: str = "") -> Iterator[Call]:
        """Calls in every file but tests and setup."""
        for file, tree in self.trees.items():
            if Path(file).name.startswith(("test", "setup", "conftest")):
                continue
            imported = _imported(tree)
            for node, known in self.nodes(identifier, file):
                if isinstance(node, ast.Call) and (name := _dotted(node.func)):
                    first, dot, rest = name.partition(".")
                    name = imported.get(first, first) + dot + rest
                    yield Call(name, file, node.lineno, node, known)


def _functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {function.name: function for function in found[::-1]}


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


def _dotted(node: ast.expr) -> str | None:
    """``a.b.c`` of such an expression; None of any other."""
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value)
        return f"{owner}.{node.attr}" if owner else None
    return node.id if isinstance(node, ast.Name) else None
