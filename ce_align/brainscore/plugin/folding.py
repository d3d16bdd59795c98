"""Values of expressions that need no running: constants, tables and texts."""

import ast
from collections.abc import Mapping
from typing import Any

__all__ = ["folded", "learn", "try_folded"]

#: Methods of text that are folded; none has an effect.
TEXT_METHODS = {
    *("split", "rsplit", "replace", "strip", "lstrip", "rstrip", "lower", "upper"),
    *("join", "format", "removeprefix", "removesuffix", "partition", "rpartition"),
}

#: Longest text that folding makes.
MAX_TEXT = 10_000


class NotConstantError(Exception):
    """An expression whose value is not known without running it."""


def folded(node: ast.AST | None, known: Mapping[str, Any]) -> Any:
    """Value of an expression of constants, known names and methods of text.

    Raises
    ------
    NotConstantError
        If it needs anything else.
    """
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [folded(item, known) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {
                folded(key, known): folded(value, known)
                for key, value in zip(keys, values, strict=True)
            }
        case ast.JoinedStr(values=parts):
            return "".join(str(folded(part, known)) for part in parts)
        case ast.FormattedValue(value=value, format_spec=None):
            return folded(value, known)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -folded(operand, known)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _bounded(folded(left, known) + folded(right, known))
        case ast.Subscript(value=value, slice=index):
            return folded(value, known)[folded(index, known)]
        case ast.Call(func=ast.Attribute(value=text, attr=method), keywords=[]) if (
            method in TEXT_METHODS
        ):
            receiver = folded(text, known)
            arguments = [folded(argument, known) for argument in node.args]
            if isinstance(receiver, str):
                return _bounded(getattr(receiver, method)(*arguments))
    raise NotConstantError


def _bounded(value: Any) -> Any:
    if isinstance(value, str | list) and len(value) > MAX_TEXT:
        raise NotConstantError
    return value


def try_folded(node: ast.AST | None, known: Mapping[str, Any]) -> Any:
    """The folded value, or None."""
    try:
        return folded(node, known)
    except (NotConstantError, ArithmeticError, LookupError, TypeError, ValueError):
        return None


def learn(body: list[ast.stmt], known: dict[str, Any]) -> None:
    """Add the names that the statements of one block bind to constants."""
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=expression):
                value = try_folded(expression, known)
                if value is None:
                    known.pop(name, None)
                else:
                    known[name] = value
            case ast.With(body=inner):
                learn(inner, known)
