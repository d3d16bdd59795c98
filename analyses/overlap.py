"""Variance that two networks explain alone and together: the overlap matrix.

Each objective at λ = 0 and λ = 0.3, all pairs, on one recording.
"""

from itertools import combinations

from ce_align.models.catalogue import PUBLISHED
from ce_align.stages.overlap import OverlapConfig

NETWORKS = [
    f"ce_{objective}_l{weight}"
    for objective in ("mmcr", "barlow", "simclr")
    for weight in ("0", "0.3")
]

RECIPE = [
    OverlapConfig(
        model_a=first,
        model_b=second,
        recording="majajhong2015",
        layer_a=PUBLISHED[first].layers["IT"],
        layer_b=PUBLISHED[second].layers["IT"],
    )
    for first, second in combinations(NETWORKS, 2)
]
