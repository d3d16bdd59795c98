"""What a network can do while it is trained: nearest neighbours, a probe."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ce_align.data.imagesets import ImageSet, validation_crop
from ce_align.errors import DataError

__all__ = [
    "Labelled",
    "evaluate",
    "knn_accuracy",
    "normalise_pixels",
    "top_accuracies",
]

#: ImageNet's mean and standard deviation of red, green and blue in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Neighbours that vote, and the temperature of their votes (Wu et al., 2018).
N_NEIGHBOURS, VOTE_TEMPERATURE = 20, 0.07
#: Images in one pass.
BATCH = 256


def normalise_pixels(pixels: Tensor) -> Tensor:
    """Input (n, 3, height, width) from uint8 (n, height, width, 3), channels last."""
    mean, std = (
        torch.tensor(values, device=pixels.device).view(1, 3, 1, 1)
        for values in (MEAN, STD)
    )
    return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


def top_accuracies(outputs: Tensor, labels: Tensor) -> tuple[float, float]:
    """Share of (n, n_classes) outputs whose largest, or five largest, name the label.

    With fewer than five classes the second counts as many as there are.
    """
    best = outputs.topk(min(5, outputs.shape[1]), dim=1).indices
    hits = best == labels[:, None]
    return float(hits[:, 0].double().mean()), float(hits.any(1).double().mean())


def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor | None = None,
    query_labels: Tensor | None = None,
    *,
    k: int = N_NEIGHBOURS,
) -> float:
    """Share of queries whose nearest neighbours by cosine vote for their class.

    Votes weigh exp(similarity / 0.07).

    Parameters
    ----------
    bank, bank_labels : (n, d) features and (n,) classes
    queries, query_labels : (m, d) and (m,); None leaves each row of the bank out once
    k : neighbours that vote, at most those that there are

    Raises
    ------
    DataError
        If the bank is too small.

    References
    ----------
    Wu et al. (2018), Unsupervised feature learning via non-parametric instance
    discrimination.
    """
    own = queries is None or query_labels is None
    if queries is None or query_labels is None:
        queries, query_labels = bank, bank_labels
    n_available = len(bank) - own
    if n_available < 1:
        raise DataError(f"a bank of {len(bank)} rows has no neighbours; give more")
    near = nn.functional.normalize(bank.float(), dim=1)
    n_classes = int(max(bank_labels.max(), query_labels.max())) + 1
    hits = 0
    for start in range(0, len(queries), BATCH):
        part = nn.functional.normalize(queries[start : start + BATCH].float(), dim=1)
        similarity = part @ near.mT
        if own:
            rows = torch.arange(len(part), device=part.device)
            similarity[rows, rows + start] = -torch.inf
        values, indices = similarity.topk(min(k, n_available), dim=1)
        weights = (values / VOTE_TEMPERATURE).exp()
        votes = torch.zeros(len(part), n_classes, device=part.device)
        votes.scatter_add_(1, bank_labels[indices], weights)
        hits += int((votes.argmax(1) == query_labels[start : start + BATCH]).sum())
    return hits / len(queries)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images with classes, seen as `validation_crop` shows them.

    Attributes
    ----------
    images : at least two
    labels : (n,) class of each
    """

    images: ImageSet
    labels: NDArray[np.int64]

    def evenly(self, n: int) -> "Labelled":
        """At most `n` of them, evenly spaced."""
        spaced = np.linspace(0, len(self.images) - 1, min(n, len(self.images)))
        rows = [int(i) for i in spaced]
        return Labelled(self.images.select(rows), self.labels[rows])

    def features(self, backbone: nn.Module, size: int, device: torch.device) -> Tensor:
        """(n, n_features) of the backbone in evaluation mode."""
        was_training = backbone.training
        backbone.eval()
        try:
            with torch.no_grad():
                parts = [
                    backbone(normalise_pixels(pixels.to(device)))
                    for pixels in self._batches(size)
                ]
        finally:
            backbone.train(was_training)
        return torch.cat(parts)

    def _batches(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self.images), BATCH):
            rows = range(start, min(start + BATCH, len(self.images)))
            pixels = [
                np.asarray(validation_crop(self.images.load(i), size)) for i in rows
            ]
            yield torch.from_numpy(np.stack(pixels))


def evaluate(
    backbone: nn.Module,
    probe: nn.Module | None,
    bank: Labelled,
    validation: Labelled | None,
    *,
    size: int,
    device: torch.device,
) -> dict[str, float]:
    """Accuracy of nearest neighbours, and of the probe on validation images.

    Parameters
    ----------
    backbone : (n, 3, size, size) to features
    probe : linear classifier of the features, if there is one
    bank : images among which neighbours are sought; without validation images each is
        left out once
    validation : images that training does not see
    size : of the images in pixels
    device : where the networks are

    Returns
    -------
    ``knn_top1`` and, with validation images and a probe, ``probe_top1`` and
    ``probe_top5``
    """
    features = bank.features(backbone, size, device)
    labels = torch.from_numpy(bank.labels).to(device)
    if validation is None:
        return {"knn_top1": knn_accuracy(features, labels)}
    seen = validation.features(backbone, size, device)
    wanted = torch.from_numpy(validation.labels).to(device)
    found = {"knn_top1": knn_accuracy(features, labels, seen, wanted)}
    if probe is not None:
        with torch.no_grad():
            outputs = probe(seen)
        found["probe_top1"], found["probe_top5"] = top_accuracies(outputs, wanted)
    return found
