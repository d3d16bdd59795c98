"""Reductions and normalisations against plain computations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from ce_align.trainer.reductions import (
    gram_inner_product,
    log_sum_exp_others,
    normalise_over,
    normalise_views,
    nuclear_norm,
    unit_rows,
)


def with_gradient(function, *arrays, dtype=torch.float64):
    inputs = [torch.tensor(a, dtype=dtype, requires_grad=True) for a in arrays]
    value = function(*inputs)
    value.backward()
    return value.item(), *[x.grad.numpy() for x in inputs]


def low_rank(rng, n, d, rank):
    return rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d))


@given(
    n=st.integers(1, 12),
    d=st.integers(1, 12),
    rank=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_nuclear_norm_and_its_least_subgradient_equal_those_of_svd(n, d, rank, seed):
    rank = min(n, d, rank)
    matrix = low_rank(np.random.default_rng(seed), n, d, rank)
    value, gradient = with_gradient(nuclear_norm, matrix)
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    if singular[rank - 1] < 1e-4 * singular[0]:
        return  # Too close to a lower rank for a Gram matrix to tell.
    assert value == pytest.approx(singular.sum(), rel=1e-7)
    expected = left[:, :rank] @ right[:rank]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_gradient_of_full_rank_equals_finite_differences(shape, rng):
    matrix = torch.tensor(rng.standard_normal(shape), requires_grad=True)
    assert torch.autograd.gradcheck(nuclear_norm, matrix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_of_a_zero_matrix_is_zero(dtype):
    value, gradient = with_gradient(nuclear_norm, np.zeros((4, 3)), dtype=dtype)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("shape", [(96, 64), (64, 96)])
@pytest.mark.parametrize("rank", [1, 20, 63])
def test_single_precision_finds_rank_and_gradient(rank, shape, rng):
    matrix = low_rank(rng, *shape, rank).astype(np.float32)
    value, gradient = with_gradient(nuclear_norm, matrix, dtype=torch.float32)
    left, singular, right = np.linalg.svd(matrix.astype(float), full_matrices=False)
    expected = left[:, :rank] @ right[:rank]
    assert value == pytest.approx(singular.sum(), rel=1e-5)
    # A direction counted wrongly would change the squared length by one.
    assert np.sum(gradient**2) == pytest.approx(rank, abs=1e-2)
    error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
    assert error < 1e-3


def test_single_precision_gradient_at_the_size_of_training(rng):
    matrix = rng.standard_normal((512, 128)).astype(np.float32)
    _, gradient = with_gradient(nuclear_norm, matrix, dtype=torch.float32)
    left, _, right = np.linalg.svd(matrix.astype(float), full_matrices=False)
    error = np.linalg.norm(gradient - left @ right) / np.linalg.norm(gradient)
    assert error < 1e-5


def test_gram_inner_product_is_the_squared_norm_of_the_product(rng):
    a, b = rng.standard_normal((2, 5, 9))
    value, of_a, of_b = with_gradient(gram_inner_product, a, b)
    product = a.T @ b
    assert value == pytest.approx(np.sum(product**2), rel=1e-13)
    np.testing.assert_allclose(of_a, 2 * b @ product.T, rtol=1e-12)
    np.testing.assert_allclose(of_b, 2 * a @ product, rtol=1e-12)


def test_log_sum_exp_leaves_each_row_itself_out(rng):
    rows = torch.tensor(rng.standard_normal((6, 3)), requires_grad=True)
    found = log_sum_exp_others(rows)
    for i, row in enumerate(rows.detach().numpy()):
        products = np.delete(rows.detach().numpy() @ row, i)
        assert found[i].item() == pytest.approx(np.log(np.exp(products).sum()))
    assert torch.autograd.gradcheck(log_sum_exp_others, rows)


def test_unit_rows_have_length_one_and_rows_without_direction_are_left_zero(rng):
    rows = rng.standard_normal((4, 3))
    rows[1] = 0
    inputs = torch.tensor(rows, requires_grad=True)
    units = unit_rows(inputs)
    np.testing.assert_allclose(units.detach().norm(dim=1), [1, 0, 1, 1], atol=1e-15)
    (units * torch.tensor(rng.standard_normal(rows.shape))).sum().backward()
    assert not inputs.grad[1].any()
    # What changes the length alone changes nothing.
    np.testing.assert_allclose((inputs.grad * inputs).sum(1).detach(), 0, atol=1e-14)


def batch(shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return 5 + 2 * torch.randn(shape, generator=generator, dtype=dtype)


SHAPES = [(12, 5), (12, 5, 3), (12, 5, 3, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_views", [1, 4])
def test_gradient_equals_finite_differences(shape, n_views):
    inputs = [batch(shape), batch((shape[1],)), batch((shape[1],)) - 4]
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(
        lambda x, w, b: normalise_over(x, w, b, n_views=n_views)[0], inputs
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
    ],
)
def test_views_are_normalised_as_by_torch_bit_by_bit(shape, dtypes):
    of_values, of_weights = dtypes
    values = batch(shape, of_values)
    if len(shape) == 4:
        values = values.to(memory_format=torch.channels_last)
    upstream = batch(shape, of_values).cos()
    results = []
    for joint in (True, False):
        x = values.clone().requires_grad_()
        weight, bias = (
            batch(shape[1:2], of_weights).add(k).requires_grad_() for k in (0, 1)
        )
        running = torch.zeros_like(weight), torch.ones_like(weight)
        if joint:
            out = normalise_views(
                x, weight, bias, running, momentum=0.1, eps=1e-5, n_views=4
            )
        else:
            alone = [
                functional.batch_norm(v, *running, weight, bias, True, 0.1, 1e-5)
                for v in x.chunk(4)
            ]
            out = torch.cat(alone)
        out.backward(upstream)
        results.append((out, *running, x.grad, weight.grad, bias.grad))
    *exact, of_weight, of_bias = zip(*results, strict=True)
    for found, expected in exact:
        assert torch.equal(found, expected)
    # Sums over views, which autograd may take in another order.
    torch.testing.assert_close(*of_weight)
    torch.testing.assert_close(*of_bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_batches_have_single_precision_statistics(dtype):
    values = (100 + batch((64, 3, 4, 4), torch.float32)).to(dtype).requires_grad_()
    weight = torch.full((3,), 2.0)
    found, mean, variance = normalise_over(values, weight, weight)
    assert found.dtype == dtype
    assert mean.dtype == variance.dtype == torch.float32
    exact = values.detach().double()
    torch.testing.assert_close(
        mean[0].double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=0
    )
    found.float().square().sum().backward()
    assert values.grad.dtype == dtype


def test_channels_last_stays_channels_last():
    values = batch((8, 5, 3, 4)).to(memory_format=torch.channels_last).requires_grad_()
    found, _, _ = normalise_over(values, n_views=4)
    plain, _, _ = normalise_over(values.detach().contiguous(), n_views=4)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, plain)
