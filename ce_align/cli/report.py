"""`ce-align report`."""

from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.options import Results
from ce_align.cli.screen import message, progress_bars

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align report

  ce-align report --results demo/results --others scores.csv --out report.html
"""


def report(
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path(
        "report.html"
    ),
    others: Annotated[
        Path | None,
        typer.Option(help="CSV of other networks' scores: model, score."),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a training, for its curves. Repeatable."),
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Alignment report",
    results: Results = Path("results"),
) -> None:
    """Write every result as one page: summary, figures, tables, rows, provenance."""
    from ce_align.report.page import write_report

    with progress_bars() as progress:
        missing = write_report(
            results,
            out,
            others=others,
            runs=tuple(runs or ()),
            title=title,
            progress=progress,
        )
    for line in missing:
        message(f"left out {line}")
    message(f"report: {out}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(report)
