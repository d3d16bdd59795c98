"""Sampling the parameters of views, alone and in combinations."""

import numpy as np
from numpy.typing import NDArray

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
    aspect: float = 1.0,
) -> AugmentationLedger:
    """Sample the parameters of `n` views.

    Every row is made from its own consecutive draws of `rng`, so the first rows of a
    longer sample are those of a shorter one with the same seed. Crops follow the
    random resized crop of Inception training: area uniform, aspect ratio log-uniform
    in 3/4 to 4/3, ten tries, then the largest centred crop.

    Parameters
    ----------
    family : str or Family
        A name of `FAMILIES`, or a family of one's own.
    n : int
        Number of views.
    rng : numpy.random.Generator or int
        Source of randomness, or its seed.
    aspect : float
        Width over height of the image for which crops are sampled. Crops are recorded
        relative to the image, and the images of a pair share them, so one aspect
        stands for all; an image of another aspect gets the same relative place.

    Returns
    -------
    AugmentationLedger
        With two views, rows alternate between view A and view B.

    Raises
    ------
    ConfigError
        If the family is unknown or cannot be sampled, `n` is below 1, or `aspect` is
        not positive.
    """
    if isinstance(family, str):
        family = find_family(family)
    if n < 1:
        raise ConfigError(f"n is {n}; sample at least one view")
    if not 0 < aspect < np.inf:
        raise ConfigError(f"aspect is {aspect}; give width / height, such as 1.5")
    rng = np.random.default_rng(rng)
    n_views = len(family.views)
    if n_views == 1 and not family.outside:
        return _rows(family.name, family.views[0], rng.random((n, DRAWS)), aspect)
    wanted = [len(range(view, n, n_views)) for view in range(n_views)]
    kept: list[list[AugmentationLedger]] = [[] for _ in family.views]
    for _ in range(MOST_ROUNDS):
        draws = rng.random((n + -n % n_views, DRAWS))
        for view, ranges in enumerate(family.views):
            rows = _rows(family.name, ranges, draws[view::n_views], aspect)
            if family.outside:
                rows = rows[outside_ranges(rows, family.outside[view])]
            kept[view].append(rows)
        if all(sum(map(len, k)) >= w for k, w in zip(kept, wanted, strict=True)):
            break
    else:
        raise ConfigError(
            f"family {family.name!r} leaves its excluded ranges too rarely to be "
            "sampled; widen its own ranges"
        )
    ledger = AugmentationLedger.concat(
        [AugmentationLedger.concat(k)[:w] for k, w in zip(kept, wanted, strict=True)]
    )
    # Row r of view v lies at sum(wanted[:v]) + r and goes to r * n_views + v.
    places = np.concatenate([np.arange(v, n, n_views) for v in range(n_views)])
    return ledger[np.argsort(places)]


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
    name: str, ranges: ViewRanges, draws: NDArray[np.float64], aspect: float
) -> AugmentationLedger:
    """Rows of one view from (n, DRAWS) uniform numbers."""
    n = len(draws)
    crop = draws[:, : 2 * CROP_TRIES + 2]
    (flip, jitter, brightness, contrast, saturation, hue, order) = draws.T[22:29]
    grayscale, blur, sigma, solarize = draws.T[29:]
    jittered = jitter < ranges.jitter
    top, left, height, width = (
        _crops(crop, ranges.crop_area, aspect)
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
    draws: NDArray[np.float64], area: tuple[float, float], aspect: float
) -> tuple[NDArray[np.float64], ...]:
    """Top, left, height and width, relative, from (n, 2 * CROP_TRIES + 2) draws."""
    areas = area[0] + draws[:, :CROP_TRIES] * (area[1] - area[0])
    low, high = np.log(ASPECT_RANGE)
    ratios = np.exp(low + draws[:, CROP_TRIES:-2] * (high - low))
    # In units of the image's own height and width: a crop of aspect r covers a share
    # of the height larger by the image's aspect over r.
    heights = np.sqrt(areas * aspect / ratios)
    widths = np.sqrt(areas * ratios / aspect)
    fits = (heights <= 1) & (widths <= 1)
    first = (np.arange(len(draws)), np.argmax(fits, axis=1))
    nearest = np.clip(aspect, *ASPECT_RANGE)
    found = fits.any(axis=1)
    height = np.where(found, heights[first], min(1.0, aspect / nearest))
    width = np.where(found, widths[first], min(1.0, nearest / aspect))
    top = np.where(found, draws[:, -2], 0.5) * (1 - height)
    left = np.where(found, draws[:, -1], 0.5) * (1 - width)
    return top, left, height, width


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
