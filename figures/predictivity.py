"""Figures 3, 4 and 8: predictivity of IT, alone and among other networks.

From the rows of ``benchmarks/it_predictivity.py`` and ``benchmarks/backbones.py``.
Figure 4 needs other networks' scores: a CSV with columns model and score that
``$CE_ALIGN_OTHER_SCORES`` names.
"""

import os

from ce_align.report.paper.files import FigureConfig

RECIPE = [
    FigureConfig(figure="3"),
    FigureConfig(figure="4", others=os.environ.get("CE_ALIGN_OTHER_SCORES")),
    FigureConfig(figure="8"),
]
