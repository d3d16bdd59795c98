"""`ce-align demo`: the main job on what the package itself holds."""

from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.screen import message, print_tables, progress_bars

__all__ = ["add_to"]

MODELS = ("pixels", "gabor", "torchvision/resnet18:none")
RECORDING = "simulated"

NEXT = """
Rows are in {out}/results (`ce-align results --results {out}/results`),
the figure is {figure}. Try next:
  ce-align score --model torchvision/resnet18:none --recording simulated --layer all
  ce-align import --help      your own recording
  ce-align recordings         the macaque IT sets, and what access they need
"""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for rows and figure.")] = Path(
        "demo"
    ),
) -> None:
    """Score three networks that need no download on a simulated IT recording."""
    from ce_align.report.plots import save_predictivity
    from ce_align.report.tables import score_tables
    from ce_align.results import ResultStore
    from ce_align.stages.hardware import Hardware
    from ce_align.sweep import score_all

    message(f"Recording: {RECORDING} (no animal data: a simulated IT population)")
    with progress_bars() as progress:
        report = score_all(
            MODELS,
            [RECORDING],
            ResultStore(out / "results"),
            settings={"seed": 1},
            hardware=Hardware(),
            progress=progress,
        )
    for _, error in report.failures:
        raise error
    print_tables(score_tables(report.rows))
    if report.n_stored:
        message(f"{report.n_stored} rows were in {out}/results already")
    figure = save_predictivity(report.rows, out / "predictivity")
    message(NEXT.format(out=out, figure=figure))


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)
