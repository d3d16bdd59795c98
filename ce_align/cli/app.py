"""The `ce-align` command and how it ends: one line for each fault, no traceback."""

import os
import signal
import stat
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from ce_align import __version__
from ce_align.cli.screen import check_printed, fault, message, prepare_streams
from ce_align.errors import ConfigError, Stopped, explained

__all__ = ["COMMANDS", "app", "main"]

#: Module of each command, and the line that lists it. The module is imported when the
#: command is used, so that `ce-align --help` is quick.
COMMANDS = {
    "score": (
        "score",
        "Predict a recording from a network: Brain-Score's number, ceiling and error.",
    ),
    "similarity": (
        "compare",
        "Compare a layer with a recording, none fitted: RSA, CKA, matching, shape.",
    ),
    "analyze": (
        "score",
        "Measure how networks organise the variability that augmentations cause.",
    ),
    "correlate": (
        "compare",
        "Correlate every measure with predictivity, across networks.",
    ),
    "compare": (
        "compare",
        "Tell which of several networks predicts a recording better, with p.",
    ),
    "overlap": (
        "compare",
        "Partition the explained variance of a recording between two networks.",
    ),
    "unique": (
        "compare",
        "What each of several networks explains of a recording that the others do not.",
    ),
    "transfer": (
        "compare",
        "Accuracy of a linear readout of frozen features on other data sets.",
    ),
    "train": (
        "training",
        "Train a contrastive-equivariant network; goes on where it was stopped.",
    ),
    "pack": (
        "training",
        "Decode images once, into a file that training maps into memory.",
    ),
    "run": (
        "recipes",
        "Execute recipes: train, score, analyse, draw; what is stored is skipped.",
    ),
    "sweep": (
        "sweep",
        "Run a plan on processes or a SLURM cluster; see how it stands.",
    ),
    "benchmark": (
        "benchmark",
        "Measure this machine for a minute, so that plans can say how long they take.",
    ),
    "fetch": (
        "networks",
        "Download published networks or open recordings, and check them.",
    ),
    "submit": (
        "networks",
        "Export networks to Brain-Score, or examine plugins with --check.",
    ),
    "export": (
        "networks",
        "Write a network as a folder that timm loads, with a card of its scores.",
    ),
    "import": (
        "recordings",
        "Make a recording of an open data set, or of your own responses and images.",
    ),
    "import-scores": (
        "recordings",
        "Take scores that Brain-Score measured by submission, as imported rows.",
    ),
    "models": ("networks", "List the published networks."),
    "recordings": (
        "recordings",
        "List recordings: sizes, metric, licence, access, how to cite; and .nc files "
        "here.",
    ),
    "results": (
        "output",
        "Show every stored row, what failed and why, and what was never run.",
    ),
    "tables": ("output", "Write the paper's tables from stored rows, and show them."),
    "figures": (
        "output",
        "Draw the paper's figures, and further ones, from stored rows.",
    ),
    "report": (
        "output",
        "Write every result as one page: summary, figures, tables, rows, provenance.",
    ),
    "demo": (
        "recipes",
        "Train, score, analyse, correlate, draw and report, at toy size, simulated.",
    ),
    "doctor": (
        "output",
        "Check packages, device, folders, network and the access to each recording.",
    ),
    "register": (
        "networks",
        "Load networks into Brain-Score's registry, and show their identifiers.",
    ),
}

#: Commands that work as they stand, in the order in which one would try them.
FIRST_STEPS = {
    "ce-align doctor": "what this machine can do",
    "ce-align recordings": "what can be scored",
    "ce-align score --model pixels --recording simulated": "a score, in seconds",
    "ce-align results": "what is stored",
    "ce-align demo": "everything, at toy size",
}


