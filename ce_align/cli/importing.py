"""`ce-align import` and `ce-align import-scores`: what was measured elsewhere."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.options import Json, Results
from ce_align.cli.screen import message, print_json, progress_bars, tell_outcome

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align import --responses rates.npy --axes neuroid,stimulus,repetition --images
  stimuli.zip --region V4 --out my_v4.nc

  ce-align import --responses averages.npy --axes stimulus,neuroid --images stimuli/
  --region IT --order rows.csv --stimuli stimuli.csv --stratify object_name
  --out my_it.nc
"""

SCORES_EXAMPLES = """\b
[bold]Example[/bold]

  ce-align import-scores leaderboard.csv && ce-align correlate --against majajhong2015

\b
[bold]leaderboard.csv[/bold]

  model,benchmark,score

  CE-MMCR_lmda_01,MajajHong2015.IT-pls,0.5

Benchmarks of the four IT sets count as their recordings. Columns raw, error and ceiling
are read where they are there: with one of them the figures can show Pearson r.
"""


class Place(StrEnum):
    """Where the images of a recording are kept."""

    inside = "inside"
    beside = "beside"


def import_(
    responses: Annotated[Path, typer.Option(help="Responses: a .npy or .npz array.")],
    axes: Annotated[
        str,
        typer.Option(
            help="Axes of the array: stimulus, neuroid and, where there are "
            "repetitions, repetition; NaN where one is missing."
        ),
    ],
    images: Annotated[Path, typer.Option(help="Folder, zip or tar of the images.")],
    region: Annotated[str, typer.Option(help="Recorded area: V1, V2, V4, IT, ...")],
    out: Annotated[Path, typer.Option(help="netCDF file to write, NAME.nc.")],
    order: Annotated[
        str,
        typer.Option(
            help="Which image belongs to which row: natural (numbers in names), name, "
            "or a csv with a column that names the image of each row (one image may "
            "stand in several)."
        ),
    ] = "natural",
    degrees: Annotated[float, typer.Option(help="Visual angle of the images.")] = 8.0,
    stimuli: Annotated[
        Path | None,
        typer.Option(
            help="csv of further columns, one line a stimulus; attached by the column "
            "that names the images, else in the order of the rows."
        ),
    ] = None,
    stratify: Annotated[
        str | None, typer.Option(help="Column over which splits are balanced.")
    ] = None,
    keep_images: Annotated[
        Place, typer.Option(help="Images inside the file, or in a zip beside it.")
    ] = Place.inside,
    keep_silent: Annotated[
        bool,
        typer.Option(
            "--keep-silent",
            help="Refuse neuroids that never respond, or always equally, instead of "
            "leaving them out.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing file.")
    ] = False,
) -> None:
    """Make a recording from your own responses and images.

    Equal images in several rows become repetitions of one stimulus. Pixels are read as
    stored (an orientation in EXIF is not applied); files of several frames are refused.
    """
    from ce_align.data.importers.arrays import import_recording
    from ce_align.data.netcdf import write_recording
    from ce_align.errors import ConfigError, DataError

    if out.suffix != ".nc":
        raise ConfigError(f"--out must end in .nc, found {out}")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another name or add --force")
    lines: list[str] = []  # told once the bars are gone
    # A broken image is found now, not in the middle of a score.
    with progress_bars() as progress:
        recording = import_recording(
            responses,
            images,
            axes=[axis.strip() for axis in axes.split(",")],
            region=region,
            identifier=out.stem,
            order=order,
            degrees=degrees,
            stimuli=stimuli,
            stratify=stratify,
            keep_silent=keep_silent,
            tell=lines.append,
            progress=progress,
        )
    for line in lines:
        message(line)
    write_recording(recording, out, images=keep_images.value)
    n_stimuli, n_neuroids = len(recording.images), len(recording.neuroid_ids)
    n_repetitions = recording.n_repetitions
    message(
        f"{out}: {n_stimuli} stimuli × {n_repetitions} repetitions × {n_neuroids} "
        f"neuroids, {recording.region}, images at {recording.degrees:g}°"
    )
    message(f"first image {recording.images.ids[0]}, last {recording.images.ids[-1]}")
    try:
        recording.averaged()
    except DataError as error:
        message(f"it cannot be scored as it is: {error}")
    if not recording.has_repetitions:
        message("no repetitions: scores will be raw correlations without a ceiling")


def import_scores(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.csv",
            help="Table with the columns model, benchmark and score: networks and "
            "benchmarks by their names in Brain-Score, or here.",
        ),
    ],
    results: Results = Path("results"),
    json: Json = False,
) -> None:
    """Take scores that Brain-Score measured by submission, as imported rows.

    `correlate` and the figures use them like scores of one's own, and say that they
    are imported.
    """
    from ce_align.runner import run
    from ce_align.stages.imported import ImportConfig, ImportedRow

    outcome = run([ImportConfig(file=str(file))], results)
    rows = outcome.of(ImportedRow)
    if json:
        print_json(rows)
    for recording in dict.fromkeys(row.recording for row in rows):
        of_one = [row for row in rows if row.recording == recording]
        scores = [row.value for row in of_one if row.value is not None]
        message(
            f"{recording} ({of_one[0].benchmark}): {len(of_one)} networks, scores "
            f"{min(scores):.4f} to {max(scores):.4f}"
        )
    tell_outcome(outcome, results)
    message(f"{len(rows)} rows, marked as imported, in {results}")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import", epilog=EXAMPLES)(import_)
    app.command("import-scores", epilog=SCORES_EXAMPLES)(import_scores)
