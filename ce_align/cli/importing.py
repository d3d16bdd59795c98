"""`ce-align import`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.screen import message, progress_bars

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align import --responses rates.npy --axes neuroid,stimulus,repetition --images
  stimuli.zip --region V4 --out my_v4.nc

  ce-align import --responses averages.npy --axes stimulus,neuroid --images stimuli/
  --region IT --order rows.csv --stimuli stimuli.csv --stratify object_name
  --out my_it.nc
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
            "or a csv that lists file names."
        ),
    ] = "natural",
    degrees: Annotated[float, typer.Option(help="Visual angle of the images.")] = 8.0,
    stimuli: Annotated[
        Path | None, typer.Option(help="csv of further columns, one line a stimulus.")
    ] = None,
    stratify: Annotated[
        str | None, typer.Option(help="Column over which splits are balanced.")
    ] = None,
    keep_images: Annotated[
        Place, typer.Option(help="Images inside the file, or in a zip beside it.")
    ] = Place.inside,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing file.")
    ] = False,
) -> None:
    """Make a recording from your own responses and images."""
    from ce_align.data.importing import import_recording
    from ce_align.data.netcdf import write_recording
    from ce_align.errors import ConfigError

    if out.suffix != ".nc":
        raise ConfigError(f"--out must end in .nc, found {out}")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another name or add --force")
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
    )
    # A broken image is found now, not in the middle of a score.
    with progress_bars() as progress:
        for done in range(len(recording.images)):
            recording.images.load(done)
            progress("images", done + 1, len(recording.images))
    write_recording(recording, out, images=keep_images.value)
    n_stimuli, n_repetitions, n_neuroids = recording.responses.shape
    message(
        f"{out}: {n_stimuli} stimuli × {n_repetitions} repetitions × {n_neuroids} "
        f"neuroids, {region}"
    )
    message(f"first image {recording.images.ids[0]}, last {recording.images.ids[-1]}")
    if not recording.has_repetitions:
        message("no repetitions: scores will be raw correlations without a ceiling")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import", epilog=EXAMPLES)(import_)
