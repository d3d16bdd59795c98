"""The augmentation ledger: what was done to every view, sampled before any pixel."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import check_finite
from ce_align.digests import combine_digests, digest_array
from ce_align.errors import AccessError, DataError
from ce_align.files import DAMAGE, atomic_path, reason

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLUMNS",
    "JITTER_ORDERS",
    "PARAMETER_NAMES",
    "SPATIAL_COLUMNS",
    "AugmentationLedger",
]

#: Columns of a ledger and how their values are stored.
COLUMNS = {
    "family": np.dtype("<U32"),
    "view": np.dtype("<U8"),
    "crop_top": np.dtype("<f8"),
    "crop_left": np.dtype("<f8"),
    "crop_height": np.dtype("<f8"),
    "crop_width": np.dtype("<f8"),
    "flip": np.dtype("?"),
    "brightness": np.dtype("<f8"),
    "contrast": np.dtype("<f8"),
    "saturation": np.dtype("<f8"),
    "hue": np.dtype("<f8"),
    "jitter_order": np.dtype("|u1"),
    "grayscale": np.dtype("?"),
    "blur_sigma": np.dtype("<f8"),
    "solarize": np.dtype("?"),
}
#: The columns that say where to look; the others say how it is shown.
SPATIAL_COLUMNS = ("crop_top", "crop_left", "crop_height", "crop_width", "flip")
#: The columns that are decoded from features, in the order of `parameters`.
PARAMETER_NAMES = (
    *SPATIAL_COLUMNS,
    *("brightness", "contrast", "saturation", "hue"),
    *("grayscale", "blur_sigma", "solarize"),
)
#: Row `jitter_order` of this table lists the operations in the order of application:
#: 0 brightness, 1 contrast, 2 saturation, 3 hue.
JITTER_ORDERS = np.array(list(itertools.permutations(range(4))))
JITTER_ORDERS.flags.writeable = False

# Relative crops come from products: they may end a rounding error beyond the image.
ROUNDING = 1e-9


def _as_column(values: Any, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read-only copy of `values` as one column, if that loses nothing."""
    found = np.asarray(values)
    if found.ndim != 1:
        raise DataError(
            f"column {name} has shape {found.shape}; give one value a view, (n,)"
        )
    try:
        column = found.astype(dtype)
    except (TypeError, ValueError) as error:
        raise DataError(f"column {name} must hold {dtype.name}: {error}") from error
    if dtype.kind == "f":
        check_finite(column, f"column {name}")
    if not np.array_equal(column, found):
        raise DataError(
            f"column {name} holds {found.dtype} values that {dtype.name} cannot "
            "represent; convert them first"
        )
    column.flags.writeable = False
    return column


