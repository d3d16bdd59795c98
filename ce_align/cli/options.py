"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from ce_align.cli.screen import only_json
from ce_align.data.recordings import RECORDINGS

__all__ = ["AllowUnstable", "Figure", "Json", "Models", "Recordings", "Results"]


def _complete_model(incomplete: str) -> list[str]:
    from ce_align.models.catalogue import BASELINES, GROUPS, PUBLISHED

    known = (*GROUPS, *PUBLISHED, *BASELINES)
    return [name for name in known if name.startswith(incomplete)]


def _complete_recording(incomplete: str) -> list[str]:
    from ce_align.brainscore import register

    register()
    return [name for name in RECORDINGS if name.startswith(incomplete)]


Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        help="Network: name, glob or group, torchvision/NAME[:WEIGHTS], timm/NAME, "
        "a checkpoint, or FILE.py:callable. Repeatable.",
        autocompletion=_complete_model,
    ),
]
Recordings = Annotated[
    list[str] | None,
    typer.Option(
        "--recording",
        "-r",
        help="Recording: name, glob, group, brainscore/ID or a .nc file. Repeatable. "
        "\\[default: the four IT sets]",
        autocompletion=_complete_recording,
    ),
]
Results = Annotated[Path, typer.Option("--results", help="Folder that keeps the rows.")]
AllowUnstable = Annotated[
    bool,
    typer.Option(
        "--allow-unstable",
        help="Measure layers, too, that are random or depend on the batch; their rows "
        "say so.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", callback=only_json, help="Print rows as JSON, and nothing else."
    ),
]
Figure = Annotated[
    Path | None, typer.Option("--figure", help="Draw it here, as PDF and PNG.")
]
