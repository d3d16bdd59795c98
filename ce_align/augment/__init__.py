"""Augmentations whose parameters are sampled first, recorded and replayed.

`sample` draws an `AugmentationLedger` from a family, `apply` makes the views on the
CPU, `apply_batch` on the device of a tensor. Importing this package is cheap: pandas,
numba and torch are imported only by the functions that need them.
"""

from ce_align.augment.families import FAMILIES, Family, ViewRanges
from ce_align.augment.parameters import (
    JITTER_ORDERS,
    PARAMETER_NAMES,
    AugmentationLedger,
    nested,
    outer,
    outside_ranges,
    sample,
)
from ce_align.augment.transforms import TRANSFORMS_VERSION, apply, apply_batch

__all__ = [
    "FAMILIES",
    "JITTER_ORDERS",
    "PARAMETER_NAMES",
    "TRANSFORMS_VERSION",
    "AugmentationLedger",
    "Family",
    "ViewRanges",
    "apply",
    "apply_batch",
    "nested",
    "outer",
    "outside_ranges",
    "sample",
]
