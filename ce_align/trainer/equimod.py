"""Equivariance by predicting one view's embedding from the other's."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ce_align.augment import PARAMETER_NAMES
from ce_align.trainer.distributed import Group, full_precision
from ce_align.trainer.reductions import standardised_columns

__all__ = ["EmbeddingPrediction"]


class EmbeddingPrediction(nn.Module):
    """How well an embedding, moved by the augmentations' parameters, finds the other.

    A predictor is shown the equivariant embedding of one view with the parameters of
    both, and `loss` compares what it predicts with the embedding of the other view, in
    either direction. It begins as the identity, where the loss is the invariant one.
    The authors predict from the image without augmentation, which is not rendered here.

    Parameters
    ----------
    width : of the embeddings
    loss : of two batches (n, d) and ``group``, an invariant objective

    References
    ----------
    Devillers and Lefort (2023), EquiMod: an equivariance module to improve
    self-supervised learning.
    """

    def __init__(self, width: int, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.loss = loss
        n = 2 * len(PARAMETER_NAMES)
        self.moved = nn.Sequential(
            nn.Linear(width + n, width), nn.ReLU(), nn.Linear(width, width)
        )
        for parameter in self.moved[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, embeddings: Tensor, parameters: Tensor, group: Group = None
    ) -> Tensor:
        """Loss of (4, n, d) embeddings, given (n, 2, n_parameters) of views A and B."""
        with full_precision(embeddings):
            a_1, b_1, a_2, b_2 = embeddings.float().unbind()
            a, b = torch.cat([a_1, a_2]), torch.cat([b_1, b_2])
            of_a, of_b = (
                standardised_columns(x.float(), 1e-5, group).repeat(2, 1)
                for x in parameters.unbind(1)
            )
            to_b = a + self.moved(torch.cat([a, of_a, of_b], 1))
            to_a = b + self.moved(torch.cat([b, of_b, of_a], 1))
            loss = self.loss(to_b, b, group=group) + self.loss(to_a, a, group=group)
            return loss / 2
