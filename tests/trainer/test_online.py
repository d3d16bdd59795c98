"""Accuracies against plain computations and planted truth."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from ce_align.data.imagesets import ImageSet
from ce_align.errors import DataError
from ce_align.trainer.monitor import (
    Labelled,
    evaluate,
    knn_accuracy,
    normalise_pixels,
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
