"""`ce-align fetch`: bring published networks to this machine."""

from typing import Annotated

import typer

from ce_align.cli.screen import message, progress_bars, report_failures
from ce_align.errors import CeAlignError, ConfigError

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align fetch ce_barlow_l0.2

  ce-align fetch paper --url https://mirror.example.org/resnet_50

  ce-align fetch CE-MMCR_lmda_01 --keep --pin
"""

#: Exit status of a command that Ctrl-C ended.
INTERRUPTED = 130


def _complete_published(incomplete: str) -> list[str]:
    from ce_align.models.catalogue import GROUPS, PUBLISHED

    return [name for name in (*GROUPS, *PUBLISHED) if name.startswith(incomplete)]


def fetch(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Published networks: names, globs, groups or Brain-Score identifiers.",
            autocompletion=_complete_published,
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
            help="Address of a mirror of the authors' folders. "
            "\\[default: $CE_ALIGN_CHECKPOINTS_URL, or else the authors' own]",
        ),
    ] = None,
) -> None:
    """Download published networks, check them, and keep their weights.

    The same command continues an interrupted download, and only checks networks that
    are here already. Commands that use a network fetch it themselves.
    """
    from ce_align.models.catalogue import PUBLISHED, expand
    from ce_align.models.fetching import Checksum, read_record
    from ce_align.models.fetching import fetch as fetch_weights
    from ce_align.models.fetching import pin as pin_checksums

    names = expand(models)
    for name in names:
        if name not in PUBLISHED:
            raise ConfigError(
                f"{name} is not a published network; its source brings it when it is "
                "used"
            )
        PUBLISHED[name].address(url)  # refused once, before anything is brought
    failures: list[tuple[str, CeAlignError]] = []
    sources: dict[str, Checksum] = {}
    for name in names:
        try:
            with progress_bars() as progress:
                path = fetch_weights(
                    PUBLISHED[name], base=url, keep=keep, progress=progress
                )
            record = read_record(name)
        except CeAlignError as error:
            failures.append((name, error))
            continue
        except KeyboardInterrupt:
            message(f"interrupted at {name}; the same command continues it")
            raise typer.Exit(INTERRUPTED) from None
        source = record.source if record is not None else None
        if source is not None:
            sources[name] = source
        message(f"{path}: {f'from a file of {source}' if source else 'placed by hand'}")
    if pin and sources:
        message(f"pinned {', '.join(sources)} in {pin_checksums(sources)}")
    report_failures(failures)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(fetch)
