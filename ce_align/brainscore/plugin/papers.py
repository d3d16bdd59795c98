"""Checks of plugins: citation, tests, requirements and metadata."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from ce_align.brainscore.plugin.findings import Finding, fault, warning
from ce_align.brainscore.plugin.source import PluginSource
from ce_align.checks import named_some

__all__ = ["paper_checks"]

#: What a plugin may install by.
REQUIREMENTS = ("requirements.txt", "setup.py", "pyproject.toml", "environment.yml")

METADATA = ("metadata.yml", "metadata.yaml")


def paper_checks(source: PluginSource) -> Iterator[Finding]:
    """Everything beside the code of one plugin."""
    yield from _citation(source)
    yield from _tests(source)
    yield from _requirements(source)
    yield from _metadata(source)


def _citation(source: PluginSource) -> Iterator[Finding]:
    file = source.model_file
    if source.function("get_bibtex") is None:
        yield fault("bibtex", "there is no get_bibtex: nothing can be cited", file)
        return
    identifier = source.identifiers[0] if source.identifiers else ""
    cited = source.returned("get_bibtex", identifier)
    if not isinstance(cited, str):
        return  # it is computed, which reading does not follow
    if not re.search(r"@\w+\s*\{", cited):
        shown = cited.strip()[:20]
        yield fault("bibtex", f"the citation is empty: {shown!r}", file)
        return
    fields = {field.lower() for field in re.findall(r"(\w+)\s*=", cited)}
    absent = [field for field in ("author", "year") if field not in fields]
    if not fields & {"url", "doi"}:
        absent.append("url or doi")
    if absent:
        yield warning(
            "bibtex",
            f"Brain-Score cannot link the citation without {', '.join(absent)}",
            file,
        )


def _tests(source: PluginSource) -> Iterator[Finding]:
    if "test.py" not in source.texts:
        yield fault("tests", "there is no test.py, which Brain-Score asks for")
        return
    tree = source.trees.get("test.py")
    if tree is None:
        return
    tests = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
    ]
    if not tests:
        yield fault("tests", "test.py tests nothing", "test.py")
        return
    idle = [test.name for test in tests if not _asserts(test)]
    if len(idle) == len(tests):
        yield fault(
            "tests", f"no test can fail: {named_some(idle)} assert nothing", "test.py"
        )


def _asserts(test: ast.FunctionDef) -> bool:
    """Whether a test asserts anything but a constant, or calls something."""
    for node in ast.walk(test):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
        if isinstance(node, ast.Call):
            return True
    return False


def _requirements(source: PluginSource) -> Iterator[Finding]:
    present = [name for name in REQUIREMENTS if (source.folder / name).is_file()]
    if not present:
        yield warning("requirements", "nothing says what to install: requirements.txt")
    tree = source.trees.get("setup.py")
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Call) and _is_nameless_setup(node):
            yield fault(
                "setup",
                "setup() has no name, so that it installs as UNKNOWN-0.0.0; use "
                "requirements.txt instead",
                "setup.py",
                node.lineno,
            )


def _is_nameless_setup(call: ast.Call) -> bool:
    function = getattr(call.func, "id", getattr(call.func, "attr", ""))
    # A keyword without a name is a dictionary of arguments, which may have one.
    named = any(keyword.arg in ("name", None) for keyword in call.keywords)
    return function == "setup" and not named


def _metadata(source: PluginSource) -> Iterator[Finding]:
    from brainscore_core.metadata import MetadataError
    from brainscore_core.metadata.contract import read_yaml, validate

    present = [name for name in METADATA if (source.folder / name).is_file()]
    if not present:
        yield warning("metadata", "there is no metadata.yml")
        return
    file = present[0]
    try:
        document = read_yaml((source.folder / file).read_text(encoding="utf-8"))
        if isinstance(document, dict) and document.get("schema_version") == "2.0":
            validate(document, "vision")
            problem = None
        else:
            problem = _legacy_problem(document)
    except (MetadataError, UnicodeError) as error:
        problem = str(error)
    if problem is not None:
        yield fault("metadata", problem, file)
        return
    absent = [name for name in source.identifiers if name not in document["models"]]
    if absent:
        yield fault("metadata", f"nothing is said of {named_some(absent)}", file)


def _legacy_problem(document: Any) -> str | None:
    """What is wrong with metadata before schema 2.0."""
    from brainscore_core.metadata.contract import LEGACY_KEYS

    models = document.get("models") if isinstance(document, dict) else None
    if not isinstance(models, dict) or not all(
        isinstance(entry, dict) for entry in models.values()
    ):
        return "expected 'models' with an entry for each network"
    unknown = sorted({key for entry in models.values() for key in entry} - LEGACY_KEYS)
    return f"unknown keys: {named_some(unknown)}" if unknown else None
