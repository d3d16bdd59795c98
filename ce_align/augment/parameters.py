"""The augmentation ledger: what was done to every view, sampled before any pixel."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.augment.families import Family, ViewRanges, find_family
from ce_align.checks import check_finite
from ce_align.digests import combine_digests, digest_array
from ce_align.errors import AccessError, ConfigError, DataError
from ce_align.files import DAMAGE, atomic_path, check_regular, reason

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "JITTER_ORDERS",
    "PARAMETER_NAMES",
    "AugmentationLedger",
    "nested",
    "outer",
    "outside_ranges",
    "sample",
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

#: Relative crops come from products: they may end a rounding error beyond the image.
ROUNDING = 1e-9
#: Sides of 50 pixels or more are rounded by 1 % or less.
AREA_TOLERANCE = 0.02
#: Crops that are tried before a centred one is taken, and their log-uniform aspect.
CROP_TRIES = 10
ASPECT_RANGE = (3 / 4, 4 / 3)
#: Uniform numbers that decide one row.
DRAWS = 2 * CROP_TRIES + 13
#: Rounds of rejection before a family's ranges count as empty.
MOST_ROUNDS = 1000


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
        top = (self.crop_top >= 0) & (self.crop_top + height <= 1 + ROUNDING)
        left = (self.crop_left >= 0) & (self.crop_left + width <= 1 + ROUNDING)
        for name, rule, good in [
            ("crop_height", share, (height > 0) & (height <= 1)),
            ("crop_width", share, (width > 0) & (width <= 1)),
            ("crop_top", "inside the image", top),
            ("crop_left", "inside the image", left),
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

    @classmethod
    def identity(cls, n: int) -> AugmentationLedger:
        """`n` rows that change nothing: the whole frame, squeezed to the view."""
        ones = ("crop_height", "crop_width", "brightness", "contrast", "saturation")
        values = dict.fromkeys(COLUMNS, 0) | dict.fromkeys(ones, 1)
        columns = values | {"family": "identity", "view": ""}
        return cls(**{k: np.full(n, v, COLUMNS[k]) for k, v in columns.items()})

    @classmethod
    def concat(cls, ledgers: Sequence[AugmentationLedger]) -> AugmentationLedger:
        """The rows of several ledgers, one after the other."""
        if not ledgers:
            raise DataError("no ledgers to join; give at least one")
        return cls(
            **{n: np.concatenate([getattr(x, n) for x in ledgers]) for n in COLUMNS}
        )

    def to_frame(self) -> pd.DataFrame:
        """Table with one row a view and the columns of `COLUMNS`."""
        import pandas as pd

        return pd.DataFrame({name: getattr(self, name) for name in COLUMNS})

    def save(self, path: Path | str) -> Path:
        """Write the ledger as a numpy archive, whole or not at all."""
        path = Path(path)
        columns = {name: getattr(self, name) for name in COLUMNS}
        content = io.BytesIO()  # on a full disk, numpy leaves an archive half open
        np.savez_compressed(content, digest=np.array(self.digest), **columns)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content.getbuffer())
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
            with np.load(check_regular(path), allow_pickle=False) as archive:
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


def outside_ranges(ledger: AugmentationLedger, ranges: ViewRanges) -> NDArray[np.bool_]:
    """Which of n rows, (n,), have at least one applied parameter outside `ranges`.

    A parameter is outside if the crop covers a smaller or larger share of the image, a
    colour factor or the hue changes more, or the blur is wider or narrower than
    `ranges` allow. Probabilities play no part: a transform that was not applied is
    inside, and a flip, grayscale or solarisation has no magnitude to compare. Nor does
    the whole pixel to which a crop was rounded: areas are compared to 2 %.
    """
    area = ledger.crop_height * ledger.crop_width
    low, high = ranges.crop_area or (1.0, 1.0)
    sigma = ledger.blur_sigma
    outside: NDArray[np.bool_] = (
        (area < low * (1 - AREA_TOLERANCE))
        | (area > high * (1 + AREA_TOLERANCE))
        | (np.abs(ledger.brightness - 1) > ranges.brightness)
        | (np.abs(ledger.contrast - 1) > ranges.contrast)
        | (np.abs(ledger.saturation - 1) > ranges.saturation)
        | (np.abs(ledger.hue) > ranges.hue)
        | (sigma > ranges.blur_sigma[1])
        | ((sigma > 0) & (sigma < ranges.blur_sigma[0]))
    )
    return outside


def sample(
    family: str | Family,
    n: int,
    rng: np.random.Generator | int,
    *,
    sizes: ArrayLike | None = None,
) -> AugmentationLedger:
    """Sample the parameters of `n` views.

    Every row is made from its own consecutive draws of `rng`, so the first rows of a
    longer sample are those of a shorter one with the same seed and sizes. Crops are
    those of torchvision's ``RandomResizedCrop``, which the authors use: area uniform,
    aspect ratio in pixels log-uniform in 3/4 to 4/3, whole pixels of the image, ten
    tries, then the largest centred crop.

    Parameters
    ----------
    family : name of one of `FAMILIES`, or a family of one's own
        With two views, rows alternate between view A and view B.
    n : at least 1
    rng : source of randomness, or its seed
    sizes : (2,) or (n, 2) int, optional
        Height and width in pixels of the image that each crop is for, or of all.
        Crops are recorded relative to it; another image gets the same relative place.
        None stands for a square of no particular size.

    Raises
    ------
    ConfigError
        If the family is unknown or cannot be sampled, `n` is below 1, or the sizes are
        no sizes, or differ where rows of the family are rejected.
    """
    if isinstance(family, str):
        family = find_family(family)
    if n < 1:
        raise ConfigError(f"n is {n}; sample at least one view")
    shapes = _checked_sizes(sizes, n)
    rng = np.random.default_rng(rng)
    n_views = len(family.views)
    padded = n + -n % n_views
    if not family.outside:
        draws = rng.random((padded, DRAWS))[:n]
        by_view = []
        for view, ranges in enumerate(family.views[:n]):
            own = slice(view, None, n_views)
            of_own = None if shapes is None else shapes[own]
            by_view.append(_rows(family.name, ranges, draws[own], of_own))
        return _alternating(by_view)
    if shapes is not None and len(np.unique(shapes, axis=0)) > 1:
        raise ConfigError(
            f"rows of family {family.name!r} are drawn until they fit, which needs one "
            "size for all; sample the views of each image by themselves"
        )
    one = None if shapes is None else shapes[:1]
    wanted = [len(range(view, n, n_views)) for view in range(n_views)]
    kept: list[list[AugmentationLedger]] = [[] for _ in family.views]
    for _ in range(MOST_ROUNDS):
        draws = rng.random((padded, DRAWS))
        for view, ranges in enumerate(family.views):
            rows = _rows(family.name, ranges, draws[view::n_views], one)
            kept[view].append(rows[outside_ranges(rows, family.outside[view])])
        if all(sum(map(len, k)) >= w for k, w in zip(kept, wanted, strict=True)):
            break
    else:
        raise ConfigError(
            f"family {family.name!r} leaves its excluded ranges too rarely to be "
            "sampled; widen its own ranges"
        )
    joined = zip(map(AugmentationLedger.concat, kept), wanted, strict=True)
    return _alternating([rows[:n_wanted] for rows, n_wanted in joined if n_wanted])


def outer(
    spatial: AugmentationLedger, photometric: AugmentationLedger
) -> AugmentationLedger:
    """Every crop with the *same* photometric draws.

    Row ``s * n_photometric + p`` of the ``n_spatial * n_photometric`` has crop and flip
    of spatial row s, and all else of photometric row p.
    """
    n, m = len(spatial), len(photometric)
    return _combine(
        spatial[np.repeat(np.arange(n), m)], photometric[list(range(m)) * n]
    )


def nested(
    spatial: AugmentationLedger, photometric: AugmentationLedger
) -> AugmentationLedger:
    """Every crop with photometric draws of its *own*.

    `photometric` has k rows for every spatial row; row ``s * k + p`` of the result has
    crop and flip of spatial row s and all else of photometric row ``s * k + p``.
    ConfigError if the photometric rows cannot be shared out evenly.
    """
    each, rest = divmod(len(photometric), len(spatial)) if len(spatial) else (0, 1)
    if rest:
        raise ConfigError(
            f"{len(photometric)} photometric rows cannot be shared out among "
            f"{len(spatial)} spatial rows; sample a multiple"
        )
    return _combine(spatial[np.repeat(np.arange(len(spatial)), each)], photometric)


def _checked_sizes(sizes: ArrayLike | None, n: int) -> NDArray[np.int64] | None:
    """Height and width of the image of every row, (n, 2)."""
    if sizes is None:
        return None
    found = np.asarray(sizes)
    if (
        found.shape not in ((2,), (n, 2))
        or found.dtype.kind not in "iu"
        or (found < 1).any()
    ):
        raise ConfigError(
            f"sizes must be height and width in pixels, (2,) or ({n}, 2), found "
            f"{found.dtype} of shape {found.shape}; give those of the images"
        )
    return np.broadcast_to(found.astype(np.int64), (n, 2))


def _alternating(by_view: list[AugmentationLedger]) -> AugmentationLedger:
    """Row r of view v goes to r * n_views + v."""
    if len(by_view) == 1:
        return by_view[0]
    n_views, n = len(by_view), sum(map(len, by_view))
    places = np.concatenate([np.arange(v, n, n_views) for v in range(n_views)])
    return AugmentationLedger.concat(by_view)[np.argsort(places)]


def _combine(
    spatial: AugmentationLedger, photometric: AugmentationLedger
) -> AugmentationLedger:
    """Row by row: crop and flip of the one, all else of the other."""
    crops = {name: getattr(spatial, name) for name in SPATIAL_COLUMNS}
    pairs = zip(spatial.family, photometric.family, strict=True)
    families = np.array([f"{s} x {p}" for s, p in pairs], COLUMNS["family"])
    return replace(photometric, family=families, **crops)


def _rows(
    name: str,
    ranges: ViewRanges,
    draws: NDArray[np.float64],
    shapes: NDArray[np.int64] | None,
) -> AugmentationLedger:
    """Rows of one view from (n, DRAWS) uniform numbers, for images of (n, 2) pixels."""
    n = len(draws)
    flip, jitter, brightness, contrast, saturation, hue, order = draws.T[22:29]
    grayscale, blur, sigma, solarize = draws.T[29:]
    jittered = jitter < ranges.jitter
    top, left, height, width = (
        _crops(draws[:, : 2 * CROP_TRIES + 2], ranges.crop_area, shapes)
        if ranges.crop_area
        else (np.zeros(n), np.zeros(n), np.ones(n), np.ones(n))
    )

    def factor(draw: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
        low = max(0.0, 1 - reach)
        return np.where(jittered, low + draw * (1 + reach - low), 1.0)

    low, high = ranges.blur_sigma
    return AugmentationLedger(
        family=np.full(n, name),
        view=np.full(n, ranges.view),
        crop_top=top,
        crop_left=left,
        crop_height=height,
        crop_width=width,
        flip=flip < ranges.flip,
        brightness=factor(brightness, ranges.brightness),
        contrast=factor(contrast, ranges.contrast),
        saturation=factor(saturation, ranges.saturation),
        hue=np.where(jittered, ranges.hue * (2 * hue - 1), 0.0),
        jitter_order=(order * len(JITTER_ORDERS)).astype(np.uint8),
        grayscale=grayscale < ranges.grayscale,
        blur_sigma=np.where(blur < ranges.blur, low + sigma * (high - low), 0.0),
        solarize=solarize < ranges.solarize,
    )


def _crops(
    draws: NDArray[np.float64],
    area: tuple[float, float],
    shapes: NDArray[np.int64] | None,
) -> tuple[NDArray[np.float64], ...]:
    """Top, left, height and width, relative, from (n, 2 * CROP_TRIES + 2) draws."""
    areas = area[0] + draws[:, :CROP_TRIES] * (area[1] - area[0])
    low, high = np.log(ASPECT_RANGE)
    ratios = np.exp(low + draws[:, CROP_TRIES:-2] * (high - low))
    whole = shapes is not None
    frame = np.ones((len(draws), 2)) if shapes is None else shapes.astype(np.float64)
    frame_height, frame_width = np.hsplit(frame, 2)
    heights = np.sqrt(areas * frame_height * frame_width / ratios)
    widths = np.sqrt(areas * frame_height * frame_width * ratios)
    narrow, wide = ASPECT_RANGE
    tallest = np.minimum(frame_height, frame_width / narrow)
    widest = np.minimum(frame_width, frame_height * wide)
    if whole:
        heights, widths, tallest, widest = map(
            np.rint, (heights, widths, tallest, widest)
        )
    fits = (heights <= frame_height) & (widths <= frame_width)
    fits &= (heights > 0) & (widths > 0)
    found, first = fits.any(axis=1), fits.argmax(axis=1)[:, None]
    sides = []
    for lengths, fallback, side, draw in [
        (heights, tallest, frame_height, draws[:, -2]),
        (widths, widest, frame_width, draws[:, -1]),
    ]:
        fitting = np.take_along_axis(lengths, first, axis=1)[:, 0]
        length = np.where(found, fitting, fallback[:, 0])
        room = side[:, 0] - length
        if whole:  # every pixel is equally likely
            start = np.where(found, np.floor(draw * (room + 1)), room // 2)
        else:
            start = np.where(found, draw * room, room / 2)
        sides.append((start / side[:, 0], length / side[:, 0]))
    (top, height), (left, width) = sides
    return top, left, height, width
