"""Recordings from files of laboratories and open data sets, a format a module."""

from pathlib import Path

from ce_align.checks import nearest_names
from ce_align.data.importers.arrays import ARRAYS
from ce_align.data.importers.brainio import BRAINIO
from ce_align.data.importers.common import Importer, ImportSettings, Request
from ce_align.data.importers.nwb import NWB
from ce_align.data.importers.table import TABLE
from ce_align.data.importers.triplen import TRIPLEN
from ce_align.data.importers.tvsd import TVSD
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError, DataError
from ce_align.progress import Notify, Progress, quiet, silent

__all__ = ["IMPORTERS", "ImportSettings", "import_recording"]

#: Formats by name; of several that recognise a file the first is meant, so that what
#: knows its fields stands before what knows its suffix.
IMPORTERS = {
    found.name: found for found in (TVSD, TRIPLEN, BRAINIO, NWB, TABLE, ARRAYS)
}
#: Settings that every format takes.
SHARED = (
    *("file", "format", "region", "animal", "degrees", "stratify", "origin"),
    "keep_silent",
)


def _importer(settings: ImportSettings, tell: Notify) -> Importer:
    """The format that is asked for, or that the file has."""
    path = Path(settings.file)
    if settings.format is not None:
        if settings.format not in IMPORTERS:
            near = nearest_names(settings.format, IMPORTERS) or list(IMPORTERS)
            raise ConfigError(
                f"unknown format {settings.format!r}; nearest: {', '.join(near)}"
            )
        return IMPORTERS[settings.format]
    if not path.exists():
        raise DataError(f"no responses at {path}; give a file or folder")
    for importer in IMPORTERS.values():
        if importer.recognises(path):
            tell(f"{path.name} is read as {importer.name} ({importer.holds})")
            return importer
    raise ConfigError(
        f"{path} is of no format that is known by its name or fields; say which "
        f"(--format {', '.join(IMPORTERS)})"
    )


def import_recording(
    settings: ImportSettings,
    identifier: str,
    *,
    tell: Notify = quiet,
    progress: Progress = silent,
) -> Recording:
    """Recording from a file or folder of another program.

    Stimuli that show equal images (by their pixels) become repetitions of one, so that
    no image is ever in training and in test. Nothing that a file holds is executed.

    Parameters
    ----------
    settings : the file, its format, and what the file does not say
    identifier : short name of the recording
    tell : told in a line each how the files were understood
    progress : told of images read

    Raises
    ------
    ConfigError
        If the format is not known, or a setting is missing, unknown or of no use to it.
    DataError
        If a file cannot be read, lacks a field, or its fields contradict each other.
    """
    importer = _importer(settings, tell)
    known = {*SHARED, *importer.takes, *importer.needs}
    for name in settings.model_fields_set:
        field = type(settings).model_fields[name]
        if name not in known and getattr(settings, name) != field.default:
            raise ConfigError(
                f"the format {importer.name} takes no {name}; it takes "
                f"{', '.join(sorted(known - {'file', 'format'}))}"
            )
    absent = [name for name in importer.needs if getattr(settings, name) is None]
    if absent:
        fields = type(settings).model_fields
        unless = " and, unless the file states it, region (--region)"
        raise ConfigError(
            f"the format {importer.name} needs "
            + " ".join(f"{n} (--{n}): {fields[n].description}" for n in absent)
            + (unless if settings.region is None else "")
        )
    return importer.read(Request(settings, identifier, tell, progress))
