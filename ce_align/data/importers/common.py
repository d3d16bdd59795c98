"""What importers share: settings, images by name, and what makes a recording."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ce_align.checks import check_unique, named_some, nearest_names
from ce_align.config import StageConfig
from ce_align.data.imagefiles import (
    ORDERS,
    FileSource,
    find_names,
    open_source,
    order_names,
)
from ce_align.data.imagesets import ImageSet, exif_orientation, has_transparency
from ce_align.data.importers.listing import listed_images, read_table
from ce_align.data.joining import check_split, first_rows, join_rows
from ce_align.data.presentations import Presentations, Responses, of_neuroids
from ce_align.data.recordings import Origin, Recording, canonical_region
from ce_align.errors import ConfigError, DataError
from ce_align.files import DAMAGE, check_regular, reason
from ce_align.progress import Notify, Progress, quiet, silent

__all__ = [
    *("Importer", "ImportSettings", "Request", "counted", "find_images", "finished"),
    *(
        "first_of_pixels",
        "known_window",
        "open_hdf5",
        "ordered_files",
        "read_field",
        "texts",
    ),
]

#: Window of the benchmarks of Brain-Score, where no other is asked for.
WINDOW = (70.0, 170.0)
#: Visual angle where neither the file nor the user states one.
DEGREES = 8.0


class ImportSettings(StageConfig):
    """How a file of responses becomes a recording.

    Which of the settings a format takes and needs is said by its `Importer`.
    """

    stage: ClassVar = "recording"

    file: str = Field(description="File or folder of responses.")
    format: str | None = Field(
        default=None,
        description="arrays, brainio, nwb, table, triplen or tvsd. "
        "[default: by the file's name and fields]",
    )
    images: str | None = Field(
        default=None, description="Folder, zip or tar of the images."
    )
    region: str | None = Field(
        default=None,
        description="Recorded area: V1, V2, V4, IT, ...; of a file that states areas, "
        "the one to take.",
    )
    animal: str | None = Field(
        default=None,
        description="Name of the animal; of a file that names several, the one to "
        "take.",
    )
    degrees: float | None = Field(
        default=None,
        gt=0,
        description="Visual angle of the images. [default: as the file states, else 8]",
    )
    axes: str | None = Field(
        default=None,
        description="Axes of an array, such as stimulus,repetition,neuroid; of .mat as "
        "MATLAB counts them. Repetition may be absent; NaN where one is missing.",
    )
    key: tuple[str, ...] = Field(
        default=(),
        description="ROLE=NAME: the field or column that holds the responses, the "
        "stimulus of each row or trial, its onset, ...; the format's roles are listed "
        "where one is unknown.",
    )
    window: tuple[float, float] | None = Field(
        default=None,
        description="Start and end in ms after stimulus onset: spikes in [start, end) "
        "are counted, rates averaged.",
    )
    bins: float | None = Field(
        default=None,
        gt=0,
        description="Width in ms of time bins that divide the window; without it the "
        "window is one.",
    )
    order: str = Field(
        default="natural",
        description="Which image belongs to which row: natural (numbers in names), "
        "name, or a csv with a column that names the image of each row (one image may "
        "stand in several).",
    )
    stimuli: str | None = Field(
        default=None,
        description="csv of further columns, one line a stimulus; attached by the "
        "column that names the images, else in the order of the rows.",
    )
    stratify: str | None = Field(
        default=None, description="Column over which splits are balanced."
    )
    origin: Origin = Field(
        default="imported",
        description="What the responses are: of animals, recorded or imported from "
        "elsewhere, or simulated, which every table and figure then says.",
    )
    keep_silent: bool = Field(
        default=False,
        description="Refuse neuroids that never respond, or always equally, instead of "
        "leaving them out.",
    )


@dataclass(frozen=True)
class Request:
    """One import: settings, the recording's name, and who is told.

    settings : what was asked for
    identifier : short name of the recording
    tell : told in a line each how the files were understood
    progress : told of images read
    """

    settings: ImportSettings
    identifier: str
    tell: Notify = quiet
    progress: Progress = silent

    @property
    def path(self) -> Path:
        """File or folder of responses."""
        return Path(self.settings.file)

    def keys(self, *roles: str) -> dict[str, str]:
        """Names that were given to roles; ConfigError if there is no such role."""
        given = {}
        for text in self.settings.key:
            role, equals, name = text.partition("=")
            if not equals or not name or role not in roles:
                raise ConfigError(
                    f"a key must be ROLE=NAME with a role out of {', '.join(roles)}; "
                    f"found {text!r}"
                )
            given[role] = name
        return given

    def source(self) -> FileSource:
        """Images that the user has; ConfigError if none are given."""
        if self.settings.images is None:
            raise ConfigError(
                f"{self.path.name} holds no images; give their folder, zip or tar "
                "(--images)"
            )
        return open_source(Path(self.settings.images))


@dataclass(frozen=True)
class Importer:
    """One format.

    name : as users type it
    holds : what it is, in words
    recognises : whether a file or folder is of it, by a quick look
    read : recording of a request
    takes : settings that it understands, apart from those that every format does
    needs : those of them without which it reads nothing
    """

    name: str
    holds: str
    recognises: Callable[[Path], bool]
    read: Callable[[Request], Recording]
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """An HDF5 file; what is wrong with it is told in a line with its name."""
    import h5py

    if not path.exists():
        raise DataError(f"there is no file {path}")
    try:
        with h5py.File(check_regular(path), "r") as file:
            yield file
    except (DataError, ConfigError):
        raise
    except DAMAGE as error:
        raise DataError(
            f"{path} is damaged or no HDF5 file: {reason(error)}; copy or make it again"
        ) from error


def read_field(
    file: Any, name: str, shape: tuple[int | None, ...] | None = None
) -> Any:
    """A dataset of an HDF5 file by its path; DataError if it is not there.

    `shape` is what is expected, None for any number; a wrong one is refused, too.
    """
    import h5py

    path, found = Path(file.file.filename), file.get(name)
    if not isinstance(found, h5py.Dataset):
        group, _, last = name.rpartition("/")
        there = file.get(group) if group else file
        names = list(there) if isinstance(there, h5py.Group) else list(file)
        near = nearest_names(last, names) or names
        raise DataError(
            f"{path.name} has no field {file.name.rstrip('/')}/{name}; nearest: "
            f"{named_some(near) or 'it is empty'}"
        )
    if shape is not None and not (
        len(shape) == found.ndim
        and all(n in (None, m) for n, m in zip(shape, found.shape, strict=True))
    ):
        expected = ", ".join("any" if n is None else str(n) for n in shape)
        raise DataError(
            f"field {name} of {path.name} must be ({expected}), found {found.shape}"
        )
    return found


def texts(values: Any) -> NDArray[np.str_]:
    """Strings of an array of strings, bytes or numbers."""
    return np.array(
        [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)
         for v in np.asarray(values).ravel().tolist()],
        dtype=str,
    )  # fmt: skip


def known_window(asked: Request) -> tuple[float, float]:
    """Window in ms after stimulus onset that was asked for, or Brain-Score's."""
    window = asked.settings.window
    if window is None:
        asked.tell(
            f"the window is {WINDOW[0]:g} to {WINDOW[1]:g} ms after stimulus onset; "
            "--window asks for another"
        )
        return WINDOW
    if not window[0] < window[1]:
        raise ConfigError(
            f"a window must end after it starts, found {window[0]:g} to {window[1]:g} "
            "ms"
        )
    return window


