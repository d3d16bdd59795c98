"""`ce-align models` and `ce-align recordings`: what can be named."""

from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.flags import Figure, Json
from ce_align.cli.screen import message, print_json, print_table, print_tables

__all__ = ["add_to"]

OTHER_NETWORKS = (
    "Also: pixels, gabor, torchvision/NAME[:WEIGHTS|:none], timm/NAME, brainscore/ID, "
    "the folder of a training, a checkpoint file, or FILE.py:callable."
)
OTHER_RECORDINGS = "Also: brainscore/ID for any neural benchmark of Brain-Score."


def models(
    pattern: Annotated[
        str, typer.Argument(help="Name, glob or group, such as 'ce_mmcr_*'.")
    ] = "*",
) -> None:
    """List the published networks."""
    from ce_align.models.catalogue import PUBLISHED, expand
    from ce_align.report.terminal import models_table

    names = expand([pattern])
    print_table(models_table([PUBLISHED[name] for name in names if name in PUBLISHED]))
    message(OTHER_NETWORKS)


listing = typer.Typer(invoke_without_command=True)


@listing.callback()
def recordings(ctx: typer.Context) -> None:
    """List recordings: sizes, metric, licence, access, how to cite; and .nc files here.

    ``ce-align fetch NAME`` brings an open one; what uses it does, too.
    """
    if ctx.invoked_subcommand is not None:
        return
    from ce_align.brainscore import register
    from ce_align.data.netcdf import describe_files
    from ce_align.data.recordings import RECORDINGS
    from ce_align.report.terminal import citations_table, recordings_table

    register()
    entries = [*RECORDINGS.values(), *describe_files(Path())]
    print_table(recordings_table(entries))
    print_table(citations_table(entries))
    message(OTHER_RECORDINGS)


@listing.command()
def show(
    name: Annotated[str, typer.Argument(help="Name, or a .nc file.")],
    figure: Figure = None,
    json: Json = False,
) -> None:
    """Summarise a recording: images, neuroids, repetitions, reliability, signal."""
    from ce_align.brainscore import register
    from ce_align.data.recordings import load_recording
    from ce_align.report.recordings import summarise, summary_figure, summary_tables
    from ce_align.report.style import save_figure

    register()
    recording = load_recording(name)
    summary = summarise(recording)
    if json:
        print_json([summary])
    else:
        print_tables(summary_tables(summary))
    if figure is not None:
        stem = figure.with_suffix("") if figure.suffix in (".pdf", ".png") else figure
        for path in save_figure(summary_figure(recording, summary), stem):
            message(f"wrote {path}")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(models)
    app.add_typer(listing, name="recordings")
