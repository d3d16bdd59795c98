"""Equivariance by predicting how two views differ in their augmentations."""

import torch
from torch import Tensor, nn

from ce_align.augment import PARAMETER_NAMES
from ce_align.trainer.distributed import Group, full_precision, mean_over
from ce_align.trainer.reductions import standardised_columns

__all__ = ["ParameterPrediction"]


class ParameterPrediction(nn.Module):
    """Mean squared error of the augmentation parameters, read from two views.

    A linear layer is shown the equivariant embeddings of both views of an image, and
    predicts the differences of their parameters, each brought to variance 1 over the
    batch. 1 is as good as their mean; 0 is perfect. The authors classify flips and read
    crops and colours from the features with heads of their own; here the equivariant
    head stands before one layer for all parameters.

    Parameters
    ----------
    width : of the embeddings

    References
    ----------
    Lee et al. (2021), Improving transferability of representations via
    augmentation-aware self-supervision.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reader = nn.Linear(2 * width, len(PARAMETER_NAMES))

    def forward(
        self, embeddings: Tensor, parameters: Tensor, group: Group = None
    ) -> Tensor:
        """Loss of (4, n, d) embeddings, given (n, 2, n_parameters) of views A and B."""
        with full_precision(embeddings):
            a_1, b_1, a_2, b_2 = embeddings.float().unbind()
            difference = (parameters[:, 0] - parameters[:, 1]).float()
            wanted = standardised_columns(difference, 1e-5, group)
            errors = [
                (self.reader(views) - wanted).square().mean()
                for views in (torch.cat([a_1, b_1], 1), torch.cat([a_2, b_2], 1))
            ]
            return mean_over((errors[0] + errors[1]) / 2, group)
