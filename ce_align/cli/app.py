"""The `ce-align` command and how it ends: one line for each fault, no traceback."""

import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ce_align import __version__
from ce_align.cli import (
    catalogue,
    correlate,
    demo,
    doctor,
    fetch,
    figures,
    importing,
    register,
    report,
    results,
    run,
    score,
    submit,
    tables,
    train,
    transfer,
)
from ce_align.cli.screen import fault, take_any_encoding
from ce_align.errors import explained

if TYPE_CHECKING:
    pass

__all__ = ["app", "main"]

app = typer.Typer(
    name="ce-align",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Alignment of vision networks with primate visual cortex.",
    epilog="Start with [bold]ce-align demo[/bold], or [bold]ce-align score --model "
    "pixels --recording simulated[/bold].",
)
for room in (
    *(score, correlate, transfer, train, run, fetch, submit),
    *(importing, catalogue, results, tables, figures, report, demo, doctor, register),
):
    room.add_to(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ce-align {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks of errors.")
    ] = False,
) -> None:
    """Alignment of vision networks with primate visual cortex."""


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    # An exception, so that temporary files are removed on the way out.
    raise SystemExit(128 + signum)


def main() -> None:
    """Entry point of the command."""
    # Brain-Score would otherwise run pip inside this process.
    os.environ.setdefault("BS_INSTALL_DEPENDENCIES", "no")
    signal.signal(signal.SIGTERM, _terminate)
    take_any_encoding()
    try:
        app()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # every fault ends here, in one line
        found = explained(error)
        fault(str(found), error)
        sys.exit(found.exit_status)
