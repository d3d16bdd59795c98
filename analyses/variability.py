"""Bures distances of the 21 networks: Figures 2A–D and 6, Tables 1 and 5.

800 comparisons of 50 views each, on the images that ``$CE_ALIGN_IMAGENET`` names
(ImageNet's validation images in the paper), else on procedural scenes. Differences are
taken from the network of the same objective at λ = 0, on identical views.
"""

from ce_align.data.scenes import default_images
from ce_align.models.catalogue import GROUPS, PUBLISHED, invariant_sibling
from ce_align.stages.measures import AnalysisConfig

RECIPE = [
    AnalysisConfig(
        metric=metric,
        model=name,
        layer=PUBLISHED[name].layers["IT"],
        baseline=invariant_sibling(name) if metric == "bures" else None,
        images=default_images(),
    )
    for metric in ("bures", "factorization", "dimensionality")
    for name in GROUPS["paper"]
]
