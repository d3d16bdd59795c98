"""`ce-align models` and `ce-align recordings`: what can be named."""

from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.screen import message, print_table

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


def recordings() -> None:
    """List recordings: sizes, metric, licence, access, how to cite; and .nc files here.

    ``ce-align fetch NAME`` brings an open one; what uses it does, too.
    """
    from ce_align.brainscore import register
    from ce_align.data.netcdf import describe_files
    from ce_align.data.recordings import RECORDINGS
    from ce_align.report.terminal import citations_table, recordings_table

    register()
    entries = [*RECORDINGS.values(), *describe_files(Path())]
    print_table(recordings_table(entries))
    print_table(citations_table(entries))
    message(OTHER_RECORDINGS)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(models)
    app.command()(recordings)
