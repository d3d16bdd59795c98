"""Families of augmentations: named ranges and probabilities."""

from dataclasses import dataclass, replace

from ce_align.checks import nearest_names
from ce_align.errors import ConfigError

__all__ = ["FAMILIES", "Family", "ViewRanges", "find_family"]


@dataclass(frozen=True)
class ViewRanges:
    """Ranges and probabilities of one view.

    Parameters
    ----------
    view : name, written in every row
    crop_area : lowest and highest share of the image that a crop covers; None keeps
        the whole frame
    flip : probability of mirroring
    jitter : probability of changing the four colours, in random order
    brightness, contrast, saturation, hue : largest change: factors lie in
        [1 - b, 1 + b], hue in [-h, h]
    grayscale, blur, solarize : probabilities
    blur_sigma : lowest and highest, in pixels of the finished view
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
    name : as commands name it
    views : row i of a sample follows entry i modulo their number
    outside : empty, or one entry a view: a row is kept only if at least one applied
        parameter lies outside these ranges, see `outside_ranges`
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
    """The family of that name; ConfigError names the nearest and all others."""
    if name not in FAMILIES:
        nearest = nearest_names(name, FAMILIES)
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ";"
        raise ConfigError(
            f"unknown family {name!r}{hint} choose from {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]