def counted(values: NDArray[Any], stimulus: NDArray[Any]) -> Presentations:
    """Presentations whose repetitions are numbered in the order of the rows."""
    stimulus = np.asarray(stimulus, dtype=np.intp)
    order = np.argsort(stimulus, kind="stable")
    _, starts, counts = np.unique(
        stimulus[order], return_index=True, return_counts=True
    )
    repetition = np.empty(len(stimulus), dtype=np.intp)
    repetition[order] = np.arange(len(order)) - np.repeat(starts, counts)
    return Presentations(values, stimulus, repetition)


def find_images(
    asked: Request,
    names: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    columns: Mapping[str, NDArray[Any]] | None = None,
) -> ImageSet:
    """Images that the user has, by the names that the file gives to stimuli.

    `ids` are the stimuli's own, else the names. DataError if an image is not there.
    """
    source = asked.source()
    found = find_names(source.names, names)
    absent = [name for name, full in zip(names, found, strict=True) if full is None]
    if absent:
        raise DataError(
            f"{len(absent)} of {len(names)} images of {asked.path.name} are not in "
            f"{asked.settings.images}, or are there more than once: "
            f"{named_some(absent)}"
        )
    files = [full for full in found if full is not None]
    own = list(ids) if ids is not None else list(names)
    return ImageSet.from_encoded(asked.identifier, own, source, files, columns or {})


def ordered_files(asked: Request, source: FileSource) -> list[str]:
    """Image of each row, in the order that the settings ask for."""
    order, images = asked.settings.order, Path(asked.settings.images or "").name
    if order in ORDERS:
        names = list(order_names(source.names, order))
        others = [list(order_names(source.names, other)) for other in ORDERS]
        if any(other != names for other in others):
            how = "the numbers in their names" if order == "natural" else "letter"
            asked.tell(f"images are ordered by {how}: {named_some(names)}")
        return names
    path = Path(order)
    if not path.exists():
        raise ConfigError(
            f"order must be {' or '.join(sorted(ORDERS))}, or a csv file that exists; "
            f"found {path}"
        )
    names = listed_images(read_table(path, source.names), source.names)
    n_left = len(set(source.names) - set(names))
    if n_left:
        asked.tell(f"{n_left} images of {images} are not listed in {path.name}")
    return names


