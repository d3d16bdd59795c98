"""Figures beyond the paper: layers, depth, time, overlap, all against λ, trainings.

From scores of several layers (``ce-align score --layer all``) and time bins (``--time
all``), from the rows of ``analyses/``, and from the logs of trainings that rows name.
"""

from ce_align.report.paper.files import FigureConfig

NAMES = (
    *("depth", "geometry", "lambda", "layers", "networks", "overlap", "time"),
    "training",
)
RECIPE = [FigureConfig(figure=name) for name in NAMES]
