"""`ce-align register`: networks under the names that Brain-Score knows them by."""

import json as json_format
from typing import Annotated

import typer
from rich.table import Table

from ce_align.cli.screen import message, print_table, progress_bars, report_failures
from ce_align.errors import CeAlignError

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align register

  ce-align register ce_barlow_l0.2 runs/mmcr_l0.1
"""

USE = """
In Python, importing the registry puts every published network and every run there:
  import ce_align.brainscore.registry
  from brainscore_vision import model_registry
  model = model_registry["{name}"]()
"""


def register(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names, globs or groups. \\[default: all whose weights are here]"
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print them as JSON, and nothing else.")
    ] = False,
) -> None:
    """Load networks into Brain-Score's registry, and show their identifiers.

    An identifier ends in the digest of the weights, so that Brain-Score's caches cannot
    mix networks. Nothing is written into the installed Brain-Score.
    """
    from ce_align.brainscore import register_networks
    from ce_align.brainscore.registry import at_hand, register_name
    from ce_align.models.catalogue import PUBLISHED, expand

    register_networks()
    names = expand(models) if models else list(at_hand())
    found: list[dict[str, str]] = []
    failures: list[tuple[str, CeAlignError]] = []
    with progress_bars() as progress:
        for done, name in enumerate(names):
            progress("networks", done, len(names))
            try:
                found.append({"name": name, "identifier": register_name(name)})
            except CeAlignError as error:
                failures.append((name, error))
        progress("networks", len(names), len(names))
    if json:
        print(json_format.dumps(found, indent=1))
    elif found or not failures:
        table = Table()
        table.add_column("name", overflow="fold")
        table.add_column("identifier in Brain-Score", overflow="fold")
        for entry in found:
            table.add_row(entry["name"], entry["identifier"])
        print_table(table)
        example = found[0]["name"] if found else next(iter(PUBLISHED))
        message(USE.format(name=example))
    report_failures(failures)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(register)
