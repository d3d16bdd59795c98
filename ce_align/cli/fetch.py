"""`ce-align fetch`: bring published networks and open recordings here."""

from typing import TYPE_CHECKING, Annotated

import typer

from ce_align.cli.screen import message, progress_bars, report_failures
from ce_align.errors import CeAlignError, ConfigError

if TYPE_CHECKING:
    from ce_align.models.fetching import Checksum

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align fetch ce_barlow_l0.2

  ce-align fetch paper --url https://mirror.example.org/resnet_50

  ce-align fetch CE-MMCR_lmda_01 --keep --pin

  ce-align fetch majajhong2015-public li2026
"""

#: Exit status of a command that Ctrl-C ended.
INTERRUPTED = 130


def _complete_names(incomplete: str) -> list[str]:
    from ce_align.brainscore.datasets import DATASETS
    from ce_align.models.catalogue import GROUPS, PUBLISHED

    names = (*GROUPS, *PUBLISHED, *(n for n, known in DATASETS.items() if known.stored))
    return [name for name in names if name.startswith(incomplete)]


def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="Published networks, or open recordings: names, globs, groups or, of "
            "networks, Brain-Score identifiers.",
            autocompletion=_complete_names,
        ),
    ],
    pin: Annotated[
        bool,
        typer.Option(
            "--pin", help="Pin size and SHA-256 of the authors' files from now on."
        ),
    ] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep the authors' file beside the weights."),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="Address of a mirror of the authors' folders, or of Brain-Score's "
            "bucket. \\[default: $CE_ALIGN_CHECKPOINTS_URL or "
            "$CE_ALIGN_RECORDINGS_URL, or else their own]",
        ),
    ] = None,
) -> None:
    """Download published networks or open recordings, and check them.

    The same command continues an interrupted download, and only checks what is here
    already. Commands that use a network or a recording fetch it themselves.
    """
    from ce_align.models.fetching import Checksum
    from ce_align.models.fetching import pin as pin_checksums

    recordings, networks = _sorted(names, url)
    if recordings and (keep or pin or (networks and url)):
        raise ConfigError(
            "--keep and --pin are of networks, and a mirror is of networks or of "
            "recordings; fetch recordings by themselves"
        )
    failures: list[tuple[str, CeAlignError]] = []
    sources: dict[str, Checksum] = {}
    for name in (*recordings, *networks):
        try:
            if name in recordings:
                told = _recording(name, url)
            else:
                told, source = _network(name, url, keep)
                sources |= {} if source is None else {name: source}
        except CeAlignError as error:
            failures.append((name, error))
            continue
        except KeyboardInterrupt:
            message(f"interrupted at {name}; the same command continues it")
            raise typer.Exit(INTERRUPTED) from None
        message(told)
    if pin and sources:
        message(f"pinned {', '.join(sources)} in {pin_checksums(sources)}")
    report_failures(failures)


def _sorted(names: list[str], url: str | None) -> tuple[list[str], list[str]]:
    """Recordings and networks that names stand for; ConfigError for anything else."""
    from ce_align.brainscore import register
    from ce_align.brainscore.datasets import DATASETS
    from ce_align.data.recordings import matching_recordings
    from ce_align.models.catalogue import PUBLISHED, expand

    register()
    found = {
        name: [match for match in matching_recordings(name) if match in DATASETS]
        for name in names
    }
    recordings = [match for matches in found.values() for match in matches]
    networks = expand([name for name in names if not found[name]])
    for name in networks:
        if name not in PUBLISHED:
            raise ConfigError(
                f"{name} is not a published network; its source brings it when it is "
                "used"
            )
        PUBLISHED[name].address(url)  # refused once, before anything is brought
    return list(dict.fromkeys(recordings)), networks


def _recording(name: str, url: str | None) -> str:
    """Bring a recording; return what to say of it."""
    from ce_align.brainscore.datasets import fetch as fetch_recording

    with progress_bars() as progress:
        paths = fetch_recording(name, base=url, progress=progress)
    return (
        f"{name}: {len(paths)} files in {paths[0].parent.parent}, of the SHA-1 that "
        "Brain-Score states"
    )


def _network(name: str, url: str | None, keep: bool) -> tuple[str, "Checksum | None"]:
    """Bring a network; return what to say of it, and the file it is from."""
    from ce_align.models.catalogue import PUBLISHED
    from ce_align.models.fetching import fetch as fetch_weights
    from ce_align.models.fetching import read_record

    with progress_bars() as progress:
        path = fetch_weights(PUBLISHED[name], base=url, keep=keep, progress=progress)
    record = read_record(name)
    source = record.source if record is not None else None
    origin = f"from a file of {source}" if source else "placed by hand"
    return f"{path}: {origin}", source


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(fetch)
