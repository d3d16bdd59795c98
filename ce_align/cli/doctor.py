"""`ce-align doctor`: what this machine has and lacks."""

import json as json_format
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from ce_align.cli.screen import message, print_table

__all__ = ["add_to"]

EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align doctor

  ce-align doctor --json | jq '.[] | select(.state != "ok")'
"""


def doctor(
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for each remote answer.")
    ] = 3.0,
    json: Annotated[
        bool, typer.Option("--json", help="Print findings as JSON, and nothing else.")
    ] = False,
) -> None:
    """Check packages, device, folders, network and the access to each recording.

    The exit status is 0 unless work without a network cannot be done.
    """
    from ce_align.brainscore.doctor import examine

    findings = examine(timeout)
    if json:
        print(json_format.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        table = Table()
        table.add_column("check", overflow="fold")
        table.add_column("state", no_wrap=True)
        table.add_column("found", overflow="fold")
        table.add_column("what to do", overflow="fold")
        for finding in findings:
            table.add_row(
                finding.check, finding.state, finding.found, finding.remedy or "–"
            )
        print_table(table)
    n_failed = sum(finding.state == "fail" for finding in findings)
    if n_failed:
        message(f"error: {n_failed} of {len(findings)} checks failed")
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(doctor)
