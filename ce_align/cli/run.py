"""`ce-align run`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ce_align.cli.options import AllowUnstable, Json, Results
from ce_align.cli.screen import (
    message,
    print_json,
    print_table,
    progress_bars,
    tell_outcome,
)

if TYPE_CHECKING:
    from ce_align.recipes import Recipe
    from ce_align.results import ResultStore

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align run benchmarks/it_predictivity.py --dry-run

  ce-align run benchmarks/*.py analyses/*.py figures/*.py --out paper

A recipe is a Python file with a docstring and RECIPE = [configurations]. What is in
the results already is not computed again.
"""


def run(
    recipe: Annotated[list[Path], typer.Argument(help="Python files.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and run nothing.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of tables and figures.")] = Path(
        "paper"
    ),
    runs: Annotated[
        Path, typer.Option(help="Folder of trainings, as the recipes name it.")
    ] = Path("runs"),
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of published data sets. \\[default: datasets in the cache]"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at a time. \\[default: by memory]")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that render views.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Compute again.")] = False,
    allow_unstable: AllowUnstable = False,
    results: Results = Path("results"),
    json: Json = False,
) -> None:
    """Execute recipes: train, score, analyse, draw; what is stored is skipped."""
    from ce_align.brainscore import register, register_networks
    from ce_align.recipes import load_recipe
    from ce_align.results import ResultStore
    from ce_align.runner import run as run_configs
    from ce_align.stages.running import Hardware

    register()
    register_networks()
    read = [load_recipe(path) for path in recipe]
    if dry_run:
        _print_plan(read, ResultStore(results))
        return
    with progress_bars() as progress:
        outcome = run_configs(
            (config for one in read for config in one.configs),
            results,
            runs=runs,
            out=out,
            datasets=root,
            hardware=Hardware(device, batch_size, workers),
            force=force,
            allow_unstable=allow_unstable,
            progress=progress,
            notify=message,
        )
    if json:
        print_json(outcome.rows)
    for path in outcome.files:
        message(f"wrote {path}")
    message(
        f"{outcome.n_done} done, {outcome.n_stored} in {results} already, "
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


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(run)
