"""Features that were computed elsewhere, in the place of a network."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import check_finite, check_unique, named_some, nearest_names
from ce_align.digests import combine_digests, digest_array, digest_json
from ce_align.errors import ConfigError, DataError
from ce_align.files import check_regular, import_xarray, reading_archive
from ce_align.names import FEATURES
from ce_align.results import NetworkFacts

if TYPE_CHECKING:
    from ce_align.data.imagesets import ImageSet
    from ce_align.models.features import Features
    from ce_align.models.networks import Probe

__all__ = ["FEATURE_FILES", "FeatureArray", "load_features"]

#: Name of the layer of an array that is alone.
LAYER = "features"

#: Files that can hold features.
FEATURE_FILES = (".npy", ".npz", ".h5", ".hdf5", ".nc", ".safetensors")

#: What rows say that were matched without names.
IN_ORDER = "features taken in the order of the stimuli"

Matrix = NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class FeatureArray:
    """Features of the stimuli of a recording, by whatever computed them.

    Attributes
    ----------
    name : stands for the network in rows
    values : (n_stimuli, n_features), or such an array for each layer by name; further
        axes are flattened
    ids : of the stimulus of each row; None if rows are in the recording's order
    columns : further columns that may name the stimuli, as in a table

    Raises
    ------
    DataError
        If `values` are no such arrays, or not finite.
    """

    name: str
    values: NDArray[Any] | Mapping[str, NDArray[Any]]
    ids: Sequence[Any] | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    arrays: dict[str, Matrix] = field(default_factory=dict, init=False)
    layers: dict[str, str] = field(default_factory=dict, init=False)
    facts: NetworkFacts = field(default_factory=NetworkFacts, init=False)

    def __post_init__(self) -> None:
        several = isinstance(self.values, Mapping)
        given: Any = self.values if several else {LAYER: self.values}
        arrays = {
            str(layer): self._checked(values, f" {layer}" if several else "")
            for layer, values in given.items()
        }
        lengths = {len(values) for values in arrays.values()}
        if len(lengths) != 1:
            raise DataError(
                f"{self.name} has layers of {', '.join(map(str, sorted(lengths)))} "
                "stimuli; expected as many rows in each"
            )
        stated = {} if self.ids is None else {"ids": self.ids}
        columns = {k: [*map(str, v)] for k, v in {**stated, **self.columns}.items()}
        for column, cells in columns.items():
            if len(cells) not in lengths:
                raise DataError(
                    f"{self.name} has features of {min(lengths)} stimuli, but "
                    f"{len(cells)} {column}; expected one for each row"
                )
        object.__setattr__(self, "arrays", arrays)
        object.__setattr__(self, "columns", columns)

    def __repr__(self) -> str:
        shapes = (
            f"{k} {' × '.join(map(str, v.shape))}" for k, v in self.arrays.items()
        )
        return f"<FeatureArray {self.name}: {', '.join(shapes)}>"

    def _checked(self, given: Any, layer: str) -> Matrix:
        what, values = f"features of {self.name}{layer}", np.asarray(given)
        if values.ndim < 2 or not values.size or values.dtype.kind not in "fiu":
            raise DataError(
                f"{what} must be numbers (n_stimuli, n_features), found "
                f"{values.dtype} {values.shape}"
            )
        with np.errstate(over="ignore"):
            found = values.reshape(len(values), -1).astype(np.float32, copy=False)
        check_finite(found, what)
        return found

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {layer: digest_array(values) for layer, values in self.arrays.items()}

    @cached_property
    def digest(self) -> str:
        """Identity: of the values, and of the names of the stimuli."""
        arrays = self.arrays
        parts = list(self._digests.values())
        if list(arrays) != [LAYER]:
            parts.append(digest_json(list(arrays)))
        if self.columns:
            parts.append(digest_json(dict(self.columns)))
        return combine_digests("features", *parts)

    def layer_for(self, region: str) -> str:
        """The only layer, whatever the region.

        Raises
        ------
        ConfigError
            If there are several.
        """
        if len(self.arrays) > 1:
            raise ConfigError(
                f"{self.name} commits no layer to region {region}; name one with "
                f"--layer, or 'all': {named_some(list(self.arrays))}"
            )
        return next(iter(self.arrays))

    def block_names(self) -> list[str]:
        """Every layer."""
        return list(self.arrays)

    def matching(self, pattern: str) -> list[str]:
        """Layers that a pattern names; ConfigError if there is none."""
        from ce_align.models.networks import matching_layers

        return matching_layers(pattern, self.arrays, self.name)

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise ConfigError unless there are all these layers."""
        for layer in layers:
            if layer not in self.arrays:
                near = nearest_names(layer, self.arrays) or list(self.arrays)
                raise ConfigError(
                    f"{self.name} is an array of features and has no layer {layer!r}; "
                    f"it has {named_some(near)}"
                )

    def probe(self, layers: Sequence[str], *, allow_unstable: bool = False) -> "Probe":
        """What it is, as a network would say it of itself."""
        import torch

        from ce_align.models.networks import Behaviour, Probe

        self.check_layers(layers)
        behaviours = {
            layer: Behaviour.of(torch.from_numpy(np.array(self.arrays[layer][:2])))
            for layer in layers
        }
        axes = dict.fromkeys(layers, 0)
        remark = "" if self.columns else IN_ORDER
        identity = {f"layer {k}": v for k, v in self._digests.items()}
        identity["stimuli"] = digest_json(dict(self.columns))
        return Probe(
            self.digest, identity, behaviours=behaviours, axes=axes, remark=remark
        )

    def features(
        self, images: "ImageSet", layers: Sequence[str]
    ) -> "dict[str, Features]":
        """Features of images, by the names of the stimuli or, without, in their order.

        Raises
        ------
        DataError
            If an image has no features, or several.
        """
        from ce_align.models.features import Features

        rows = self._rows(images)
        found = {}
        for layer in layers:
            values = self.arrays[layer]
            if rows is not None:
                values = values[rows]
            found[layer] = Features(values, self.name, layer, images.ids, self.digest)
        return found

    def _rows(self, images: "ImageSet") -> "list[int] | None":
        """Row of each image; None if they are in order."""
        n_rows = len(next(iter(self.arrays.values())))
        if not self.columns:
            if len(images) == n_rows:
                return None
            raise DataError(
                f"{self.name} has features of {n_rows} stimuli, but "
                f"{images.identifier} has {len(images)}; give a row for each, in the "
                "order of its stimuli, or their ids (--stimuli)"
            )
        best: tuple[int, str, list[str]] | None = None
        for column, listed in self._spellings():
            for wanted in _names_of(images):
                known = set(listed)
                absent = [name for name in wanted if name not in known]
                if not absent:
                    asked = set(wanted)
                    check_unique(
                        [name for name in listed if name in asked],
                        f"stimuli of {self.name} ({column})",
                    )
                    row_of = {name: row for row, name in enumerate(listed)}
                    rows = [row_of[name] for name in wanted]
                    return None if rows == list(range(n_rows)) else rows
                if best is None or len(absent) < best[0]:
                    best = len(absent), column, absent
        n_absent, column, absent = best or (0, "", [])
        raise DataError(
            f"{self.name} has no features of {n_absent} of {len(images)} stimuli of "
            f"{images.identifier}: {column} does not list {named_some(absent)}"
        )

    def _spellings(self) -> Iterator[tuple[str, list[str]]]:
        """Columns as they are, and without suffixes of files."""
        for column, cells in self.columns.items():
            yield column, list(cells)
        for column, cells in self.columns.items():
            yield column, [_stem(cell) for cell in cells]


