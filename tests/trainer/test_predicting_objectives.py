"""Equivariant terms of their own: parameters or embeddings that are predicted."""

import numpy as np
import pytest
import torch

from ce_align.augment import PARAMETER_NAMES
from ce_align.data.imagesets import ImageSet
from ce_align.trainer.augself import ParameterPrediction
from ce_align.trainer.engine import fit
from ce_align.trainer.equimod import EmbeddingPrediction
from ce_align.trainer.objectives import simclr
from ce_align.trainer.presets import Hardware, preset_config

N, P = 40, len(PARAMETER_NAMES)


def drawn(seed):
    """Parameters of both views, on scales of their own."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-1, 1, P)
    return scales * torch.randn(N, 2, P, generator=generator)


def seen(parameters, seed, move):
    """Embeddings of two images, moved by what their views' parameters are times it."""
    generator = torch.Generator().manual_seed(seed)
    of_images = torch.randn(2, 1, N, move.shape[1], generator=generator)
    return (of_images + (parameters.mT.permute(2, 0, 1) @ move)).flatten(0, 1)


def planted(seed, scale=1.0):
    parameters = drawn(seed) / torch.logspace(-1, 1, P)
    generator = torch.Generator().manual_seed(0)
    move = scale * torch.randn(P, 16, generator=generator)
    return seen(parameters, seed, move), parameters


def test_predicting_the_mean_of_parameters_costs_one():
    term = ParameterPrediction(16)
    for parameter in term.parameters():
        torch.nn.init.zeros_(parameter)
    loss = term(torch.randn(4, N, 16), drawn(0))
    torch.testing.assert_close(loss, torch.tensor(1.0), rtol=1e-3, atol=0)


def test_parameters_that_embeddings_hold_are_read():
    parameters = drawn(1)
    views = parameters.permute(1, 0, 2)
    difference = parameters[:, 0] - parameters[:, 1]
    slopes = torch.diag(1 / difference.std(0, correction=0))
    term = ParameterPrediction(P)
    with torch.no_grad():
        term.reader.weight.copy_(torch.cat([slopes, -slopes], 1))
        term.reader.bias.copy_(-slopes @ difference.mean(0))
        assert term(torch.cat([views, views]), parameters) < 1e-3
        # Of another pair of views nothing is known.
        assert term(torch.cat([views, views]), drawn(2)) > 1


def test_predicted_embeddings_begin_as_the_invariant_objective():
    embeddings, parameters = torch.randn(4, N, 16), drawn(3)
    a_1, b_1, a_2, b_2 = embeddings
    expected = simclr(torch.cat([a_1, a_2]), torch.cat([b_1, b_2]))
    found = EmbeddingPrediction(16, simclr)(embeddings, parameters)
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_what_parameters_do_to_embeddings_is_predicted_on_other_images():
    torch.manual_seed(4)
    term = EmbeddingPrediction(16, simclr)
    optimiser = torch.optim.Adam(term.parameters(), 1e-2)
    held_out = planted(100)
    with torch.no_grad():
        before = float(term(*held_out))
    for step in range(150):
        optimiser.zero_grad()
        term(*planted(step)).backward()
        optimiser.step()
    with torch.no_grad():
        learned = float(term(*held_out))
        views, parameters = held_out
        mixed = float(term(views, parameters.flip(0)))
    assert learned < 0.5 * before
    assert mixed > before


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["augself", "equimod"])
@pytest.mark.parametrize("augment", ["cpu", "device"])
def test_they_train_with_what_the_views_parameters_are(
    tmp_path, rng, objective, augment
):
    pixels = rng.integers(0, 256, (32, 20, 20, 3), dtype=np.uint8)
    settings = preset_config(
        "tiny",
        objective,
        equivariance_weight=0.3,
        images="noise",
        view_size=16,
        epochs=1,
        pairs_per_step=8,
    )
    images = ImageSet.from_array("noise", pixels)
    hardware = Hardware(workers=0, augment=augment)
    module = fit(settings, images, tmp_path, hardware, notify=lambda text: None)
    assert module.global_step == 2
    moved = list(module.equivariant.parameters())
    assert all(parameter.grad.abs().max() > 0 for parameter in moved[-2:])
    assert 0 < module.latest["effective_weight"] < 1
