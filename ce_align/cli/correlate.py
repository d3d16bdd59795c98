"""`ce-align correlate` and `ce-align overlap`: across networks, and between two."""

from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.options import AllowUnstable, Figure, Json, Models, Results
from ce_align.cli.screen import (
    message,
    print_json,
    print_table,
    print_tables,
    tell_outcome,
)
from ce_align.config import COMMITTED
from ce_align.errors import ConfigError

__all__ = ["add_to"]

CORRELATE_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align correlate

  ce-align analyze --metric bures --model paper --json > rows.json

  ce-align correlate --rows rows.json --against majajhong2015-public
"""

OVERLAP_EXAMPLES = """\b
[bold]Example[/bold]

  ce-align overlap --model gabor --model pixels --recording simulated
"""


def correlate(
    against: Annotated[
        list[str] | None,
        typer.Option(help="Recording. Repeatable. \\[default: all that have scores]"),
    ] = None,
    rows: Annotated[
        list[Path] | None,
        typer.Option(help="JSON rows of other runs, '-' for standard input."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    results: Results = Path("results"),
    figure: Figure = None,
    json: Json = False,
) -> None:
    """Correlate every measure with predictivity, across networks."""
    from ce_align.report.terminal import correlation_tables
    from ce_align.runner import run
    from ce_align.stages.correlate import CorrelateConfig, CorrelationRow

    config = CorrelateConfig(recordings=tuple(against or ()), seed=seed)
    outcome = run([config], results, other_rows=rows or ())
    found = outcome.of(CorrelationRow)
    if json:
        print_json(found)
    elif found:
        print_tables(correlation_tables(found))
    if figure and found:
        from ce_align.report.paper.correlations import save_correlations

        message(f"figure: {save_correlations(found, figure)}")
    tell_outcome(outcome, results)


def overlap(
    model: Models,
    recording: Annotated[str, typer.Option("--recording", "-r", help="Recording.")],
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Layer of each network. \\[default: for the region]"),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of stimuli.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Compute again.")] = False,
    allow_unstable: AllowUnstable = False,
    results: Results = Path("results"),
    json: Json = False,
) -> None:
    """Partition the explained variance of a recording between two networks."""
    from ce_align.brainscore import register, register_networks
    from ce_align.data.recordings import expand_recordings
    from ce_align.models.catalogue import expand
    from ce_align.report.terminal import overlap_table
    from ce_align.runner import run
    from ce_align.stages.overlap import OverlapConfig, OverlapRow
    from ce_align.stages.running import Hardware

    register()
    register_networks()
    names = expand(tuple(model))
    if len(names) != 2 or (layer and len(layer) != 2):
        raise ConfigError(
            f"overlap compares two networks, found {len(names)}; name each with "
            "--model, and no layer or two with --layer"
        )
    targets = expand_recordings((recording,))
    if len(targets) != 1:
        raise ConfigError(
            f"overlap takes one recording, {recording!r} stands for {len(targets)}; "
            f"name one of {', '.join(targets)}"
        )
    layers = layer or [COMMITTED, COMMITTED]
    config = OverlapConfig(
        model_a=names[0],
        model_b=names[1],
        recording=targets[0],
        layer_a=layers[0],
        layer_b=layers[1],
        folds=folds,
        seed=seed,
    )
    outcome = run(
        [config],
        results,
        hardware=Hardware(device),
        force=force,
        allow_unstable=allow_unstable,
        notify=message,
    )
    rows = outcome.of(OverlapRow)
    if json:
        print_json(rows)
    elif rows:
        print_table(overlap_table(rows))
    for note in dict.fromkeys(row.note for row in rows if row.note):
        message(note)
    tell_outcome(outcome, results)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=CORRELATE_EXAMPLES)(correlate)
    app.command(epilog=OVERLAP_EXAMPLES)(overlap)
