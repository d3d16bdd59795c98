"""`ce-align figures`."""

from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.options import Results
from ce_align.cli.screen import tell_written

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align figures --results results --out figures

  ce-align figures --which 2 --which forest --columns 1

  ce-align figures --which 4 --others scores.csv

The CSV of --others has columns model and score, one row a network. A column recording,
the same name in every row, says which of your own scores are compared with them;
without it that is the mean over the four IT sets, or else over all recordings.
"""


def figures(
    which: Annotated[
        list[str] | None,
        typer.Option(
            help="1 to 8, forest, layers, overlap or training. Repeatable. "
            "\\[default: all that have rows]"
        ),
    ] = None,
    others: Annotated[
        Path | None, typer.Option(help="CSV of other networks' scores, for Figure 4.")
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a training, for its curves. Repeatable."),
    ] = None,
    columns: Annotated[
        int, typer.Option(min=1, max=2, help="Width in columns of a page.")
    ] = 2,
    out: Annotated[Path, typer.Option(help="Folder for PDF, PNG and CSV.")] = Path(
        "figures"
    ),
    results: Results = Path("results"),
) -> None:
    """Draw the paper's figures, and further ones, from stored rows."""
    from ce_align.report.paper import FIGURES
    from ce_align.report.paper.files import FigureConfig
    from ce_align.runner import run as run_configs

    configs = [
        FigureConfig(
            figure=name,
            columns=1 if columns == 1 else 2,
            others=None if others is None else str(others),
            runs=tuple(map(str, run or ())),
        )
        for name in dict.fromkeys(which or FIGURES)
    ]
    tell_written(run_configs(configs, results, out=out), everything=not which)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(figures)
