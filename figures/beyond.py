"""Beyond the paper: layers by areas, overlap of networks, training curves.

From scores of several layers (``ce-align score --layer all``), from the rows of
``analyses/overlap.py``, and from the logs of trainings that rows name.
"""

from ce_align.report.paper.files import FigureConfig

RECIPE = [
    FigureConfig(figure="layers"),
    FigureConfig(figure="overlap"),
    FigureConfig(figure="training"),
]
