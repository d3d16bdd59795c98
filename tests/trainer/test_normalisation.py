"""Normalisation of views in one pass against torch's own in several."""

import pytest
import torch
from torch.nn import functional

from ce_align.trainer.reductions import normalise_over, normalise_views


def batch(shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return 5 + 2 * torch.randn(shape, generator=generator, dtype=dtype)


SHAPES = [(12, 5), (12, 5, 3), (12, 5, 3, 4)]


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
