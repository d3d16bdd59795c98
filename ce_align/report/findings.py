"""Findings about Brain-Score plugins as tables for the terminal."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from ce_align.checks import named_some

if TYPE_CHECKING:
    from ce_align.brainscore.plugin.doctor import Diagnosis
    from ce_align.brainscore.plugin.findings import Severity

__all__ = ["findings_tables"]


def findings_tables(diagnoses: "Sequence[Diagnosis]") -> Iterator[Table]:
    """Each different finding once, with the plugins that have it; faults first."""
    groups: dict[tuple[Severity, str, str], list[str]] = {}
    places: dict[tuple[Severity, str, str], set[str]] = {}
    for diagnosis in diagnoses:
        for finding in diagnosis.findings:
            key = (finding.severity, finding.check, finding.message)
            groups.setdefault(key, []).append(diagnosis.plugin)
            line = f":{finding.line}" if finding.line else ""
            places.setdefault(key, set()).add(f"{finding.file or ''}{line}")
    order = ("fault", "warning", "note")
    table = Table(title=_title(diagnoses), title_justify="left")
    table.add_column("severity", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("plugins", justify="right", no_wrap=True)
    table.add_column("which", overflow="fold")
    table.add_column("finding", overflow="fold")
    for key in sorted(groups, key=lambda key: (order.index(key[0]), key[1])):
        severity, check, message = key
        plugins = groups[key]
        many = len(plugins) == len(diagnoses) > 1
        which = "all" if many else named_some(plugins)
        # A place is shown where it is the same in all plugins.
        place = "".join(places[key]) if len(places[key]) == 1 else ""
        shown = f"{message} ({place})" if place else message
        table.add_row(severity, check, str(len(plugins)), which, shown)
    yield table


def _title(diagnoses: "Sequence[Diagnosis]") -> str:
    n_ran = sum(diagnosis.ran for diagnosis in diagnoses)
    n_sound = sum(diagnosis.n_faults == 0 for diagnosis in diagnoses)
    return f"{len(diagnoses)} plugins, {n_ran} run: {n_sound} without faults"
