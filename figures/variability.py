"""Figures 2, 6 and 7, Table 5: how networks organise the variability of views.

From the rows of ``analyses/variability.py`` and ``analyses/decoding.py``.
"""

from ce_align.report.paper.files import FigureConfig, TableConfig

RECIPE = [
    FigureConfig(figure="2"),
    FigureConfig(figure="6"),
    FigureConfig(figure="7"),
    TableConfig(table="5"),
]
