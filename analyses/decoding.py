"""Decoding of augmentation parameters from the 21 networks: Figures 2E and 7, Table 1.

Twelve parameters of every view, regressed on the responses to the image and to its
view; strong views, and weak views for the comparison of both.
"""

from ce_align.data.scenes import default_images
from ce_align.models.catalogue import GROUPS, PUBLISHED
from ce_align.stages.measures import AnalysisConfig

RECIPE = [
    AnalysisConfig(
        metric="decoding",
        model=name,
        layer=PUBLISHED[name].layers["IT"],
        images=default_images(),
        family=family,
    )
    for family in ("strong", "weak")
    for name in GROUPS["paper"]
]
