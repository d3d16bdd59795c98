"""Table 1 and the forest plot: measures of representation against predictivity.

From the rows of ``analyses/correlation.py``.
"""

from ce_align.report.paper.files import FigureConfig, TableConfig

RECIPE = [TableConfig(table="1"), FigureConfig(figure="forest")]