def first_of_pixels(
    images: ImageSet, tell: Notify, progress: Progress
) -> NDArray[np.intp]:
    """For each image the first with the same pixels; say what is not applied."""
    pixels, turned, clear = [], [], []
    for i, name in enumerate(images.ids):
        pixels.append(images.pixel_digest(i))
        encoded = images.encoded(i)
        turned += [name] if exif_orientation(encoded) != 1 else []
        clear += [name] if has_transparency(encoded) else []
        progress("images", i + 1, len(images))
    if turned:
        tell(
            f"{len(turned)} images state an orientation (EXIF), which is not applied, "
            f"as Brain-Score does not: {named_some(turned)}; turn the pixels if the "
            "images were shown upright"
        )
    if clear:
        tell(
            f"{len(clear)} images have transparent pixels, of which networks see the "
            f"colour: {named_some(clear)}; paste them on the background that was shown"
        )
    return first_rows(pixels)


def finished(
    asked: Request,
    images: ImageSet,
    responses: Responses,
    neuroids: Mapping[str, NDArray[Any]],
    *,
    degrees: float | None = None,
    split: NDArray[np.str_] | None = None,
    first: NDArray[np.intp] | None = None,
    **fields: Any,
) -> Recording:
    """The recording that was asked for, of what a format holds.

    Neuroids of another area or animal are left out, as are silent ones; stimuli whose
    pixels are equal become one.

    Parameters
    ----------
    neuroids : columns of the neuroids, with ``neuroid_id``; an area that the file does
        not state is that of the settings
    degrees : visual angle that the file states
    split : ``train`` or ``test`` for each stimulus
    first : for each stimulus the first one of equal pixels, where that is known
    **fields : further ones of `Recording`
    """
    settings, tell = asked.settings, asked.tell
    responses, columns = _wanted(asked, responses, neuroids)
    ids = list(map(str, columns.pop("neuroid_id")))
    if "animal" in columns:
        ids = [f"{a}/{i}" for a, i in zip(columns["animal"], ids, strict=True)]
    check_unique(ids, f"neuroids of {asked.path.name}")
    if settings.degrees is not None:
        degrees = settings.degrees
    elif degrees is None:
        degrees = DEGREES
        tell(f"images are taken to be {DEGREES:g}° wide; --degrees states another")
    if first is None:
        first = first_of_pixels(images, tell, asked.progress)
    check_split(split, first, images.ids, asked.identifier)
    rows, shared, joined = join_rows(
        responses,
        images.columns,
        first,
        images.ids,
        stratify=settings.stratify,
        identifier=asked.identifier,
    )
    places = np.unique(first)
    make = Recording if settings.keep_silent else Recording.without_silent
    recording = make(
        identifier=asked.identifier,
        images=replace(images.select(places.tolist()), columns=shared),
        responses=rows,
        neuroid_ids=tuple(ids),
        region="" if "region" in columns else canonical_region(settings.region or ""),
        degrees=degrees,
        stratify=settings.stratify,
        neuroids=columns,
        split=None if split is None else split[places],
        origin=settings.origin,
        notes=(joined,) if joined else (),
        **fields,
    )
    for note in recording.notes:
        tell(note)
    return recording


def _wanted(
    asked: Request, responses: Responses, neuroids: Mapping[str, NDArray[Any]]
) -> tuple[Responses, dict[str, NDArray[Any]]]:
    """Neuroids of the area and animal that were asked for.

    Raises
    ------
    ConfigError
        If there are none, or if nobody states their area.
    """
    columns = {name: np.asarray(values) for name, values in neuroids.items()}
    region = canonical_region(asked.settings.region or "")
    if "region" in columns:
        columns["region"] = np.array([canonical_region(r) for r in columns["region"]])
    elif not region:
        raise ConfigError(
            f"{asked.path.name} states no area of its neuroids; give one (--region IT)"
        )
    kept = np.ones(len(columns["neuroid_id"]), dtype=bool)
    animal = asked.settings.animal or ""
    if animal:
        columns.setdefault("animal", np.full(len(kept), animal))
    for name, wanted in (("region", region), ("animal", animal)):
        if not wanted or name not in columns:
            continue
        kept &= columns[name] == wanted
        if not kept.any():
            there = ", ".join(dict.fromkeys(columns[name].tolist()))
            raise ConfigError(
                f"{asked.path.name} has no neuroid of {name} {wanted!r}; it has {there}"
            )
    if kept.all():
        return responses, columns
    return of_neuroids(responses, kept), {k: v[kept] for k, v in columns.items()}
