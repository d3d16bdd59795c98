"""The doctor of Brain-Score plugins: what reading them finds, without running them."""

import importlib.util
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from ce_align.brainscore.plugin.archive import ZIP_LIMIT, zipped_size
from ce_align.brainscore.plugin.code import code_checks
from ce_align.brainscore.plugin.findings import Finding, fault, warning
from ce_align.brainscore.plugin.identity import identity_checks
from ce_align.brainscore.plugin.papers import paper_checks
from ce_align.brainscore.plugin.source import PluginSource
from ce_align.progress import Progress, silent

__all__ = ["inspect_plugins"]

#: Text that Brain-Score takes for a registration.
REGISTERED = re.compile(r"""model_registry\[['"]([^'"]+)['"]\]""")


def inspect_plugins(
    folders: Sequence[Path],
    archive_faults: Sequence[str] = (),
    progress: Progress = silent,
) -> dict[str, list[Finding]]:
    """What is wrong with plugins, by their folders' names.

    Their code is read, never imported or executed.

    Parameters
    ----------
    folders : of the plugins that would be submitted together
    archive_faults : of the zip around them
    progress : told of plugins done
    """
    sources = [PluginSource(folder) for folder in folders]
    together = [fault("zip", problem) for problem in archive_faults]
    together += _size(folders)
    findings: dict[str, list[Finding]] = {}
    for done, source in enumerate(sources):
        progress("read", done, len(sources))
        findings[source.name] = [
            *together,
            *identity_checks(source),
            *_duplicates(source, sources),
            *code_checks(source),
            *paper_checks(source),
        ]
    progress("read", len(sources), len(sources))
    return findings


def _size(folders: Sequence[Path]) -> Iterator[Finding]:
    n_bytes = sum(zipped_size(folder) for folder in folders)
    if n_bytes > ZIP_LIMIT:
        yield fault(
            "zip",
            f"the zip would have {n_bytes / 1e6:.0f} MB, but Brain-Score takes "
            f"{ZIP_LIMIT / 1e6:.0f} MB; serve the weights from an address",
        )


def _duplicates(
    source: PluginSource, sources: Sequence[PluginSource]
) -> Iterator[Finding]:
    """Other plugins of the same identifier, here or in the installed Brain-Score."""
    for identifier in source.identifiers:
        others = [
            other.name
            for other in sources
            if other is not source and identifier in other.identifiers
        ]
        if others:
            yield fault(
                "duplicate", f"{identifier!r} is registered by {', '.join(others)} too"
            )
        for folder in _installed().get(identifier, ()):
            if folder.resolve() == source.folder.resolve():
                continue
            if folder.name == source.name:
                yield warning(
                    "duplicate",
                    "Brain-Score has a plugin of this name, which this one would "
                    "replace",
                )
            else:
                yield fault(
                    "duplicate",
                    f"Brain-Score's plugin {folder.name!r} registers {identifier!r} "
                    "too, and two registrations cannot be loaded",
                )


@cache
def _installed() -> dict[str, list[Path]]:
    """Plugins of the installed Brain-Score by identifier; it is not imported."""
    found = importlib.util.find_spec("brainscore_vision")
    places = found.submodule_search_locations if found else None
    registered: dict[str, list[Path]] = {}
    for place in places or ():
        for init in sorted(Path(place, "models").glob("*/__init__.py")):
            text = init.read_text(encoding="utf-8", errors="replace")
            for identifier in set(REGISTERED.findall(text)):
                registered.setdefault(identifier, []).append(init.parent)
    return registered
