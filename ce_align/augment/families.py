"""Families of augmentations: named ranges and probabilities."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ce_align.augment.parameters import AugmentationLedger
from ce_align.checks import nearest_names
from ce_align.errors import ConfigError

__all__ = [
    "FAMILIES",
    "Family",
    "ViewRanges",
    "find_family",
    "outside_ranges",
]


#: Sides of 50 pixels or more are rounded by 1 % or less.
AREA_TOLERANCE = 0.02


@dataclass(frozen=True)
class ViewRanges:
    """Ranges and probabilities of one view.

    Parameters
    ----------
    view : str
        Name of the view, written in every row.
    crop_area : (low, high) or None
        Share of the image that a crop covers; None keeps the whole frame.
    flip : float
        Probability of mirroring.
    jitter : float
        Probability of changing the four colours, in random order.
    brightness, contrast, saturation, hue : float
        Largest change: factors lie in [1 - b, 1 + b], hue in [-h, h].
    grayscale, blur, solarize : float
        Probabilities.
    blur_sigma : (low, high)
        Pixels of the finished view.
    """

    view: str = ""
    crop_area: tuple[float, float] | None = None
    flip: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0


@dataclass(frozen=True)
class Family:
    """A named distribution of augmentations.

    Parameters
    ----------
    name : str
    views : tuple of ViewRanges
        Row i of a sample follows entry i modulo their number.
    outside : tuple of ViewRanges
        Empty, or one entry a view: a row is kept only if at least one applied
        parameter lies outside these ranges, see `outside_ranges`.
    """

    name: str
    views: tuple[ViewRanges, ...]
    outside: tuple[ViewRanges, ...] = ()


_STRONG_A = ViewRanges(
    view="A",
    crop_area=(0.08, 1.0),
    flip=0.5,
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    grayscale=0.2,
    blur=1.0,
)
_STRONG_B = replace(_STRONG_A, view="B", blur=0.2, solarize=0.2)
_WEAK_A, _WEAK_B = (
    replace(
        strong,
        crop_area=(0.16, 1.0),
        brightness=0.2,
        contrast=0.2,
        saturation=0.1,
        hue=0.05,
        blur_sigma=(0.1, 1.0),
    )
    for strong in (_STRONG_A, _STRONG_B)
)
# For images of about 32 pixels, where a smaller crop or a wider blur would leave
# nothing to see.
_TINY_A, _TINY_B = (
    replace(strong, crop_area=(0.15, 1.0), blur_sigma=(0.1, 1.0))
    for strong in (_STRONG_A, _STRONG_B)
)
# The analyses of the authors blur their second view with the probability of Barlow
# Twins, their training with twice that: families of two views are for analyses.
_READ_B, _READ_WEAK_B, _READ_TINY_B = (
    replace(view, blur=0.1) for view in (_STRONG_B, _WEAK_B, _TINY_B)
)
_SPATIAL = ViewRanges(crop_area=(0.08, 1.0), flip=0.5)
_PHOTOMETRIC = replace(
    _STRONG_A, view="", crop_area=None, flip=0.0, blur=0.1, solarize=0.2
)

#: The families by name: of one view for training, of two views, A and B in turn, for
#: analyses, where view B is blurred with probability .1 in place of .2.
FAMILIES = {
    family.name: family
    for family in [
        Family("strong_a", (_STRONG_A,)),
        Family("strong_b", (_STRONG_B,)),
        Family("strong", (_STRONG_A, _READ_B)),
        Family("weak_a", (_WEAK_A,)),
        Family("weak_b", (_WEAK_B,)),
        Family("weak", (_WEAK_A, _READ_WEAK_B)),
        Family("tiny_a", (_TINY_A,)),
        Family("tiny_b", (_TINY_B,)),
        Family("tiny", (_TINY_A, _READ_TINY_B)),
        Family("strong-only", (_STRONG_A, _READ_B), outside=(_WEAK_A, _READ_WEAK_B)),
        Family("spatial", (_SPATIAL,)),
        Family("photometric", (_PHOTOMETRIC,)),
    ]
}


def find_family(name: str) -> Family:
    """The family of that name.

    Raises
    ------
    ConfigError
        If there is none, naming the nearest and all others.
    """
    if name not in FAMILIES:
        nearest = nearest_names(name, FAMILIES)
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ";"
        raise ConfigError(
            f"unknown family {name!r}{hint} choose from {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def outside_ranges(ledger: AugmentationLedger, ranges: ViewRanges) -> NDArray[np.bool_]:
    """Which rows have at least one applied parameter outside `ranges`.

    A parameter is outside if the crop covers a smaller or larger share of the image, a
    colour factor or the hue changes more, or the blur is wider or narrower than
    `ranges` allow. Probabilities play no part: a transform that was not applied is
    inside, and a flip, grayscale or solarisation has no magnitude to compare. Nor does
    the whole pixel to which a crop was rounded: areas are compared to 2 %.

    Returns
    -------
    (n,) bool
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
