"""Figure 5, Tables 2, 3 and 4: linear classifiers on frozen features.

From the metadata of trainings and the rows of ``analyses/transfer.py``.
"""

from ce_align.report.paper.files import FigureConfig, TableConfig

RECIPE = [
    FigureConfig(figure="5"),
    TableConfig(table="2"),
    TableConfig(table="3"),
    TableConfig(table="4"),
]
