"""Recordings by name: those that were registered, of sources, and of files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from ce_align.checks import nearest_names
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError
from ce_align.foreign import guarded
from ce_align.names import KNOWN

__all__ = [
    *("RECORDINGS", "Entry", "expand_recordings", "load_recording"),
    *("matching_recordings", "register_recording_reader", "register_recording_source"),
    "register_recordings",
]


@dataclass(frozen=True)
class Entry:
    """What is known of a recording before a byte of it is read.

    Counts that are not stated anywhere are None, texts empty; `origin` is that of the
    recording, `metric` how its benchmark scores, `remark` on how to get it.
    """

    name: str
    region: str
    load: Callable[[], Recording]
    images: int | None = None
    neuroids: int | None = None
    repetitions: int | None = None
    access: str = "open"
    groups: tuple[str, ...] = ()
    origin: str = "recorded"
    metric: str = ""
    licence: str = ""
    citation: str = ""
    remark: str = ""


#: Recordings by name. Other rooms add theirs; `load_recording` looks here.
RECORDINGS: dict[str, Entry] = {}


def register_recordings(entries: Mapping[str, Entry]) -> None:
    """Add recordings; a name registered again replaces the old entry."""
    for name, entry in entries.items():
        load = guarded(entry.load, f"the loader of {name}", Recording)
        RECORDINGS[name] = replace(entry, load=load)
    KNOWN["recording"].update(entries)


#: Loader of each prefix of names; it takes what follows ``prefix/``.
SOURCES: dict[str, Callable[[str], Recording]] = {}
#: Reader of each kind of file, by the suffix of its name.
READERS: dict[str, Callable[[Path], Recording]] = {}


def register_recording_source(prefix: str, loader: Callable[[str], Recording]) -> None:
    """Let ``prefix/NAME`` name recordings, which are not listed."""
    SOURCES[prefix] = guarded(loader, f"the recording source {prefix!r}", Recording)


def register_recording_reader(suffix: str, reader: Callable[[Path], Recording]) -> None:
    """Let paths with a suffix name recordings, which are not listed."""
    READERS[suffix] = guarded(reader, f"the reader of {suffix} files", Recording)


def _source_of(name: str) -> tuple[Callable[[str], Recording] | None, str]:
    """Loader of a name that says its source, and the name there."""
    prefix, _, rest = name.partition("/")
    is_file = Path(name).suffix in READERS
    return (None if is_file or not rest else SOURCES.get(prefix)), rest


def matching_recordings(pattern: str) -> list[str]:
    """Registered recordings that a name, glob or group stands for."""
    return [
        name
        for name, entry in RECORDINGS.items()
        if fnmatchcase(name, pattern.lower()) or pattern in entry.groups
    ]


def expand_recordings(patterns: tuple[str, ...]) -> list[str]:
    """Names of recordings that patterns stand for, each once, in order.

    A pattern is a name, a glob over names, a group, a path to a netCDF file or a glob
    over such paths, or a name with the prefix of a source. Raises ConfigError, which
    lists the nearest names, if a pattern stands for nothing.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = matching_recordings(pattern)
        if not matches and _source_of(pattern)[0]:
            matches = [pattern]
        if not matches and Path(pattern).suffix in READERS:
            path = Path(pattern)
            matches = sorted(map(str, path.parent.glob(path.name))) or [pattern]
        if not matches:
            if Path(pattern).exists():
                how = f"import it first (ce-align import {pattern} --help)"
                raise ConfigError(f"{pattern} is no recording; {how}")
            near = nearest_names(pattern, RECORDINGS) or sorted(RECORDINGS)
            raise ConfigError(
                f"unknown recording {pattern!r}; nearest: {', '.join(near)}; or give "
                "a .nc file that `ce-align import` wrote"
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def load_recording(name: str) -> Recording:
    """Recording of a registered name, of a source, or of a netCDF file.

    Raises ConfigError if it is unknown, DataError if the file holds no recording.
    """
    if name in RECORDINGS:
        return RECORDINGS[name].load()
    loader, rest = _source_of(name)
    if loader is not None:
        return loader(rest)
    if reader := READERS.get(Path(name).suffix):
        return reader(Path(name))
    return load_recording(expand_recordings((name,))[0])
