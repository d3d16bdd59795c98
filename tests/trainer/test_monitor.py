"""Accuracies and health against plain computations and planted truth."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from ce_align.data.imagesets import ImageSet
from ce_align.errors import DataError
from ce_align.trainer.monitor import (
    LEAST_RANK,
    Labelled,
    collapse_warning,
    effective_rank,
    evaluate,
    health_of,
    knn_accuracy,
    mean_norm,
    normalise_pixels,
    relative_spread,
    top_accuracies,
)
from ce_align.trainer.networks import build_backbone


def test_top_accuracies_count_the_best_and_the_best_five():
    outputs = torch.arange(7.0).repeat(3, 1)
    assert top_accuracies(outputs, torch.tensor([6, 2, 1])) == pytest.approx(
        (1 / 3, 2 / 3)
    )
    assert top_accuracies(outputs[:, :2], torch.tensor([0, 0, 0])) == (0, 1)


def test_the_nearest_neighbour_is_that_of_scikit_learn(rng):
    bank, queries = rng.normal(size=(400, 6)), rng.normal(size=(300, 6))
    labels, wanted = rng.integers(0, 3, 400), rng.integers(0, 3, 300)
    reference = KNeighborsClassifier(1, metric="cosine").fit(bank, labels)
    found = knn_accuracy(*map(torch.from_numpy, (bank, labels, queries, wanted)), k=1)
    assert found == pytest.approx(reference.score(queries, wanted))


def test_votes_weigh_by_similarity(rng):
    bank, queries = rng.normal(size=(60, 4)), rng.normal(size=(50, 4))
    labels, wanted = rng.integers(0, 4, 60), rng.integers(0, 4, 50)
    unit = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    hits = 0
    for query, label in zip(queries, wanted, strict=True):
        similarity = unit @ query / np.linalg.norm(query)
        nearest = np.argsort(-similarity)[:7]
        votes = np.bincount(labels[nearest], np.exp(similarity[nearest] / 0.07), 4)
        hits += votes.argmax() == label
    found = knn_accuracy(*map(torch.from_numpy, (bank, labels, queries, wanted)), k=7)
    assert found == pytest.approx(hits / 50)


def test_without_queries_no_row_is_its_own_neighbour(rng):
    bank = torch.from_numpy(rng.normal(size=(300, 5)))
    # With itself as a neighbour every row would be right.
    assert knn_accuracy(bank, torch.arange(300), k=1) == 0
    with pytest.raises(DataError, match="no neighbours"):
        knn_accuracy(bank[:1], torch.zeros(1, dtype=torch.int64))


def test_pixels_are_normalised_as_in_torchvision(rng):
    from torchvision.transforms.functional import normalize, to_tensor

    pixels = rng.integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = torch.stack([normalize(to_tensor(p), mean, std) for p in pixels])
    found = normalise_pixels(torch.from_numpy(pixels))
    assert torch.allclose(found, expected, atol=1e-6)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_evaluation_leaves_the_network_as_it_was_and_sees_planted_classes(rng):
    colours = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250]], np.uint8)
    labels = np.arange(30) % 3
    noise = rng.integers(0, 20, (30, 16, 16, 3), dtype=np.uint8)
    images = ImageSet.from_array(
        "colours", noise // 2 + colours[labels][:, None, None] // 2
    )
    bank = Labelled(images, labels)
    torch.manual_seed(0)
    backbone, n_features = build_backbone("tiny")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    probe = torch.nn.Linear(n_features, 3)
    found = evaluate(
        backbone, probe, bank, bank.evenly(9), size=16, device=torch.device("cpu")
    )
    assert found["knn_top1"] == 1
    assert set(found) == {"knn_top1", "probe_top1", "probe_top5"}
    assert found["probe_top5"] == 1  # of three classes
    assert backbone.training
    assert all(torch.equal(before[n], v) for n, v in backbone.state_dict().items())


def test_images_without_augmentation_are_cropped_and_never_squeezed(rng):
    from torchvision.transforms import CenterCrop, Compose, Resize

    pixels = rng.integers(0, 256, (3, 40, 70, 3), np.uint8)
    labelled = Labelled(ImageSet.from_array("wide", pixels), np.arange(3))
    seen = []

    def backbone(inputs):
        seen.append(inputs)
        return inputs.flatten(1)

    network = torch.nn.Module()
    network.forward = backbone
    labelled.features(network, 28, torch.device("cpu"))
    expected = Compose([Resize(32), CenterCrop(28)])
    shown = [np.asarray(expected(Image.fromarray(image))) for image in pixels]
    wanted = normalise_pixels(torch.from_numpy(np.stack(shown)))
    torch.testing.assert_close(seen[0], wanted, rtol=0, atol=0)


@given(rank=st.integers(1, 12), scale=st.floats(1e-3, 1e3))
def test_effective_rank_of_an_even_spectrum_is_its_rank(rank, scale):
    directions = torch.eye(20)[:rank] * scale
    rows = torch.cat([directions, -directions])
    assert effective_rank(rows) == pytest.approx(rank, rel=1e-6)


def test_effective_rank_is_the_exponential_of_the_entropy(rng):
    rows = rng.normal(size=(50, 8)) * np.arange(1, 9)
    values = np.linalg.eigvalsh(np.cov(rows.T))
    shares = values / values.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(torch.from_numpy(rows)) == pytest.approx(expected, rel=1e-9)


def test_collapse_has_no_rank():
    assert effective_rank(torch.ones(9, 4)) == 0


def test_mean_norm_is_that_of_numpy(rng):
    rows = rng.normal(size=(30, 5))
    expected = np.linalg.norm(rows, axis=1).mean()
    assert mean_norm(torch.from_numpy(rows)) == pytest.approx(expected)


@given(offset=st.floats(0, 1e4), scale=st.floats(1e-3, 1e3))
def test_relative_spread_is_that_of_a_planted_offset(offset, scale):
    rows = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    expected = 1 / np.sqrt(1 + offset**2)
    shifted = (rows + torch.tensor([0.6, 0.8]) * offset) * scale
    assert relative_spread(shifted) == pytest.approx(expected, rel=1e-6)


def test_health_has_the_rank_of_features_and_the_length_of_embeddings(rng):
    features, embeddings = (torch.from_numpy(rng.normal(size=(40, d))) for d in (6, 3))
    assert health_of(features, embeddings) == {
        "effective_rank": effective_rank(features),
        "embedding_norm": mean_norm(embeddings),
    }


def test_rows_of_one_direction_and_equal_rows_up_to_rounding_are_told(rng):
    healthy = torch.from_numpy(rng.normal(size=(60, 8)))
    assert collapse_warning(features=healthy, embeddings=healthy) is None
    line = healthy[:, :1] * torch.ones(8)
    found = collapse_warning(features=line, embeddings=healthy)
    assert "features (effective rank 1" in found
    assert "embeddings" not in found
    equal = torch.ones(60, 8) + 1e-7 * healthy
    assert effective_rank(equal) > LEAST_RANK
    assert "embeddings (effective rank" in collapse_warning(embeddings=equal)
    assert "\n" not in found
    assert collapse_warning(features=torch.zeros(9, 4))
