"""Predictivity of the 21 networks for the four IT recordings: Figures 3 and 4, Table 1.

Brain-Score's partial least squares, its ten splits and its ceiling. The recordings are
private to Brain-Score: what is not at hand is named, the rest is scored.
"""

from ce_align.models.catalogue import GROUPS, PUBLISHED
from ce_align.stages.scores import ScoreConfig

RECORDINGS = (
    *("majajhong2015", "sanghavi2020"),
    *("sanghavijozwik2020", "sanghavimurty2020"),
)

RECIPE = [
    ScoreConfig(model=name, recording=recording, layer=PUBLISHED[name].layers["IT"])
    for name in GROUPS["paper"]
    for recording in RECORDINGS
]
