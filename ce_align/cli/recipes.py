"""`ce-align run` and `ce-align demo`: many configurations at once."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ce_align.cli.completion import COMPLETIONS
from ce_align.cli.flags import Root, Session, flags
from ce_align.cli.screen import (
    message,
    progress_bars,
    tell_outcome,
)
from ce_align.cli.view import View

if TYPE_CHECKING:
    from ce_align.recipes import Recipe
    from ce_align.report.sheet import Sheet
    from ce_align.results import ResultStore

__all__ = ["commands"]

commands = typer.Typer()

RUN_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align run benchmarks/it_predictivity.py --dry-run

  ce-align run analyses/variability.py figures/variability.py

A recipe is a Python file with a docstring and RECIPE = [configurations]. What is in
the results already is not computed again.
"""


@commands.command(epilog=RUN_EXAMPLES)
@flags()
def run(
    recipe: Annotated[
        list[Path],
        typer.Argument(help="Python files.", autocompletion=COMPLETIONS["recipe"]),
    ],
    session: Session,
    view: View,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and run nothing.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of tables and figures.")] = Path(
        "paper-figures"
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
        plan = _plan(read, ResultStore(session.results))
        view.show(plan.records, [plan])
        return
    outcome = session.run(
        (config for one in read for config in one.configs),
        runs=runs,
        out=out,
        datasets=root,
    )
    if view.json or view.csv:
        view.show(outcome.rows, ())
    for path in outcome.files:
        message(f"wrote {path}")
    message(
        f"{outcome.n_done} done, {outcome.n_stored} in {session.results} already, "
        f"{len(outcome.failures)} failed"
    )
    tell_outcome(outcome)


def _plan(recipes: "list[Recipe]", store: "ResultStore") -> "Sheet":
    """Configurations of each recipe and stage, and hours that the rest may take."""
    from ce_align.costs.rates import stored_rates
    from ce_align.costs.work import total
    from ce_align.report.sheet import Column, Sheet
    from ce_align.runner import plan

    rates = stored_rates()
    records = []
    for recipe in recipes:
        for stage, of_state in plan(recipe.configs, store).items():
            cost = total([*of_state["failed"], *of_state["never run"]], rates)
            records.append(
                {
                    "recipe": str(recipe.path),
                    "serves": recipe.purpose,
                    "stage": stage,
                    "configurations": sum(map(len, of_state.values())),
                    "in_results": len(of_state["done"]),
                    "failed": len(of_state["failed"]),
                    "hours": cost.total / 3600,
                    "memory_gb": cost.memory / 1e9,
                    "written_gb": cost.written / 1e9,
                    "rates": rates.machine,
                    "assumed": list(cost.assumed),
                }
            )
    columns = (
        *(Column("recipe", keep=True), Column("serves", kind="text", keep=True)),
        *(Column("stage", keep=True), Column("configurations", keep=True)),
        *(Column("in_results", keep=True), Column("failed", keep=True)),
        *(Column("hours", form=".2g", keep=True), Column("rates", keep=False)),
        Column("memory_gb", title="memory GB", form=".2g", extra=True),
        Column("written_gb", title="disk GB", form=".2g", extra=True),
    )
    return Sheet(records, columns, by=("recipe", "serves"))


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
@flags()
def demo(
    view: View,
    out: Annotated[
        Path, typer.Option(help="Folder of networks, rows, figures and report.")
    ] = Path("demo"),
) -> None:
    """Train, score, analyse, correlate, draw and report, at toy size, simulated."""
    from ce_align.brainscore import register
    from ce_align.demonstration import demo_recipe, session_score
    from ce_align.report.page import write_report
    from ce_align.report.terminal import row_sheets
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
    view.show(outcome.rows, row_sheets(outcome.of(ScoreRow)))
    outcome.notes.clear()  # the report holds them
    tell_outcome(outcome, results)
    message(NEXT.format(out=out))
    message(f"The report is {page.resolve()}")
