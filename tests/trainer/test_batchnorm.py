"""Synchronised batch normalisation on one process against torch's own."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from ce_align.errors import DataError
from ce_align.trainer.networks import ViewBatchNorm, convert_to_views, set_group


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """A group of this process alone: the path of many processes."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("group") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def batch(shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return 5 + 2 * torch.randn(shape, generator=generator, dtype=dtype)


SHAPES = [(12, 5), (12, 5, 3), (12, 5, 3, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_synchronised_layer_equals_that_of_torch(shape, momentum, affine, group):
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    options = {"momentum": momentum, "affine": affine, "dtype": torch.float64}
    plain, ours = (convert_to_views(kind(shape[1], **options), 4) for _ in range(2))
    set_group(ours, group)
    inputs = [batch(shape).requires_grad_() for _ in range(2)]
    results = [layer(x) for layer, x in zip((plain, ours), inputs, strict=True)]
    for result in results:
        (result * batch(shape)).sum().backward()
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*(x.grad for x in inputs), rtol=1e-10, atol=1e-12)
    for first, second in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-12, atol=1e-10)
    for first, second in zip(plain.buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_layers_without_running_statistics_stay_without(group):
    layer = convert_to_views(nn.BatchNorm1d(5, track_running_stats=False).double(), 4)
    set_group(layer, group)
    assert isinstance(layer, ViewBatchNorm)
    found = layer(batch((12, 5)))
    assert layer.running_mean is None
    views = batch((12, 5)).chunk(4)
    alone = [nn.functional.batch_norm(v, None, None, training=True) for v in views]
    torch.testing.assert_close(found.detach(), torch.cat(alone))


def test_a_single_value_a_channel_is_refused(group):
    layer = convert_to_views(nn.BatchNorm1d(5).double(), 4)
    for joined in (None, group):
        set_group(layer, joined)
        with pytest.raises(DataError, match=r"\(4, 5\) has one value a channel"):
            layer(batch((4, 5)))
