"""The check of plugins: what reading them finds, and running those that it may."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ce_align.brainscore.plugin import Finding, fault, warning
from ce_align.brainscore.plugin.archive import ZIP_LIMIT, opened_plugins, zipped_size
from ce_align.brainscore.plugin.rules import findings
from ce_align.brainscore.plugin.run import Trial, run_plugins
from ce_align.brainscore.plugin.source import PluginSource
from ce_align.brainscore.plugin.writing import recovered_spec
from ce_align.brainscore.upstream import installed_plugins
from ce_align.progress import Progress, silent

__all__ = ["PluginCheck", "check_plugins", "inspect_plugins"]


class PluginCheck(BaseModel):
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


def check_plugins(
    path: Path, *, run: bool | None = None, progress: Progress = silent
) -> list[PluginCheck]:
    """Check a plugin, a folder of plugins, or a zip of them.

    All are read without being executed. To run one is to load it by Brain-Score's own
    loader, in a process without credentials and with caches of its own, and to score
    it on simulated scenes; that executes its code and fetches its weights.

    Parameters
    ----------
    path : what to check
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
        ours = {s.name: recovered_spec(s.folder) is not None for s in sources}
        runnable = [
            (identifier, source.folder)
            for source in sources
            if (ours[source.name] if run is None else run)
            and all(registered.found_to_load for registered in source.registrations)
            for identifier in source.identifiers
        ]
        names = [identifier for identifier, _ in runnable]
        # One that is registered twice cannot be loaded.
        once = {name: folder for name, folder in runnable if names.count(name) == 1}
        trials: dict[str, Trial] = {}
        if once:
            progress("run", 0, len(once))
            trials = run_plugins(once)
            progress("run", len(once), len(once))
    order = ("fault", "warning", "note")
    checked = []
    for source in sources:
        own = {name: trials[name] for name in source.identifiers if name in trials}
        told = [*found[source.name], *(f for trial in own.values() for f in trial[0])]
        told.sort(key=lambda finding: order.index(finding.severity))
        result = PluginCheck(
            plugin=source.name,
            identifiers=tuple(source.identifiers),
            ours=ours[source.name],
            ran=bool(own),
            score={
                name: score for name, (_, score) in own.items() if score is not None
            },
            findings=tuple(told),
        )
        checked.append(result)
    return checked


def inspect_plugins(
    folders: Sequence[Path],
    archive_faults: Sequence[str] = (),
    progress: Progress = silent,
) -> dict[str, list[Finding]]:
    """What reading finds about plugins that would be submitted together, by folder.

    Their code is never imported or executed.

    Parameters
    ----------
    folders : of the plugins
    archive_faults : of the zip around them
    progress : told of plugins done
    """
    sources = [PluginSource(folder) for folder in folders]
    together = [fault("zip", problem) for problem in archive_faults]
    n_bytes = sum(zipped_size(folder) for folder in folders)
    if n_bytes > ZIP_LIMIT:
        message = (
            f"the zip would have {n_bytes / 1e6:.0f} MB, but Brain-Score takes "
            f"{ZIP_LIMIT / 1e6:.0f} MB; serve the weights from an address"
        )
        together.append(fault("zip", message))
    found: dict[str, list[Finding]] = {}
    for done, source in enumerate(sources):
        progress("read", done, len(sources))
        others = [other for other in sources if other is not source]
        found[source.name] = [
            *(*together, *findings(source), *_duplicates(source, others))
        ]
    progress("read", len(sources), len(sources))
    return found


def _duplicates(
    source: PluginSource, others: Sequence[PluginSource]
) -> Iterator[Finding]:
    """Other plugins of the same identifiers, here or in the installed Brain-Score."""
    check = "duplicate"
    for identifier in source.identifiers:
        names = [other.name for other in others if identifier in other.identifiers]
        if names:
            yield fault(
                check, f"{identifier!r} is registered by {', '.join(names)} too"
            )
        for folder in installed_plugins("model").get(identifier, ()):
            if folder.resolve() == source.folder.resolve():
                continue
            if folder.name == source.name:
                yield warning(
                    check,
                    "Brain-Score has a plugin of this name, which this one would "
                    "replace",
                )
            else:
                yield fault(
                    check,
                    f"Brain-Score's plugin {folder.name!r} registers {identifier!r} "
                    "too, and two registrations cannot be loaded",
                )
