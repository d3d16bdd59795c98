"""`ce-align results`, `tables`, `figures`, `report` and `doctor`: what there is."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.flags import Asked, Found, Json, Results, flags
from ce_align.cli.screen import (
    message,
    print_json,
    print_table,
    progress_bars,
    tell_written,
)
from ce_align.report.paper.files import FigureConfig, TableConfig

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
def results(
    stage: Annotated[
        str | None, typer.Option(help="Only this stage. \\[default: all]")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write every column of every row here.")
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            help="Show what the networks of a row are made of, by the first letters of "
            "its config_id."
        ),
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Show every stored row, and what failed."""
    import pandas as pd

    from ce_align.files import atomic_path
    from ce_align.report.terminal import failures_table, frame_table, identity_table
    from ce_align.results import ResultStore
    from ce_align.stages.earlier import stored_rows
    from ce_align.stages.same_network import identity as whose
    from ce_align.stages.same_network import load_rows, reasons_left_out

    store = ResultStore(results)
    if identity is not None:
        print_table(identity_table(store.starting(identity, stage)))
        return
    rows = pd.DataFrame(stored_rows(store, stage))
    failed = store.failures(stage)
    # Rows of any stage, and a training, may tell that a network is an older one.
    reasons = reasons_left_out(load_rows(store))
    if len(rows) and reasons:
        rows = rows.assign(
            left_out=[reasons.get(whose(row), "") for row in rows.to_dict("records")]
        )
    if rows.empty and not failed:
        message(f"no {stage or 'stored'} rows in {results}")
    elif csv is None:
        if len(rows):
            print_table(frame_table(rows))
        if failed:
            print_table(failures_table(failed))
    if csv is not None:
        with atomic_path(csv) as temporary:
            rows.to_csv(temporary, index=False)
        message(f"{len(rows)} rows in {csv}")
        if failed:
            message(f"{len(failed)} configurations failed: ce-align results says why")


TABLES_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align tables --results results --out tables

  ce-align tables --which 1 --which 3
"""

FIGURES_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align figures --results results --out figures

  ce-align figures --which 2 --which forest --columns 1

  ce-align figures --which 4 --others scores.csv

The CSV of --others has columns model and score, one row a network. A column recording,
the same name in every row, says which of your own scores are compared with them;
without it that is the mean over the four IT sets, or else over all recordings.
"""


@commands.command(epilog=TABLES_EXAMPLES)
@flags(table=Found("all that have rows"))
def tables(
    asked: Asked[TableConfig],
    out: Annotated[
        Path, typer.Option(help="Folder for Markdown, LaTeX and CSV.")
    ] = Path("tables"),
    results: Results = Path("results"),
) -> None:
    """Write the paper's tables from stored rows."""
    from ce_align.report.paper import TABLES
    from ce_align.runner import run

    which = asked.values("table")
    configs = asked.configs(table=which or list(TABLES))
    tell_written(run(configs, results, out=out), everything=not which)


@commands.command(epilog=FIGURES_EXAMPLES)
@flags(figure=Found("all that have rows"))
def figures(
    asked: Asked[FigureConfig],
    out: Annotated[Path, typer.Option(help="Folder for PDF, PNG and CSV.")] = Path(
        "figures"
    ),
    results: Results = Path("results"),
) -> None:
    """Draw the paper's figures, and further ones, from stored rows."""
    from ce_align.report.paper import FIGURES
    from ce_align.runner import run

    which = asked.values("figure")
    configs = asked.configs(figure=which or list(FIGURES))
    tell_written(run(configs, results, out=out), everything=not which)


REPORT_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align report

  ce-align report --results demo/results --others scores.csv --out report.html
"""


@commands.command(epilog=REPORT_EXAMPLES)
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


DOCTOR_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align doctor

  ce-align doctor --json | jq '.[] | select(.state != "ok")'
"""


@commands.command(epilog=DOCTOR_EXAMPLES)
def doctor(
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for each remote answer.")
    ] = 3.0,
    json: Json = False,
) -> None:
    """Check packages, device, folders, network and the access to each recording.

    The exit status is 0 unless work without a network cannot be done.
    """
    from rich.table import Table

    from ce_align.brainscore.doctor import examine

    findings = examine(timeout)
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = Table()
        table.add_column("check", overflow="fold")
        table.add_column("state", no_wrap=True)
        table.add_column("found", overflow="fold")
        table.add_column("what to do", overflow="fold")
        for finding in findings:
            table.add_row(
                finding.check, finding.state, finding.found, finding.remedy or "–"
            )
        print_table(table)
    n_failed = sum(finding.state == "fail" for finding in findings)
    if n_failed:
        message(f"error: {n_failed} of {len(findings)} checks failed")
        raise typer.Exit(1)
