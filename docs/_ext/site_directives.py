"""What the site draws from the code itself: commands, settings, rooms, measures.

``command``
    commands, and what they printed when the site was built
``commands``
    every command with its options, from the parser
``settings``
    the fields of a configuration, or of a row
``rooms``
    the rooms of the package on their floors, and what each imports
``quantities``
    the numbers of a measure, by the names that rows have
``figures``
    the figures and tables that can be drawn
"""

import ast
import os
import re
import shutil
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import matplotlib
from blocks import DOCS, ROOT, pages, run_page
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx

PACKAGE = ROOT / "ce_align"
#: What commands printed, by page and line; filled before pages are read.
PRINTED: dict[tuple[str, int], str] = {}


def run_pages(app: Sphinx) -> None:
    """Run the blocks of all pages in one folder, made anew; caches are kept."""
    build = DOCS / "_build"
    work = build / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    os.environ["CE_ALIGN_HOME"] = str(build / "cache")
    os.environ.setdefault("BS_INSTALL_DEPENDENCIES", "no")
    matplotlib.use("agg")  # not by environment: notebooks show their figures
    for page in pages():
        for line, text in run_page(page, work).items():
            PRINTED[str(page), line] = text.replace(str(work) + "/", "")


class Command(Directive):
    """Commands, and what they printed."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """A block to copy from, and one of output."""
        source = str(Path(self.state.document["source"]))
        shown = nodes.literal_block("\n".join(self.content), "\n".join(self.content))
        shown["language"] = "sh"
        printed = PRINTED.get((source, self.lineno), "")
        text = "\n".join(
            line.rstrip() for line in printed.splitlines() if line[:2] != "$ "
        ).strip()
        output = nodes.literal_block(text, text, classes=["printed"])
        output["language"] = "none"
        return [shown, output] if text else [shown]


class Table(Directive):
    """A table of Markdown that the code gives."""

    option_spec: ClassVar = {"only": directives.unchanged}
    optional_arguments = 3

    def lines(self) -> list[str]:
        """Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """The parsed Markdown."""
        held = nodes.Element()
        text = StringList(self.lines(), source=f"<{self.name}>")
        self.state.nested_parse(text, self.content_offset, held)
        return held.children


def cell(text: str) -> str:
    """Text in one cell of a table."""
    plain = re.sub(r"\\?\[/?(?:bold|dim|default:?)[^\]]*\]", "", text)
    return " ".join(plain.split()).replace("|", "\\|")


class Commands(Table):
    """Every command with its options."""

    def lines(self) -> list[str]:
        """A heading, a sentence, examples and a table for each."""
        from typer.main import get_group

        from ce_align.cli.app import COMMANDS

        found = []
        for name, (module, line) in COMMANDS.items():
            group = get_group(import_module(f"ce_align.cli.{module}").commands)
            command = group.commands[name]
            found += [f"### `ce-align {name}`", "", line, ""]
            found += ["| option | |", "|---|---|"]
            for parameter in command.params:
                spelled = ", ".join(
                    f"`{one}`" for one in [*parameter.opts, *parameter.secondary_opts]
                )
                if not parameter.opts[0].startswith("-"):
                    spelled = f"`{parameter.name.upper()}`"
                kind = choices(parameter)
                about = cell(getattr(parameter, "help", "") or "")
                found.append(f"| {spelled}{kind} | {about}{default(parameter)} |")
            found.append("")
        return found


def choices(parameter: Any) -> str:
    """The words that an option takes, if they are few."""
    descriptor = getattr(parameter, "type_descriptor", None)
    kind = getattr(descriptor, "annotation", None)
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        return ""
    return f" {' · '.join(str(one.value) for one in kind)}"


def default(parameter: Any) -> str:
    """What an option is where it is not given, if that is a word or a number."""
    value = parameter.default
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return f" Default: `{value}`." if plain and value != "" else ""


class Settings(Table):
    """Fields of a configuration or row."""

    required_arguments = 1
    optional_arguments = 0

    def lines(self) -> list[str]:
        """A row for each field of its own."""
        import ce_align

        kind = getattr(ce_align, self.arguments[0], None)
        if kind is None:
            module, name = self.arguments[0].rsplit(".", 1)
            kind = getattr(import_module(module), name)
        found = ["| setting | | without it |", "|---|---|---|"]
        for name, field in kind.model_fields.items():
            value = "required" if field.is_required() else f"`{field.default!r}`"
            if field.default_factory is not None:
                value = "empty"
            found.append(f"| `{name}` | {cell(field.description or '')} | {value} |")
        return found


