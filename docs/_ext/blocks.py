"""Code blocks of the documents: read, run in order, and shown with what they print.

A block of ``sh``, ``command``, ``python`` or ``code-cell`` is run, page after page in
one folder, by the tests and when the site is built; ``command`` is shown with its
output. A block whose first line is ``# needs …`` says why it cannot be run here: its
commands are parsed only. One whose first line is ``# NAME.py`` is written to that file.
"""

import ast
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent
ROOT = DOCS.parent
#: Pages that make the files which others use come first.
FIRST = (DOCS / "quickstart.md", ROOT / "README.md", DOCS / "training.md")
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)\{?(?P<kind>[\w-]+)\}?[^\n]*\n"
    r"(?P<code>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
NEEDS = "# needs "
FILE = re.compile(r"# (\w+\.py)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its fence, its kind and what it holds."""

    page: Path
    line: int
    kind: str
    code: str

    @property
    def where(self) -> str:
        """Page and line, as editors take them."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def needs(self) -> str | None:
        """Why it cannot be run here; None if it can."""
        first = self.code.lstrip().split("\n", 1)[0]
        return first.removeprefix(NEEDS) if first.startswith(NEEDS) else None

    @property
    def commands(self) -> list[list[str]]:
        """Words of each line of a shell, without comments."""
        lines = self.code.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines]
        return [line for line in words if line]


def pages() -> list[Path]:
    """Every page with blocks, in the order in which they are run."""
    rest = sorted(path for path in DOCS.glob("*.md") if path not in FIRST)
    return [*FIRST, *rest, ROOT / "CONTRIBUTING.md"]


def notebooks() -> list[Path]:
    """The notebooks, each of which stands alone."""
    return sorted(DOCS.glob("notebooks/*_*.md"))


def blocks(page: Path) -> Iterator[Block]:
    """Fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found["kind"], found["code"])


def run_command(words: list[str]) -> str:
    """Run a command in this process; what it printed, on standard output if any.

    Raises
    ------
    RuntimeError
        If its exit status is not 0.
    """
    from ce_align.cli import main

    out, err, status, given = StringIO(), StringIO(), 0, sys.argv
    sys.argv = words
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        status = end.code or 0
    finally:
        sys.argv = given
    if status:
        said = out.getvalue() + err.getvalue()
        raise RuntimeError(f"{shlex.join(words)} ended with {status}:\n{said}")
    return out.getvalue() or err.getvalue()


def parse_command(words: list[str]) -> None:
    """Let the command's own parser take the words; nothing is run.

    Raises
    ------
    click.ClickException
        If it does not understand them.
    """
    from typer.main import get_group

    from ce_align.cli.app import app

    group = get_group(app)
    top = group.make_context("ce-align", words[1:])
    name, command, rest = group.resolve_command(top, words[1:])
    command.make_context(name, rest, parent=top)


def run_python(code: str, names: dict[str, Any]) -> Any:
    """Run code among `names`; the value of its last line, if that is an expression."""
    tree = ast.parse(code)
    last = tree.body[-1] if tree.body else None
    tail = ast.Expression(last.value) if isinstance(last, ast.Expr) else None
    body = ast.Module(tree.body[:-1] if tail else tree.body, [])
    exec(compile(body, "<block>", "exec"), names)
    return eval(compile(tail, "<block>", "eval"), names) if tail else None


def run_block(block: Block, names: dict[str, Any]) -> str:
    """Run a block, or parse it if it cannot be run; what it printed.

    Raises
    ------
    ValueError
        If it holds something that neither is run nor says what it needs.
    """
    if block.kind in {"python", "code-cell"} and not block.needs:
        if file := FILE.match(block.code):
            Path(file[1]).write_text(block.code, encoding="utf-8")
        else:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                run_python(block.code, names)
        return ""
    if block.kind not in {"sh", "command"}:
        return ""
    printed = []
    for words in block.commands:
        if block.needs:
            for inner in commands_within(words):
                parse_command(inner)
        elif words[0] == "ce-align":
            printed.append(f"$ {shlex.join(words)}\n{run_command(words)}")
        elif words[0] == "make":
            check_target(words)
        elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
            check_module(words[2])
        elif not block.needs:
            raise ValueError(f"{block.where}: {words[0]} is not run; say what it needs")
    return "\n".join(printed)


def commands_within(words: list[str]) -> Iterator[list[str]]:
    """The command that a line is, or that it hands to another program."""
    if words[0] == "ce-align":
        yield words
    for word in words:
        if found := re.search(r"ce-align [^;]+", word):
            yield shlex.split(found[0])


def check_target(words: list[str]) -> None:
    """Refuse a target that the Makefile does not have."""
    for target in (word for word in words[1:] if "=" not in word):
        rule = rf"^{re.escape(target)}:"
        if not re.search(rule, (ROOT / "Makefile").read_text(), re.MULTILINE):
            raise ValueError(f"the Makefile has no target {target}")


def check_module(name: str) -> None:
    """Refuse a module or a package to be run that is not there."""
    path = ROOT.joinpath(*name.split("."))
    if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
        raise ValueError(f"there is no module {name}")


def run_page(page: Path, folder: Path) -> dict[int, str]:
    """Run the blocks of a page in a folder; what each printed, by its line.

    Raises
    ------
    RuntimeError
        Naming the block that failed.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    printed, before = {}, sys.path[:]
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "88"
    sys.path.insert(0, str(folder))
    try:
        with chdir(folder):
            for block in blocks(page):
                try:
                    printed[block.line] = run_block(block, names)
                except (Exception, SystemExit) as error:
                    raise RuntimeError(f"{block.where}: {error}") from error
    finally:
        sys.path[:] = before
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(folder)):
                del sys.modules[name]
        if width is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = width
    return printed


def run_notebook(page: Path, folder: Path) -> Any:
    """Run the cells of a notebook in a folder, without a kernel.

    Returns
    -------
    The names that its cells made.

    Raises
    ------
    RuntimeError
        Naming the cell that failed.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    with chdir(folder):
        for block in blocks(page):
            try:
                value = run_python(block.code, names)
                getattr(value, "_repr_html_", value.__repr__)()
            except Exception as error:
                raise RuntimeError(f"{block.where}: {error}") from error
    return names
