"""`ce-align demo`: the whole way on what the package itself holds."""

import time
from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.screen import message, print_tables, progress_bars, tell_outcome

__all__ = ["add_to"]

BEGIN = """\
The report will be {page}
A simulated session is imported from NWB; six tiny networks are trained on procedural
images, scored on a simulated IT recording, analysed and compared. No animal, no
photograph: every number below is simulated."""

NEXT = """
Try next:
  ce-align results --results {out}/results
  ce-align train --help       your own images
  ce-align recordings show {out}/session.nc
  ce-align import --help      your own recording
  ce-align recordings         the macaque IT sets, and what access they need
"""


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder of networks, rows, figures and report.")
    ] = Path("demo"),
) -> None:
    """Train, score, analyse, correlate, draw and report, at toy size, simulated."""
    from ce_align.brainscore import register
    from ce_align.demonstration import demo_recipe, session_score
    from ce_align.report.page import write_report
    from ce_align.report.terminal import score_tables
    from ce_align.runner import run
    from ce_align.stages.scores import ScoreRow

    register()
    results, page = out / "results", out / "report.html"
    message(BEGIN.format(page=page.resolve()))
    began = time.monotonic()

    def tell(text: str) -> None:
        message(f"{time.monotonic() - began:4.0f} s  {text}")

    with progress_bars() as progress:
        outcome = run(
            [session_score(out, tell), *demo_recipe(out / "runs")],
            results,
            runs=out / "runs",
            out=out / "paper",
            progress=progress,
            notify=tell,
        )
        tell("report")
        write_report(
            results,
            page,
            title="ce_align demonstration (simulated)",
            progress=progress,
        )
    print_tables(score_tables(outcome.of(ScoreRow)))
    outcome.notes.clear()  # the report holds them
    tell_outcome(outcome, results)
    message(NEXT.format(out=out))
    message(f"The report is {page.resolve()}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)
