"""Findings about Brain-Score plugins as tables for the terminal."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from ce_align.checks import named_some

if TYPE_CHECKING:
    from ce_align.brainscore.plugin_doctor import Diagnosis
    from ce_align.brainscore.plugin_findings import Severity

__all__ = ["findings_tables"]


def findings_tables(diagnoses: "Sequence[Diagnosis]") -> Iterator[Table]:
    """Each different finding once, with the plugins that have it; faults first."""
    groups: dict[tuple[Severity, str, str], list[str]] = {}
    for diagnosis in diagnoses:
        for finding in diagnosis.findings:
            where = f"{finding.file}:{finding.line}" if finding.line else finding.file
            message = f"{finding.message} ({where})" if where else finding.message
            key = (finding.severity, finding.check, message)
            groups.setdefault(key, []).append(diagnosis.plugin)
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
        table.add_row(severity, check, str(len(plugins)), which, message)
    yield table


def _title(diagnoses: "Sequence[Diagnosis]") -> str:
    n_ran = sum(diagnosis.ran for diagnosis in diagnoses)
    n_sound = sum(diagnosis.n_faults == 0 for diagnosis in diagnoses)
    return f"{len(diagnoses)} plugins, {n_ran} run: {n_sound} without faults"
