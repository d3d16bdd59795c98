"""Figure 1: the idea of contrastive-equivariant training, drawn by code."""

from ce_align.report.paper.files import FigureConfig

RECIPE = [FigureConfig(figure="1")]
