"""`ce-align correlate` and `ce-align overlap`: across networks, and between two."""

import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ce_align.cli.options import AllowUnstable, Figure, Json, Models, Results
from ce_align.cli.screen import message, print_json, print_table, print_tables
from ce_align.errors import ConfigError, DataError
from ce_align.results import ResultStore

if TYPE_CHECKING:
    import pandas as pd

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
    import pandas as pd

    from ce_align.report.terminal import correlation_tables
    from ce_align.stages.correlate import (
        CorrelateConfig,
        correlate_rows,
        scored_recordings,
    )
    from ce_align.stages.same_network import load_rows

    store = ResultStore(results)
    parts = [load_rows(store), *map(_read_rows, rows or ())]
    found = pd.concat(parts, ignore_index=True)
    known = scored_recordings(found)
    unknown = [name for name in against or () if name not in known]
    if unknown:
        raise ConfigError(
            f"no scores against {unknown[0]}; there are scores against "
            f"{', '.join(known)}"
        )
    recordings = tuple(dict.fromkeys(against or known))
    config = CorrelateConfig(recordings=recordings, seed=seed)
    table, notes = correlate_rows(found, config, store)
    if json:
        print_json(table)
    else:
        print_tables(correlation_tables(table))
    if figure:
        from ce_align.report.paper.correlations import save_correlations

        message(f"figure: {save_correlations(table, figure)}")
    for note in notes:
        message(note)


def _read_rows(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
        rows = json_format.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a JSON array of rows: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} is not a JSON array of rows; make it with --json")
    return pd.DataFrame(rows)


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
    from ce_align.data.recordings import expand_recordings, load_recording
    from ce_align.models.catalogue import expand
    from ce_align.models.load import load_network
    from ce_align.report.terminal import overlap_table
    from ce_align.stages.overlap import OverlapConfig
    from ce_align.stages.overlap import overlap as partition

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
    loaded = load_recording(targets[0])
    first, second = (load_network(name, seed=seed) for name in names)
    layers = layer or [n.layer_for(loaded.region) for n in (first, second)]
    config = OverlapConfig(
        model_a=names[0],
        model_b=names[1],
        recording=targets[0],
        layer_a=layers[0],
        layer_b=layers[1],
        folds=folds,
        seed=seed,
    )
    rows, stored = partition(
        (first, second),
        loaded,
        config,
        ResultStore(results),
        device=device,
        force=force,
        allow_unstable=allow_unstable,
        notify=message,
    )
    if json:
        print_json(rows)
    else:
        print_table(overlap_table(rows))
    for note in dict.fromkeys(row.note for row in rows if row.note):
        message(note)
    if stored:
        message(f"these rows were in {results} already")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=CORRELATE_EXAMPLES)(correlate)
    app.command(epilog=OVERLAP_EXAMPLES)(overlap)
