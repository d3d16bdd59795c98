"""Sampling the parameters of views, alone and in combinations."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.augment.families import Family, ViewRanges, find_family, outside_ranges
from ce_align.augment.parameters import (
    COLUMNS,
    JITTER_ORDERS,
    SPATIAL_COLUMNS,
    AugmentationLedger,
)
from ce_align.errors import ConfigError

__all__ = ["nested", "outer", "sample"]

#: Crops that are tried before a centred one is taken, and their log-uniform aspect.
CROP_TRIES = 10
ASPECT_RANGE = (3 / 4, 4 / 3)
#: Uniform numbers that decide one row.
DRAWS = 2 * CROP_TRIES + 13
#: Rounds of rejection before a family's ranges count as empty.
MOST_ROUNDS = 1000


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
    family : str or Family
        A name of `FAMILIES`, or a family of one's own.
    n : int
        Number of views.
    rng : numpy.random.Generator or int
        Source of randomness, or its seed.
    sizes : (2,) or (n, 2) int, optional
        Height and width in pixels of the image that each crop is for, or of all.
        Crops are recorded relative to it; another image gets the same relative place.
        None stands for a square of no particular size.

    Returns
    -------
    AugmentationLedger
        With two views, rows alternate between view A and view B.

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
        return _joined(by_view)
    if shapes is not None and len(np.unique(shapes, axis=0)) > 1:
        raise ConfigError(
            f"rows of family {family.name!r} are drawn until they fit, which needs one "
            "size for all; sample the views of each image by themselves"
        )
    wanted = [len(range(view, n, n_views)) for view in range(n_views)]
    one = None if shapes is None else shapes[:1]
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
    return _joined(
        [
            AugmentationLedger.concat(k)[:w]
            for k, w in zip(kept, wanted, strict=True)
            if w
        ]
    )


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


def _joined(by_view: list[AugmentationLedger]) -> AugmentationLedger:
    """Rows that alternate between the views."""
    if len(by_view) == 1:
        return by_view[0]
    # Row r of view v goes to r * n_views + v.
    n_views, n = len(by_view), sum(map(len, by_view))
    places = np.concatenate([np.arange(v, n, n_views) for v in range(n_views)])
    return AugmentationLedger.concat(by_view)[np.argsort(places)]


def outer(
    spatial: AugmentationLedger, photometric: AugmentationLedger
) -> AugmentationLedger:
    """Every crop with the *same* photometric draws.

    Returns
    -------
    AugmentationLedger
        (n_spatial * n_photometric,) rows: row ``s * n_photometric + p`` has crop and
        flip of spatial row s, and all else of photometric row p.
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

    Raises
    ------
    ConfigError
        If the photometric rows cannot be shared out evenly.
    """
    each, rest = divmod(len(photometric), len(spatial)) if len(spatial) else (0, 1)
    if rest:
        raise ConfigError(
            f"{len(photometric)} photometric rows cannot be shared out among "
            f"{len(spatial)} spatial rows; sample a multiple"
        )
    return _combine(spatial[np.repeat(np.arange(len(spatial)), each)], photometric)


def _rows(
    name: str,
    ranges: ViewRanges,
    draws: NDArray[np.float64],
    shapes: NDArray[np.int64] | None,
) -> AugmentationLedger:
    """Rows of one view from (n, DRAWS) uniform numbers, for images of (n, 2) pixels."""
    n = len(draws)
    crop = draws[:, : 2 * CROP_TRIES + 2]
    (flip, jitter, brightness, contrast, saturation, hue, order) = draws.T[22:29]
    grayscale, blur, sigma, solarize = draws.T[29:]
    jittered = jitter < ranges.jitter
    top, left, height, width = (
        _crops(crop, ranges.crop_area, shapes)
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
        length = np.where(
            found, np.take_along_axis(lengths, first, axis=1)[:, 0], fallback[:, 0]
        )
        start = _start(draw, side[:, 0] - length, found, whole)
        sides.append((start / side[:, 0], length / side[:, 0]))
    (top, height), (left, width) = sides
    return top, left, height, width


def _start(
    draw: NDArray[np.float64],
    room: NDArray[np.float64],
    found: NDArray[np.bool_],
    whole: bool,
) -> NDArray[np.float64]:
    """Where a crop starts that leaves so much room: anywhere, or in the centre."""
    if whole:  # every pixel is equally likely
        return np.where(found, np.floor(draw * (room + 1)), room // 2)
    return np.where(found, draw * room, room / 2)


def _combine(
    spatial: AugmentationLedger, photometric: AugmentationLedger
) -> AugmentationLedger:
    """Row by row: crop and flip of the one, all else of the other."""
    columns = {
        name: getattr(spatial if name in SPATIAL_COLUMNS else photometric, name)
        for name in COLUMNS
    }
    pairs = zip(spatial.family, photometric.family, strict=True)
    columns["family"] = np.array([f"{s} x {p}" for s, p in pairs], COLUMNS["family"])
    return AugmentationLedger(**columns)
