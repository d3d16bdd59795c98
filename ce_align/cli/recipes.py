"""`ce-align run` and `ce-align demo`: many configurations at once."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ce_align.cli.flags import Root, Session, flags
from ce_align.cli.screen import (
    message,
    print_json,
    print_table,
    print_tables,
    progress_bars,
    tell_outcome,
)

if TYPE_CHECKING:
    from ce_align.recipes import Recipe
    from ce_align.results import ResultStore

__all__ = ["commands"]

commands = typer.Typer()

RUN_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align run benchmarks/it_predictivity.py --dry-run

  ce-align run benchmarks/*.py analyses/*.py figures/*.py --out paper

A recipe is a Python file with a docstring and RECIPE = [configurations]. What is in
the results already is not computed again.
"""


@commands.command(epilog=RUN_EXAMPLES)
@flags()
def run(
    recipe: Annotated[list[Path], typer.Argument(help="Python files.")],
    session: Session,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and run nothing.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of tables and figures.")] = Path(
        "paper"
    ),
    runs: Annotated[
        Path, typer.Option(help="Folder of trainings, as the recipes name it.")
    ] = Path("runs"),
    root: Root = None,
) -> None:
    """Execute recipes: train, score, analyse, draw; what is stored is skipped."""
    from ce_align.recipes import load_recipe
    from ce_align.results import ResultStore
    from ce_align.runner import register_brainscore

    register_brainscore()
    read = [load_recipe(path) for path in recipe]
    if dry_run:
        _print_plan(read, ResultStore(session.results))
        return
    outcome = session.run(
        (config for one in read for config in one.configs),
        runs=runs,
        out=out,
        datasets=root,
    )
    if session.json:
        print_json(outcome.rows)
    for path in outcome.files:
        message(f"wrote {path}")
    message(
        f"{outcome.n_done} done, {outcome.n_stored} in {session.results} already, "
        f"{len(outcome.failures)} failed"
    )
    tell_outcome(outcome)


def _print_plan(recipes: "list[Recipe]", store: "ResultStore") -> None:
    from rich.table import Table

    from ce_align.runner import plan

    table = Table()
    for name in ("recipe", "serves", "stage"):
        table.add_column(name)
    for name in ("configurations", "in results"):
        table.add_column(name, justify="right")
    for recipe in recipes:
        first = (str(recipe.path), recipe.purpose)
        for stage, (n, n_stored) in plan(recipe.configs, store).items():
            table.add_row(*first, stage, str(n), str(n_stored))
            first = ("", "")
    print_table(table)


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


@commands.command()
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
