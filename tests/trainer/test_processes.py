"""Two and four processes train as one does: losses, gradients, weights, statistics."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing as torch_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ce_align.backbones import TinyResNet
from ce_align.trainer.distributed import gather_rows, mean_over, sum_over
from ce_align.trainer.networks import MomentumCopy, PairedNetwork, set_group
from ce_align.trainer.objectives import OBJECTIVES, combined_loss, gradient_norms
from ce_align.trainer.optim import LARS

N_PAIRS, N_STEPS = 8, 3
#: Barlow Twins in both of its forms: 16 rows are few for 32 columns, many for 5.
RUNS = {
    "mmcr": OBJECTIVES["mmcr"].configured(head_widths=(12, 6)),
    "simclr": OBJECTIVES["simclr"].configured(head_widths=(12, 6)),
    "barlow by Gram matrices": OBJECTIVES["barlow"].configured(head_widths=(12, 32)),
    "barlow by correlation": OBJECTIVES["barlow"].configured(head_widths=(12, 5)),
}


def build(objective):
    """The same small network on every process."""
    torch.manual_seed(0)
    backbone = TinyResNet(4)
    backbone.fc = nn.Identity()
    return PairedNetwork(backbone, 32, objective.head_widths).double()


def train(objective, group, rank, world):
    """All that three steps leave behind, by name."""
    network = build(objective)
    momentum = None if objective.ema is None else MomentumCopy(network, objective.ema)
    model = network
    if group is not None:
        set_group(network, group)
        if momentum is not None:
            set_group(momentum, group)
        # Buffers are not broadcast: each process must arrive at them itself.
        model = DistributedDataParallel(network, broadcast_buffers=False)
    optimiser = LARS(network.parameters(), lr=2.0, weight_decay=1e-3)
    own = slice(rank * N_PAIRS // world, (rank + 1) * N_PAIRS // world)
    found = {}
    for step in range(N_STEPS):
        images = torch.randn(4, N_PAIRS, 3, 16, 16, dtype=torch.float64)
        images = images[:, own].flatten(0, 1)
        embeddings = model(images)
        options = {"group": group}
        if momentum is not None:
            followers = momentum(images)
            options["momentum_invariant"] = followers.invariant
            options["momentum_equivariant"] = followers.equivariant
        terms = combined_loss(
            objective, embeddings.invariant, embeddings.equivariant, 0.3, **options
        )
        for name in ("total", "invariant", "equivariant"):
            found[f"{name} loss {step}"] = getattr(terms, name).detach()
        norms = gradient_norms(terms, network.backbone.parameters(), group=group)
        found[f"gradient norms {step}"] = torch.tensor(norms)
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        if momentum is not None:
            momentum.update(network)
    for name, parameter in network.named_parameters():
        found[f"gradient of {name}"] = parameter.grad.clone()
    found |= {f"state {k}": v.clone() for k, v in network.state_dict().items()}
    if momentum is not None:
        found |= {f"momentum {k}": v for k, v in momentum.state_dict().items()}
    return found


def collectives(group, rank, world):
    """Gradients of the collectives, for a loss that differs between processes."""
    rows = torch.full((2, 3), 1.0 + rank, requires_grad=True)
    gathered = gather_rows(rows, group)
    weights = torch.arange(2.0 * world)[:, None] * (1 + rank)
    (gathered * weights).sum().backward()
    inputs = [torch.tensor(2.0 + rank, requires_grad=True) for _ in range(2)]
    total, mean = sum_over(inputs[0], group), mean_over(inputs[1], group)
    ((total + mean) * (1.0 + rank)).backward()
    return {
        "gathered": gathered.detach(),
        "gradient of rows": rows.grad,
        "sum and mean": torch.stack([total, mean]).detach(),
        "gradients of both": torch.stack([x.grad for x in inputs]),
    }


def work(rank, world, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store{world}"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    group = dist.group.WORLD
    results = {k: train(run, group, rank, world) for k, run in RUNS.items()}
    results["collectives"] = collectives(group, rank, world)
    torch.save(results, folder / f"{world}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone():
    return {name: train(run, None, 0, 1) for name, run in RUNS.items()}


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def together(request, tmp_path_factory):
    """Results of every process, in the order of ranks."""
    folder, world = tmp_path_factory.mktemp("processes"), request.param
    # The server imports torch and torchvision once for all processes.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["ce_align.trainer.networks"])
    torch_processes.start_processes(
        work, (world, folder), nprocs=world, start_method="forkserver"
    )
    return [torch.load(folder / f"{world}-{rank}.pt") for rank in range(world)]


@pytest.mark.parametrize("run", RUNS)
def test_every_process_ends_where_one_alone_does(run, alone, together):
    for results in together:
        assert results[run].keys() == alone[run].keys()
        for name, expected in alone[run].items():
            torch.testing.assert_close(
                results[run][name], expected, rtol=1e-8, atol=1e-9, msg=name
            )


def test_collectives_are_differentiated_exactly(together):
    world = len(together)
    ranks = torch.arange(float(world))
    shares = (1 + ranks).sum()
    every = (1 + ranks).repeat_interleave(2)[:, None].expand(-1, 3)
    for rank, results in enumerate(together):
        found = results["collectives"]
        torch.testing.assert_close(found["gathered"], every)
        own = torch.tensor([[2.0 * rank], [2.0 * rank + 1]]).expand(-1, 3) * shares
        torch.testing.assert_close(found["gradient of rows"], own)
        total = (2 + ranks).sum()
        both = torch.stack([total, total / world])
        torch.testing.assert_close(found["sum and mean"], both)
        gradients = torch.stack([shares, shares / world])
        torch.testing.assert_close(found["gradients of both"], gradients)


@pytest.mark.parametrize("run", RUNS)
def test_three_steps_move_what_is_compared(run, alone):
    start, found = build(RUNS[run]), alone[run]
    assert found["total loss 0"] != found["total loss 2"]
    for name, parameter in start.named_parameters():
        assert found[f"gradient of {name}"].abs().max() > 1e-9, name
        assert not torch.equal(found[f"state {name}"], parameter), name