class _Lazy(TyperGroup):
    """A group that knows its commands by name, and imports the one that is used."""

    def __init__(self, **settings: Any) -> None:
        listed = {
            name: TyperCommand(name, help=line) for name, (_, line) in COMMANDS.items()
        }
        super().__init__(**{**settings, "commands": listed})

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            told = getattr(stop, "__notes__", ["nothing was written"])
            message(f"interrupted: {'; '.join(told)}")
            raise typer.Exit(128 + getattr(stop, "signum", signal.SIGINT)) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise ConfigError(
                f"there is no command {args[0]!r}{_nearest(args[0], COMMANDS)}"
            )
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            module = import_module(f"ce_align.cli.{COMMANDS[name][0]}")
            command = get_group(module.commands).commands[name]
        return name, command, rest


app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=_Lazy,
    name="ce-align",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Alignment of vision networks with primate visual cortex.",
    epilog="Start with [bold]ce-align demo[/bold], or [bold]ce-align score --model "
    "pixels --recording simulated[/bold].",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ce-align {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    ctx: typer.Context,
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
    if ctx.invoked_subcommand is None:
        width = max(map(len, FIRST_STEPS)) + 2
        steps = (f"  {step:{width}}{what}" for step, what in FIRST_STEPS.items())
        print(
            "Alignment of vision networks with visual cortex. First steps:",
            *steps,
            "All commands: ce-align --help",
            sep="\n",
        )


#: What typer raises if options are wrong; only its descendant is public.
USAGE: type[Exception] = typer.BadParameter.__mro__[2]
#: Signals that ask to stop.
STOPPING = (signal.SIGINT, signal.SIGTERM)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    """Stop by an exception, so that temporary files are removed on the way out."""
    for other in STOPPING:  # the second signal ends the process at once
        signal.signal(other, signal.SIG_DFL)
    raise Stopped(signum)


def _usage(error: Exception) -> ConfigError:
    """A mistake in the options, which typer found, in one line."""
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context else "ce-align"
    text: str = error.format_message()  # type: ignore[attr-defined]
    option = getattr(error, "option_name", None)
    if option and hasattr(error, "possibilities"):
        known = [word for one in context.command.params for word in one.opts]
        return ConfigError(f"{command} has no option {option}{_nearest(option, known)}")
    text = text.replace("Value error, ", "").replace(". Did you mean ", "; nearest: ")
    if "unexpected extra argument" in text:
        text = text.replace("unexpected extra argument", "superfluous argument")
        options = [one for one in context.command.params if one.opts[0][:2] == "--"]
        first = next((one.opts[0] for one in options if not one.is_flag), None)
        text += f"; values follow their options, such as {first}" if first else ""
    text = text.rstrip(".?") or "expected other options"
    return ConfigError(f"{text[0].lower()}{text[1:]}; {command} --help says more")


def _nearest(name: str, known: Iterable[str]) -> str:
    from ce_align.checks import nearest_names  # numpy

    near = nearest_names(name, known)
    return f"; nearest: {', '.join(near)}" if near else ""


def _check_files(words: Iterable[str]) -> None:
    """Refuse devices and FIFOs by name: to read them may block, or never end.

    What a shell puts in the place of a command's output stays.
    """
    for word in words:
        name = word.rpartition("=")[2]
        try:
            mode = Path(name).stat().st_mode
        except (OSError, ValueError):  # none, or too long
            continue
        plain = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        of_shell = name.startswith(("/dev/fd/", "/dev/stdin", "/dev/stdout"))
        if not (plain or of_shell) or name.startswith("/proc/"):
            raise ConfigError(f"expected a file or folder, found {name}, a device")


def main() -> None:
    """Entry point of the command."""
    # Brain-Score would otherwise run pip inside this process.
    os.environ.setdefault("BS_INSTALL_DEPENDENCIES", "no")
    for signum in STOPPING:
        # What runs in the background may have been told to ignore Ctrl-C.
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _stop)
    prepare_streams()
    try:
        _check_files(sys.argv[1:])
        status = app(prog_name="ce-align", standalone_mode=False)
        check_printed()
        sys.exit(status)
    except Exception as error:  # every fault ends here, in one line
        found = explained(_usage(error) if isinstance(error, USAGE) else error)
        if found.exit_status >= 128:  # a training that a signal has stopped
            message(f"interrupted: {found}")
        else:
            fault(str(found), error)
        sys.exit(found.exit_status)
