"""Figure 1: the idea of contrastive-equivariant training, drawn by code."""

from ce_align.report.writing import FigureConfig

RECIPE = [FigureConfig(figure="1")]