def _fits(start: NDArray[np.float64], length: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether crops that start there end inside the image."""
    inside: NDArray[np.bool_] = (start >= 0) & (start + length <= 1 + ROUNDING)
    return inside


@dataclass(frozen=True, eq=False)
class AugmentationLedger:
    """The augmentation parameters of n views, one row a view.

    Immutable: the columns are read-only arrays of length n. Two ledgers are equal if
    all their values are.

    Parameters
    ----------
    family, view : (n,) str
        Where the row was sampled from.
    crop_top, crop_left, crop_height, crop_width : (n,) float
        The crop as shares of the image's height (top, height) and width, so that a
        row applied to another image takes the same relative place.
    flip, grayscale, solarize : (n,) bool
        Mirrored left to right; turned grey; inverted from half brightness on.
    brightness, contrast, saturation : (n,) float
        Factors; 1 where not applied.
    hue : (n,) float
        Share of the colour circle, -0.5 to 0.5; 0 where not applied.
    jitter_order : (n,) int
        Row of `JITTER_ORDERS`: the order of the four colour operations.
    blur_sigma : (n,) float
        Pixels of the finished view; 0 where not applied.

    Raises
    ------
    DataError
        If the columns differ in length or a value is impossible.
    """

    family: NDArray[np.str_]
    view: NDArray[np.str_]
    crop_top: NDArray[np.float64]
    crop_left: NDArray[np.float64]
    crop_height: NDArray[np.float64]
    crop_width: NDArray[np.float64]
    flip: NDArray[np.bool_]
    brightness: NDArray[np.float64]
    contrast: NDArray[np.float64]
    saturation: NDArray[np.float64]
    hue: NDArray[np.float64]
    jitter_order: NDArray[np.uint8]
    grayscale: NDArray[np.bool_]
    blur_sigma: NDArray[np.float64]
    solarize: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for name, dtype in COLUMNS.items():
            column = _as_column(getattr(self, name), name, dtype)
            if len(column) != len(self.family):
                raise DataError(
                    f"column {name} has {len(column)} rows but family has "
                    f"{len(self.family)}; give every column one value a view"
                )
            object.__setattr__(self, name, column)
        self._check_ranges()

    def _check_ranges(self) -> None:
        """Raise DataError unless every row can be applied to an image."""
        share, positive = "between 0 (excluded) and 1", "0 or more"
        height, width = self.crop_height, self.crop_width
        for name, rule, good in [
            ("crop_height", share, (height > 0) & (height <= 1)),
            ("crop_width", share, (width > 0) & (width <= 1)),
            ("crop_top", "inside the image", _fits(self.crop_top, height)),
            ("crop_left", "inside the image", _fits(self.crop_left, width)),
            ("brightness", positive, self.brightness >= 0),
            ("contrast", positive, self.contrast >= 0),
            ("saturation", positive, self.saturation >= 0),
            ("hue", "between -0.5 and 0.5", np.abs(self.hue) <= 0.5),
            ("jitter_order", "below 24", self.jitter_order < len(JITTER_ORDERS)),
            ("blur_sigma", positive, self.blur_sigma >= 0),
        ]:
            if not good.all():
                row = int(np.argmin(good))
                raise DataError(
                    f"{name} must be {rule}, but row {row} has "
                    f"{getattr(self, name)[row]}; correct that row"
                )

    # -- rows ---------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.family)

    def __getitem__(
        self, index: int | slice | Sequence[int] | NDArray[Any]
    ) -> AugmentationLedger:
        """The chosen rows as a ledger; one number gives a ledger of one row."""
        if isinstance(index, int | np.integer):
            index = [range(len(self))[index]]
        return AugmentationLedger(**{n: getattr(self, n)[index] for n in COLUMNS})

    def __iter__(self) -> Iterator[AugmentationLedger]:
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AugmentationLedger):
            return NotImplemented
        return self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """Content digest: changes with any value and with the order of rows."""
        return combine_digests(*(digest_array(getattr(self, n)) for n in COLUMNS))

    def parameters(self) -> NDArray[np.float64]:
        """(n, 12) array of the `PARAMETER_NAMES`, flags as 0 and 1, for decoding."""
        return np.stack(
            [np.asarray(getattr(self, n), np.float64) for n in PARAMETER_NAMES], axis=1
        )

    # -- making ledgers -----------------------------------------------------------

    @classmethod
    def identity(cls, n: int) -> AugmentationLedger:
        """`n` rows that change nothing: the whole frame, squeezed to the view."""
        names = {"family": "identity", "view": ""}
        ones = dict.fromkeys(
            ("crop_height", "crop_width", "brightness", "contrast", "saturation"), 1
        )
        values = dict.fromkeys(COLUMNS, 0) | ones | names
        return cls(**{k: np.full(n, values[k], dtype) for k, dtype in COLUMNS.items()})

    @classmethod
    def concat(cls, ledgers: Sequence[AugmentationLedger]) -> AugmentationLedger:
        """The rows of several ledgers, one after the other."""
        if not ledgers:
            raise DataError("no ledgers to join; give at least one")
        return cls(
            **{n: np.concatenate([getattr(x, n) for x in ledgers]) for n in COLUMNS}
        )

    # -- tables and files -----------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """Table with one row a view and the columns of `COLUMNS`."""
        import pandas as pd

        return pd.DataFrame({name: getattr(self, name) for name in COLUMNS})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> AugmentationLedger:
        """The ledger of a table as `to_frame` gives it; other columns are ignored.

        Raises
        ------
        DataError
            If a column is missing or holds impossible values.
        """
        missing = [name for name in COLUMNS if name not in frame.columns]
        if missing:
            raise DataError(
                f"the table lacks the ledger's columns {missing}; it has "
                f"{list(frame.columns)}"
            )
        return cls(**{name: frame[name].to_numpy() for name in COLUMNS})

    def save(self, path: Path | str) -> Path:
        """Write the ledger as a numpy archive, whole or not at all."""
        path = Path(path)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            columns = {name: getattr(self, name) for name in COLUMNS}
            np.savez_compressed(file, digest=np.array(self.digest), **columns)
        return path

    @classmethod
    def load(cls, path: Path | str) -> AugmentationLedger:
        """Read what `save` wrote. Nothing in the file is executed.

        Raises
        ------
        AccessError
            If there is no such file.
        DataError
            If it is not a ledger, or its values are not those that were saved.
        """
        path = Path(path)
        if not path.is_file():
            raise AccessError(f"no ledger at {path}; save one there first")
        try:
            with np.load(path, allow_pickle=False) as archive:
                digest = str(archive["digest"])
                ledger = cls(**{name: archive[name] for name in COLUMNS})
        except DAMAGE as error:
            raise DataError(
                f"{path} is not an augmentation ledger ({reason(error)}); sample "
                "and save it again"
            ) from error
        if ledger.digest != digest:
            raise DataError(
                f"{path} says its digest is {digest}, but its values give "
                f"{ledger.digest}: it was altered; sample and save it again"
            )
        return ledger