class Quantities(Table):
    """Numbers of a measure."""

    required_arguments = 1
    optional_arguments = 0

    def lines(self) -> list[str]:
        """A row for each: name, title, range."""
        from ce_align.stages.measures import MEASURES

        found = ["| `metric` | in tables and figures | range |", "|---|---|---|"]
        for one in MEASURES[self.arguments[0]].quantities:
            least, most = (f"{x:g}".replace("inf", "∞") for x in (one.least, one.most))
            bounds = f"{least} … {most}".replace("-", "−")
            found.append(f"| `{one.name}` | {one.title} | {bounds} |")
        return found


class Figures(Table):
    """Figures and tables that can be drawn."""

    optional_arguments = 0

    def lines(self) -> list[str]:
        """A row for each: name, what it shows."""
        from ce_align.report.paper import FIGURES, TABLES

        found = []
        for what, known in (("figure", FIGURES), ("table", TABLES)):
            found += [f"| {what} | shows |", "|---|---|"]
            found += [f"| `{name}` | {one.about} |" for name, one in known.items()]
            found.append("")
        return found


def imports() -> dict[str, dict[str, Any]]:
    """For each room: what its head says, files, lines, and the rooms it imports."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room.startswith("__"):
            continue
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        held = found.setdefault(
            room, {"about": "", "files": 0, "lines": 0, "imports": set()}
        )
        held["files"] += 1
        held["lines"] += text.count("\n")
        if path.name == "__init__.py" or path.parent == PACKAGE:
            head = (ast.get_docstring(tree) or "").split("\n\n")[0]
            held["about"] = held["about"] or " ".join(head.split())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            parts = (name.split(".") for name in names)
            held["imports"] |= {p[1] for p in parts if p[0] == "ce_align" and p[1:]}
    for room, held in found.items():
        held["imports"] = {x for x in held["imports"] if x in found and x != room}
    return found


def floors(rooms: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Rooms from the top down: each above all that it imports."""
    height: dict[str, int] = {}

    def of(room: str) -> int:
        if room not in height:
            below = rooms[room]["imports"]
            height[room] = 1 + max((of(one) for one in below), default=-1)
        return height[room]

    for room in rooms:
        of(room)
    return [
        sorted(room for room in rooms if height[room] == floor)
        for floor in range(max(height.values()), -1, -1)
    ]


class Rooms(Table):
    """The house: a floor a line, and a table of who imports whom."""

    optional_arguments = 0

    def lines(self) -> list[str]:
        """A table; the drawing comes before it."""
        rooms = imports()
        found = ["| room | holds | files | lines | imports |", "|---|---|--:|--:|---|"]
        for floor in floors(rooms):
            for room in floor:
                held = rooms[room]
                others = ", ".join(f"`{one}`" for one in sorted(held["imports"]))
                found.append(
                    f"| `{room}` | {cell(held['about'])} | {held['files']} | "
                    f"{held['lines']:,} | {others} |"
                )
        return found

    def run(self) -> list[nodes.Node]:
        """The drawing, then the table."""
        rooms = imports()
        drawn = ['<div class="house">']
        for floor in floors(rooms):
            boxes = (
                f'<span class="room" title="imports '
                f'{", ".join(sorted(rooms[room]["imports"])) or "nothing"}">'
                f"<b>{room}</b><small>{rooms[room]['lines']:,} lines</small></span>"
                for room in floor
            )
            drawn.append(f'<div class="floor">{"".join(boxes)}</div>')
        drawn.append("</div>")
        return [nodes.raw("", "\n".join(drawn), format="html"), *super().run()]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what this file has."""
    app.connect("builder-inited", run_pages)
    for name, kind in (
        ("command", Command),
        ("commands", Commands),
        ("settings", Settings),
        ("quantities", Quantities),
        ("figures", Figures),
        ("rooms", Rooms),
    ):
        app.add_directive(name, kind)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
