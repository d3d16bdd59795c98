"""`ce-align tables`."""

from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.options import Results
from ce_align.cli.screen import tell_written

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align tables --results results --out tables

  ce-align tables --which 1 --which 3
"""


def tables(
    which: Annotated[
        list[str] | None,
        typer.Option(help="1 to 5. Repeatable. \\[default: all that have rows]"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for Markdown, LaTeX and CSV.")] = (
        Path("tables")
    ),
    results: Results = Path("results"),
) -> None:
    """Write the paper's tables from stored rows."""
    from ce_align.report.paper import TABLES
    from ce_align.report.paper.files import TableConfig
    from ce_align.runner import run

    configs = [TableConfig(table=name) for name in dict.fromkeys(which or TABLES)]
    tell_written(run(configs, results, out=out), everything=not which)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(tables)
