"""How a network does while it is trained: accuracies, collapse."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ce_align.data.imagesets import ImageSet, validation_crop
from ce_align.errors import DataError

__all__ = [
    "MEAN",
    "STD",
    "Labelled",
    "collapse_warning",
    "effective_rank",
    "evaluate",
    "health_of",
    "knn_accuracy",
    "mean_norm",
    "normalise_pixels",
    "relative_spread",
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

    Votes of the k nearest weigh exp(similarity / 0.07).

    Parameters
    ----------
    bank, bank_labels : (n, d) features and (n,) classes
    queries, query_labels : (m, d) and (m,); None leaves each row of the bank out once

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
    """At least two images with their (n,) classes, seen as `validation_crop` shows."""

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
                parts = []
                for start in range(0, len(self.images), BATCH):
                    rows = range(start, min(start + BATCH, len(self.images)))
                    crops = [validation_crop(self.images.load(i), size) for i in rows]
                    pixels = torch.from_numpy(np.stack([np.asarray(x) for x in crops]))
                    parts.append(backbone(normalise_pixels(pixels.to(device))))
        finally:
            backbone.train(was_training)
        return torch.cat(parts)


def evaluate(
    backbone: nn.Module,
    probe: nn.Module | None,
    bank: Labelled,
    validation: Labelled | None,
    *,
    size: int,
    device: torch.device,
) -> dict[str, float]:
    """``knn_top1`` and, with validation images and a probe, ``probe_top1``, ``_top5``.

    Neighbours are sought in `bank`, of which each image is left out once without
    validation images. `size` is that of the images in pixels.
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


#: Below two effective dimensions or this spread a representation counts as collapsed.
#: Both lie far below what any network shows that learns, or has not begun to: an
#: untrained tiny network has about ten dimensions and a spread above a tenth.
LEAST_RANK, LEAST_SPREAD = 2.0, 0.01


def effective_rank(rows: Tensor) -> float:
    """Exponential of the entropy of the spectrum of the covariance of (n, d) rows.

    1 if all variance lies along one direction, min(n − 1, d) if it is even; 0 if
    there is none, which is collapse.

    References
    ----------
    Roy and Vetterli (2007), The effective rank.
    """
    centred = rows.double() - rows.double().mean(0)
    variances = torch.linalg.svdvals(centred).square()
    total = variances.sum()
    if not total > 0:
        return 0.0
    shares = variances / total
    return float(torch.special.entr(shares).sum().exp())


def mean_norm(rows: Tensor) -> float:
    """Mean length of (n, d) rows."""
    return float(torch.linalg.vector_norm(rows.double(), dim=1).mean())


def relative_spread(rows: Tensor) -> float:
    """Root mean square distance of (n, d) rows from their mean, over that from zero.

    From 0, where all rows are equal (what is left is rounding, whose effective rank is
    high), to 1, where their mean is zero.
    """
    values = rows.double()
    whole = values.square().sum()
    if not whole > 0:
        return 0.0
    return float(((values - values.mean(0)).square().sum() / whole).sqrt())


def health_of(features: Tensor, embeddings: Tensor) -> dict[str, float]:
    """Effective rank of (n, d) features, and mean length of (n, d') embeddings."""
    return {
        "effective_rank": effective_rank(features),
        "embedding_norm": mean_norm(embeddings),
    }


def collapse_warning(**rows: Tensor) -> str | None:
    """One line if any of several sets of (n, d) rows, named here, has collapsed."""
    found = []
    for name, values in rows.items():
        rank, spread = effective_rank(values), relative_spread(values)
        if rank < LEAST_RANK or spread < LEAST_SPREAD:
            found.append(f"{name} (effective rank {rank:.3g}, spread {spread:.2g})")
    if not found:
        return None
    return (
        f"warning: collapsed {' and '.join(found)}: all images look alike; expected "
        f"are a rank of at least {LEAST_RANK:g} and a spread of {LEAST_SPREAD:g}; try "
        "a lower learning rate or more pairs a step"
    )
