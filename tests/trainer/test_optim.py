"""LARS against its rule in numpy, the schedule against its ends and shape."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ce_align.errors import ConfigError
from ce_align.trainer.optim import LARS, base_learning_rate, learning_rate_share


def moved(shape, gradients, rng, **settings):
    """Parameter of that shape before and after steps with those gradients."""
    start = rng.standard_normal(shape)
    parameter = nn.Parameter(torch.tensor(start))
    optimiser = LARS([parameter], **settings)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimiser.step()
    return start, parameter.detach().numpy()


def test_steps_follow_the_rule_written_in_numpy(rng):
    gradients = rng.standard_normal((3, 4, 5))
    settings = {"lr": 0.7, "momentum": 0.8, "weight_decay": 0.3}
    weight, found = moved((4, 5), gradients, rng, **settings, trust_coefficient=0.01)
    velocity = np.zeros_like(weight)
    for gradient in gradients:
        update = gradient + 0.3 * weight
        update *= 0.01 * np.linalg.norm(weight) / np.linalg.norm(update)
        velocity = 0.8 * velocity + update
        weight = weight - 0.7 * velocity
    np.testing.assert_allclose(found, weight, rtol=1e-12)


def test_trust_ratio_is_that_of_gradient_and_decay_together(rng):
    gradient = rng.standard_normal((4, 5))
    settings = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.3}
    start, found = moved((4, 5), [gradient], rng, **settings)
    update = gradient + 0.3 * start
    step = np.linalg.norm(start - found) / np.linalg.norm(start)
    assert step == pytest.approx(1e-3, rel=1e-9)
    lengths = np.linalg.norm(gradient) + 0.3 * np.linalg.norm(start)
    assert np.linalg.norm(update) < 0.95 * lengths  # Other rules would step less.


@pytest.mark.parametrize("shape", [(6,), ()])
def test_vectors_and_scalars_get_neither_decay_nor_adaptation(shape, rng):
    gradient = rng.standard_normal(shape)
    start, found = moved(shape, [gradient], rng, lr=0.5, weight_decay=10.0)
    np.testing.assert_allclose(found, start - 0.5 * gradient, rtol=1e-12)


def test_a_zero_matrix_or_a_zero_update_is_not_adapted(rng):
    parameter = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
    gradient = torch.tensor(rng.standard_normal((2, 3)))
    parameter.grad = gradient
    LARS([parameter], lr=0.5).step()
    torch.testing.assert_close(parameter.detach(), -0.5 * gradient)
    start, found = moved((2, 3), [np.zeros((2, 3))], rng, lr=1.0, weight_decay=0.0)
    np.testing.assert_array_equal(found, start)


def test_step_length_ignores_the_scale_of_the_gradient(rng):
    gradient = rng.standard_normal((4, 5))
    results = []
    for scale in (1, 1e6):
        same = np.random.default_rng(1)
        results.append(moved((4, 5), [scale * gradient], same, lr=1, weight_decay=0)[1])
    np.testing.assert_allclose(*results, rtol=1e-12)


def test_with_a_saved_state_the_steps_go_on_as_without(rng):
    gradients = torch.tensor(rng.standard_normal((4, 3, 2)))

    def run(parameter, optimiser, steps):
        for gradient in steps:
            parameter.grad = gradient.clone()
            optimiser.step()

    whole = nn.Parameter(torch.ones(3, 2, dtype=torch.float64))
    optimiser = LARS([whole], lr=0.1)
    run(whole, optimiser, gradients[:2])
    resumed = nn.Parameter(whole.detach().clone())
    second = LARS([resumed], lr=9.0)
    second.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    run(whole, optimiser, gradients[2:])
    run(resumed, second, gradients[2:])
    assert torch.equal(whole, resumed)


def test_parameters_without_gradient_stay_and_gradients_are_not_changed(rng):
    still, moving = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    moving.grad = torch.full((2, 2), 3.0)
    LARS([still, moving], lr=1.0, weight_decay=0.5).step()
    assert torch.equal(still, torch.ones(2, 2))
    assert not torch.equal(moving, torch.ones(2, 2))
    assert torch.equal(moving.grad, torch.full((2, 2), 3.0))


def test_descends_a_quadratic(rng):
    target = torch.tensor(rng.standard_normal((4, 3)))
    weight = nn.Parameter(torch.ones(4, 3, dtype=torch.float64))
    optimiser = LARS([weight], lr=20.0, weight_decay=0.0)

    def closure():
        optimiser.zero_grad()
        loss = (weight - target).square().sum()
        loss.backward()
        return loss.item()

    losses = [optimiser.step(closure) for _ in range(60)]
    assert min(losses[30:]) < 0.05 * losses[0]


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay"])
def test_impossible_settings_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} is -1"):
        LARS([nn.Parameter(torch.ones(2))], **({"lr": 1.0} | {name: -1}))


@given(st.integers(0, 50), st.integers(1, 200), st.floats(0, 1))
def test_schedule_rises_to_the_peak_and_falls_to_its_end(n_warmup, n_rest, final):
    n_steps = n_warmup + n_rest
    shares = [
        learning_rate_share(s, n_steps, n_warmup, final) for s in range(n_steps + 2)
    ]
    assert shares[n_warmup] == pytest.approx(1)
    assert shares[n_steps] == shares[-1] == pytest.approx(final)
    np.testing.assert_allclose(shares[:n_warmup], np.arange(n_warmup) / (n_warmup or 1))
    assert (np.diff(shares[n_warmup:]) <= 1e-15).all()


def test_schedule_passes_through_the_middle_of_the_cosine():
    assert learning_rate_share(55, 100, 10) == pytest.approx((1 + 1e-3) / 2)
    quarter = 1e-3 + (1 - 1e-3) * (1 + math.sqrt(0.5)) / 2
    assert learning_rate_share(35, 110, 10) == pytest.approx(quarter)


def test_schedule_of_the_paper():
    assert base_learning_rate(1024) == pytest.approx(4.8)
    assert 4.8 * learning_rate_share(62_500, 62_500, 6_250) == pytest.approx(4.8e-3)


def test_impossible_schedules_are_refused():
    with pytest.raises(ConfigError, match="10 steps does not fit into 10"):
        learning_rate_share(0, 10, 10)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        learning_rate_share(0, 10, 1, 2.0)
    with pytest.raises(ConfigError, match="at least 1"):
        base_learning_rate(0)
