"""`ce-align results`."""

from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.options import Results
from ce_align.cli.screen import message, print_table

__all__ = ["add_to"]


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


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(results)