def _stem(name: str) -> str:
    """Name of an image without its suffix."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.isascii() and path.name else name


def _names_of(images: "ImageSet") -> Iterator[Sequence[str]]:
    """Whatever names each image alone: its id, and columns of the recording."""
    yield images.ids
    for values in images.columns.values():
        names = [str(value) for value in values]
        if len(set(names)) == len(names):
            yield names


# -- Files ----------------------------------------------------------------------------


def load_features(name: str) -> FeatureArray:
    """Features of a file, by their name: ``features:FILE``, or ``features:FILE:IDS``.

    Every array of numbers with two axes or more is a layer, called as the file calls
    it; arrays of text or whole numbers with one axis may name the stimuli. IDS is a csv
    file with a line for each row of the features.

    Raises
    ------
    ConfigError
        If it is no file that can hold features.
    DataError
        If it does not hold any, or the table does not fit.
    """
    stated = name.removeprefix(FEATURES)
    file, _, table = (
        (stated, "", "") if Path(stated).is_file() else stated.rpartition(":")
    )
    path = Path(file or stated)
    if path.suffix.lower() not in FEATURE_FILES:
        raise ConfigError(
            f"{path} is no file of features; expected one of {', '.join(FEATURE_FILES)}"
        )
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    with reading_archive(path, f"{path.suffix} file"):
        arrays = _READERS[path.suffix.lower()](path)
    layers = {k: v for k, v in arrays.items() if v.ndim > 1 and v.dtype.kind in "fiu"}
    if not layers:
        shapes = [f"{k} {v.dtype} {v.shape}" for k, v in arrays.items()]
        raise DataError(
            f"{path} holds no features (n_stimuli, n_features); found "
            f"{named_some(shapes) if shapes else 'no array'}"
        )
    n_rows = len(next(iter(layers.values())))
    columns: dict[str, Sequence[str]] = {
        k: [x.decode() if isinstance(x, bytes) else str(x) for x in v.tolist()]
        for k, v in arrays.items()
        if v.shape == (n_rows,) and _may_name(k, v)
    }
    if table:
        columns = _stimuli(Path(table), n_rows)
    return FeatureArray(path.name, layers, columns=columns)


def _may_name(name: str, values: NDArray[Any]) -> bool:
    """Whether an array names the stimuli: it is called so, or text without repeats."""
    if name.lower().endswith(("id", "ids", "stimuli", "stimulus")):
        return values.dtype.kind in "OSUiu"
    return values.dtype.kind in "OSU" and len({*values.tolist()}) == len(values)


def _stimuli(path: Path, n_rows: int) -> dict[str, Sequence[str]]:
    """Columns of a table with a line a row, and perhaps a header."""
    try:
        with check_regular(path).open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {path} as a csv table: {error}") from error
    if len(lines) not in (n_rows, n_rows + 1) or len({len(x) for x in lines}) != 1:
        raise DataError(
            f"{path} has {len(lines)} lines; expected one for each of {n_rows} rows of "
            "the features, or a header, too, and as many values in each"
        )
    numbered = [f"column {i + 1}" for i in range(len(lines[0]))]
    header = lines.pop(0) if len(lines) > n_rows else numbered
    cells = ([cell.strip() for cell in column] for column in zip(*lines, strict=True))
    return dict(zip(header, cells, strict=True))


def _read_npy(path: Path) -> dict[str, NDArray[Any]]:
    return {LAYER: np.load(check_regular(path), mmap_mode="r", allow_pickle=False)}


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(check_regular(path), allow_pickle=False) as file:
        return dict(file)


def _read_hdf5(path: Path) -> dict[str, NDArray[Any]]:
    import h5py

    found: dict[str, NDArray[Any]] = {}

    def take(name: str, part: Any) -> None:
        if isinstance(part, h5py.Dataset) and part.ndim:
            found[name] = part[()]

    with h5py.File(path, "r") as file:
        file.visititems(take)
    return found


def _read_netcdf(path: Path) -> dict[str, NDArray[Any]]:
    """Variables; columns of an assembly of several layers are parted by layer."""
    with import_xarray().open_dataset(path) as dataset:
        found = {str(k): np.asarray(v.values) for k, v in dataset.variables.items()}
    of_columns = found.get("layer")
    tables = {k: v for k, v in found.items() if v.ndim == 2 and v.dtype.kind in "fiu"}
    if len(tables) != 1 or of_columns is None or of_columns.ndim != 1:
        return found
    ((name, values),) = tables.items()
    if len(of_columns) != values.shape[1]:
        return found
    del found[name]
    parts = {str(k): values[:, of_columns == k] for k in dict.fromkeys(of_columns)}
    return found | parts


def _read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path} is damaged or no safetensors file: {error}") from error
    return {
        k: (v.float() if v.is_floating_point() else v).numpy()
        for k, v in tensors.items()
    }


_READERS = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".nc": _read_netcdf,
    ".safetensors": _read_safetensors,
}
