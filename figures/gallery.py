"""Figures of the gallery, all of simulated data: what the demonstration can fill.

``ce-align demo``, then ``ce-align run figures/gallery.py --results demo/results --out
docs/gallery``. The same rows give the same figures, within 2.5 of 255 grey levels
whatever the versions of fonts; networks that another processor trains anew differ by
rounding that grows with every step, so that their numbers are alike, not equal.
"""

from ce_align.demonstration import FIGURES
from ce_align.report.paper.files import FigureConfig

RECIPE = [FigureConfig(figure=name) for name in FIGURES]
