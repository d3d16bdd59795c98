"""The doctor of Brain-Score plugins: reads them, and runs those that it may."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ce_align.brainscore.plugin.archive import opened_plugins
from ce_align.brainscore.plugin.findings import Finding
from ce_align.brainscore.plugin.inspection import inspect_plugins
from ce_align.brainscore.plugin.overlay import is_ours
from ce_align.brainscore.plugin.run import Trial, run_plugins
from ce_align.brainscore.plugin.source import PluginSource
from ce_align.progress import Progress, silent

__all__ = ["Diagnosis", "examine"]


class Diagnosis(BaseModel):
    """What was found about one plugin.

    Attributes
    ----------
    plugin : its folder
    identifiers : of its networks
    ours : whether its code is what this version writes
    ran : whether it was loaded and scored
    score : raw² / ceiling on simulated scenes, by identifier
    findings : faults first
    """

    model_config = ConfigDict(frozen=True)

    plugin: str
    identifiers: tuple[str, ...]
    ours: bool
    ran: bool
    score: Mapping[str, float]
    findings: tuple[Finding, ...]

    @property
    def n_faults(self) -> int:
        """Number of faults."""
        return sum(finding.severity == "fault" for finding in self.findings)


def examine(
    path: Path, *, run: bool | None = None, progress: Progress = silent
) -> list[Diagnosis]:
    """Examine a plugin, a folder of plugins, or a zip of them.

    All are read without being executed. To run one is to load it by Brain-Score's own
    loader, in a process without credentials and with caches of its own, and to score
    it on simulated scenes; that executes its code and fetches its weights.

    Parameters
    ----------
    path : what to examine
    run : whether to run plugins; by default those whose code is what `submit` writes
    progress : told of plugins done

    Raises
    ------
    DataError
        If there is no plugin, or the zip is damaged.
    """
    with opened_plugins(path) as (folders, archive_faults):
        found = inspect_plugins(folders, archive_faults, progress)
        sources = [PluginSource(folder) for folder in folders]
        ours = {source.name: is_ours(source.folder) for source in sources}
        runnable = {
            source.name: source.identifiers
            for source in sources
            if (ours[source.name] if run is None else run)
            and all(registered.found_to_load for registered in source.registrations)
        }
        trials = _run(sources, runnable, progress)
        return [
            _diagnosis(source, found[source.name], ours[source.name], trials)
            for source in sources
        ]


def _run(
    sources: Sequence[PluginSource],
    runnable: Mapping[str, Sequence[str]],
    progress: Progress,
) -> dict[str, Trial]:
    """Trials by identifier; one registered twice cannot be loaded."""
    folders: dict[str, list[Path]] = {}
    for source in sources:
        for identifier in runnable.get(source.name, ()):
            folders.setdefault(identifier, []).append(source.folder)
    once = {name: found[0] for name, found in folders.items() if len(found) == 1}
    if not once:
        return {}
    progress("run", 0, len(once))
    trials = run_plugins(once)
    progress("run", len(once), len(once))
    return trials


def _diagnosis(
    source: PluginSource,
    findings: Sequence[Finding],
    ours: bool,
    trials: Mapping[str, Trial],
) -> Diagnosis:
    own = {name: trials[name] for name in source.identifiers if name in trials}
    found = [*findings, *(f for trial in own.values() for f in trial.findings)]
    order = ("fault", "warning", "note")
    return Diagnosis(
        plugin=source.name,
        identifiers=tuple(source.identifiers),
        ours=ours,
        ran=bool(own),
        score={name: t.score for name, t in own.items() if t.score is not None},
        findings=tuple(
            sorted(found, key=lambda finding: order.index(finding.severity))
        ),
    )
