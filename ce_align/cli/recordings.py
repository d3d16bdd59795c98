"""`ce-align recordings`, `import` and `import-scores`: responses of animals."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ce_align.cli.completion import COMPLETIONS
from ce_align.cli.flags import Asked, Figure, Json, Results, flags
from ce_align.cli.screen import message, print_json, progress_bars, tell_outcome
from ce_align.cli.view import View
from ce_align.data.importers import ImportSettings

__all__ = ["commands"]

commands = typer.Typer()

OTHER_RECORDINGS = "Also: brainscore/ID for any neural benchmark of Brain-Score."

listing = typer.Typer(invoke_without_command=True)
commands.add_typer(listing, name="recordings")


@listing.callback()
@flags()
def recordings(ctx: typer.Context, view: View) -> None:
    """List recordings: sizes, metric, licence, access, how to cite; and .nc files here.

    ``ce-align fetch NAME`` brings an open one; what uses it does, too.
    """
    if ctx.invoked_subcommand is not None:
        return
    from ce_align.brainscore import register
    from ce_align.data.named import RECORDINGS
    from ce_align.data.netcdf import describe_files
    from ce_align.report.terminal import citations_sheet, recordings_sheet

    register()
    entries = [*RECORDINGS.values(), *describe_files(Path())]
    listed = recordings_sheet(entries)
    asked = view.columns or view.sort or view.full
    view.show(listed.records, [listed, *([] if asked else [citations_sheet(entries)])])
    message(OTHER_RECORDINGS)


@listing.command()
@flags()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="Name, or a .nc file.", autocompletion=COMPLETIONS["recording"]
        ),
    ],
    view: View,
    figure: Figure = None,
) -> None:
    """Summarise a recording: images, neuroids, repetitions, reliability, signal."""
    from ce_align.brainscore import register
    from ce_align.data.named import load_recording
    from ce_align.report.recordings import summarise, summary_figure, summary_sheets
    from ce_align.report.style import save_figure

    register()
    recording = load_recording(name)
    summary = summarise(recording)
    view.show([summary], summary_sheets(summary))
    if figure is not None:
        stem = figure.with_suffix("") if figure.suffix in (".pdf", ".png") else figure
        for path in save_figure(summary_figure(recording, summary), stem):
            message(f"wrote {path}")


IMPORT_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align import rates.npy --axes neuroid,stimulus,repetition --images stimuli.zip
  --region V4 --out my_v4.nc

  ce-align import averages.mat --key responses=data.rates --axes stimulus,neuroid
  --images stimuli/ --region IT --order rows.csv --stimuli stimuli.csv --out my_it.nc

  ce-align import session.nwb --window 70 170 --out session.nc

  ce-align import TVSD/ --images THINGS/ --region IT --out tvsd_it.nc
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


@commands.command("import", epilog=IMPORT_EXAMPLES)
@flags()
def import_(
    asked: Asked[ImportSettings],
    out: Annotated[Path, typer.Option(help="netCDF file to write, NAME.nc.")],
    file: Annotated[
        Path | None, typer.Argument(help="File or folder of responses.")
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="START END",
            help=ImportSettings.model_fields["window"].description,
        ),
    ] = None,
    responses: Annotated[Path | None, typer.Option(hidden=True)] = None,
    keep_images: Annotated[
        Literal["inside", "beside"] | None,
        typer.Option(
            help="Images inside the file, or in a zip beside it. \\[default: inside, "
            "large ones beside]"
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing file.")
    ] = False,
) -> None:
    """Make a recording of an open data set, or of your own responses and images.

    Equal images in several rows become repetitions of one stimulus. Pixels are read as
    stored (an orientation in EXIF is not applied); files of several frames are refused.
    Nothing that a file holds is executed.
    """
    from ce_align.brainscore import register
    from ce_align.data.importers import import_recording
    from ce_align.data.netcdf import write_recording
    from ce_align.errors import ConfigError, DataError

    if out.suffix != ".nc":
        raise ConfigError(f"--out must end in .nc, found {out}")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another name or add --force")
    register()  # tells what its files must be
    path = file or responses
    if path is None and "file" not in asked.given:
        raise ConfigError("name the file or folder of responses: ce-align import FILE")
    further = {"file": path and str(path), "window": window}
    given = {name: value for name, value in further.items() if value is not None}
    (settings,) = asked.configs(**given)
    lines: list[str] = []  # told once the bars are gone
    # A broken image is found now, not in the middle of a score.
    with progress_bars() as progress:
        recording = import_recording(
            settings, out.stem, tell=lines.append, progress=progress
        )
    for line in lines:
        message(line)
    write_recording(recording, out, images=keep_images)
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


@commands.command("import-scores", epilog=SCORES_EXAMPLES)
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
