"""Families of augmentations that only training uses."""

from dataclasses import replace

from ce_align.augment.families import FAMILIES, Family

__all__ = ["TINY_FAMILIES"]

#: Views A and B for images of about 32 pixels, where a smaller crop or a wider blur
#: would leave nothing to see.
TINY_FAMILIES = ("tiny_a", "tiny_b")

for _name, _strong in zip(TINY_FAMILIES, ("strong_a", "strong_b"), strict=True):
    (_ranges,) = FAMILIES[_strong].views
    FAMILIES[_name] = Family(
        _name, (replace(_ranges, crop_area=(0.15, 1.0), blur_sigma=(0.1, 1.0)),)
    )
