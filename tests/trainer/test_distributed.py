"""Processes of a training: batch jobs, and exact gradients."""

import os
import signal
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
from forked import server
from PIL import Image
from stand_in_slurm import StandIn
from test_engine import train
from torch import multiprocessing as torch_processes
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from waiting import LIMIT, wait_until

from ce_align.backbones import TinyResNet
from ce_align.errors import CeAlignError, ConfigError
from ce_align.trainer import distributed as slurm
from ce_align.trainer.callbacks import checkpoint_paths
from ce_align.trainer.distributed import (
    SlurmJob,
    cluster_of,
    gather_rows,
    mean_over,
    sum_over,
)
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.networks import MomentumCopy, PairedNetwork, set_group
from ce_align.trainer.objectives import OBJECTIVES, combined_loss, gradient_norms
from ce_align.trainer.optim import LARS

pytestmark = pytest.mark.slow

ON_CPUS = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
JOB = {"SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "train"}
TWO = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_STEP_ID": "0"}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, one_thread):
    return train(tmp_path_factory.mktemp("whole"))[0]


@pytest.fixture
def cluster(tmp_path_factory, monkeypatch):
    """This process as the only task of a job."""
    found = StandIn(tmp_path_factory.mktemp("slurm"), SLURM_NTASKS="1")
    for name, value in found.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "PAUSE", 0.0)
    monkeypatch.setattr(slurm, "SLURM_PATIENCE", LIMIT)
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    before |= {s: signal.getsignal(s) for s in (signal.SIGUSR1, signal.SIGUSR2)}
    yield found
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def signalled(monkeypatch):
    """Send a signal to this process after step 2 of the next training."""
    moved = PairedTraining.optimizer_step

    def arm(signum):
        def interrupted(self, *args, **kwargs):
            moved(self, *args, **kwargs)
            if self.global_step + 1 == 2:
                monkeypatch.setattr(PairedTraining, "optimizer_step", moved)
                os.kill(os.getpid(), signum)

        monkeypatch.setattr(PairedTraining, "optimizer_step", interrupted)

    return arm


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
def test_an_announced_end_saves_the_step_and_asks_to_start_again(
    tmp_path,
    cluster,
    signalled,
    monkeypatch,
    uninterrupted,
    signum,
):
    # What scontrol sends at once must not cut off the last words.
    (cluster.folder / "job").write_text(str(os.getpid()))
    signalled(signum)
    with pytest.raises(CeAlignError, match="SLURM starts job 4242 again") as found:
        train(tmp_path)
    assert found.value.exit_status == 128 + signum
    assert cluster.asked() == ["requeue 4242"]
    (path,) = checkpoint_paths(tmp_path / "checkpoints")
    assert path.name == "step-000000002.ckpt"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    # The script of the job says what was right when it started first.
    weights, told = train(tmp_path, resume="never")
    assert told[0] == f"resuming from {path}"
    assert weights == uninterrupted


@pytest.mark.parametrize(("minutes", "asked"), [(-1, ["requeue 4242"]), (60, [])])
def test_sigterm_starts_again_only_what_ran_out_of_time(
    tmp_path, cluster, signalled, monkeypatch, minutes, asked
):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time() + 60 * minutes)))
    signalled(signal.SIGTERM)
    with pytest.raises(CeAlignError, match="stopped after step 2") as found:
        train(tmp_path)
    assert found.value.exit_status == 128 + signal.SIGTERM
    assert cluster.asked() == asked
    assert len(checkpoint_paths(tmp_path / "checkpoints")) == 1


def test_a_refusal_says_why_and_what_to_do(tmp_path, cluster, signalled, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAULT", "Requested operation is disabled")
    signalled(signal.SIGUSR1)
    expected = (
        r"requeue 4242 failed \(Requested operation is disabled\): submit the job"
    )
    with pytest.raises(CeAlignError, match=expected):
        train(tmp_path)
    assert cluster.asked() == ["requeue 4242"] * slurm.ATTEMPTS


def test_without_scontrol_the_step_is_saved_all_the_same(
    tmp_path, cluster, signalled, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    signalled(signal.SIGUSR1)
    with pytest.raises(
        CeAlignError, match=r"scontrol: not found.*submit the job again"
    ):
        train(tmp_path)
    assert len(checkpoint_paths(tmp_path / "checkpoints")) == 1


@pytest.mark.parametrize("name", ["bash", "interactive"])
def test_in_a_shell_nothing_is_asked_of_slurm(
    tmp_path, cluster, signalled, monkeypatch, name
):
    monkeypatch.setenv("SLURM_JOB_NAME", name)
    # Asked for by salloc, but this command was started once.
    monkeypatch.setenv("SLURM_NTASKS", "4")
    signalled(signal.SIGTERM)
    with pytest.raises(CeAlignError, match="run the same command again to go on"):
        train(tmp_path)
    assert cluster.asked() == []
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_job_is_known_by_its_number_and_its_place_in_an_array():
    assert SlurmJob.detect({}) is None
    assert SlurmJob.detect(JOB) == SlurmJob("17")
    array = {"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "3"}
    more = {"SLURM_RESTART_COUNT": "2", "SLURM_JOB_END_TIME": "1700000000"}
    found = SlurmJob.detect({**JOB, **array, **more})
    assert found == SlurmJob("11_3", 2, 1.7e9)
    assert found.time_is_up()
    assert not SlurmJob("17").time_is_up()


def test_tasks_are_started_by_slurm_or_by_ourselves():
    def starts_them(devices, nodes=1, **variables):
        found = cluster_of(devices, nodes, {**JOB, **variables})
        return found.creates_processes_externally

    assert cluster_of(2, 1, {}) is None
    assert not starts_them(1)
    assert not starts_them(2, SLURM_NTASKS="1")
    assert not starts_them(2, SLURM_NTASKS="2", SLURM_JOB_NAME="bash")


def test_slurm_starts_several_tasks(monkeypatch):
    for name, value in TWO.items():
        monkeypatch.setenv(name, value)
    found = cluster_of(2, 1, {**JOB, **TWO})
    assert found.creates_processes_externally
    assert not found.auto_requeue


@pytest.mark.parametrize(
    ("devices", "nodes", "changes", "fault"),
    [
        (4, 1, {}, "SLURM has 2 tasks for 4 processes; ask it for --nodes=1 --ntasks-"),
        (2, 2, {}, "SLURM has 2 tasks for 4 processes"),
        (1, 2, {"SLURM_NTASKS": "1"}, "needs a task for every process"),
        (2, 1, {"SLURM_STEP_ID": None}, "put srun before the command"),
        (2, 1, {"SLURM_NTASKS_PER_NODE": None}, "--ntasks-per-node=2"),
    ],
)
def test_other_tasks_than_processes_are_refused(devices, nodes, changes, fault):
    variables = {**JOB, **TWO, **changes}
    given = {name: value for name, value in variables.items() if value is not None}
    with pytest.raises(ConfigError, match=fault):
        cluster_of(devices, nodes, given)


#: The command, which after its first epoch waits to be told to stop.
WAITING = """
import os, time
from ce_align.cli import main
from ce_align.trainer.callbacks import CheckpointWriter
taken = CheckpointWriter.on_train_batch_end

def waiting(self, trainer, *arguments):
    while "STAND_IN_WAITS" in os.environ and trainer.current_epoch:
        if self.stop.received:
            break
        time.sleep(0.01)
    taken(self, trainer, *arguments)

CheckpointWriter.on_train_batch_end = waiting
main()
"""


def test_two_tasks_of_an_array_go_on_bit_for_bit(tmp_path, python):
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(3)
    for i in range(16):
        pixels = rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "bin").mkdir()
    cluster = StandIn(
        tmp_path / "bin",
        SLURM_ARRAY_JOB_ID="40",
        SLURM_ARRAY_TASK_ID="2",
        SLURM_NTASKS="2",
        SLURM_NTASKS_PER_NODE="2",
        SLURM_NNODES="1",
        **ON_CPUS,
    )

    def job(out, **variables):
        command = ["-c", WAITING, "train", "--objective", "mmcr", "--weight", "0.3"]
        command += ["--preset", "tiny", "--images", str(tmp_path / "images")]
        command += ["--pairs-per-step", "4", "--epochs", "3", "--workers", "1"]
        command += ["--devices", "2", "--out", str(tmp_path / out)]
        return cluster.start(python, *command, **variables)

    reference = job("whole", SLURM_ARRAY_TASK_ID="1")
    _, errors = reference.communicate()
    assert reference.returncode == 0, errors
    stopped = job("parts", STAND_IN_WAITS="yes")
    parts = tmp_path / "parts" / "checkpoints"
    wait_until(lambda: checkpoint_paths(parts), stopped)
    stopped.send_signal(signal.SIGUSR1)
    _, errors = stopped.communicate()
    assert cluster.asked() == ["requeue 40_2"]
    (line,) = (text for text in errors.splitlines() if text.startswith("interrupted"))
    assert line.startswith("interrupted: stopped after step")
    assert line.endswith("SLURM starts job 40_2 again")
    assert stopped.returncode == 128 + signal.SIGUSR1
    again = job("parts", SLURM_RESTART_COUNT="1")
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    first, second = (
        (tmp_path / out / "model.safetensors").read_bytes()
        for out in ("whole", "parts")
    )
    assert first == second


N_PAIRS, N_STEPS = 8, 3
#: Barlow Twins in both of its forms: 16 rows are few for 32 columns, many for 5.
RUNS = {
    "mmcr": OBJECTIVES["mmcr"].configured(head_widths=(12, 6)),
    "simclr": OBJECTIVES["simclr"].configured(head_widths=(12, 6)),
    "barlow by Gram matrices": OBJECTIVES["barlow"].configured(head_widths=(12, 32)),
    "barlow by correlation": OBJECTIVES["barlow"].configured(head_widths=(12, 5)),
}


def build(objective):
    """The same small network on every process: `TinyResNet` of one block, not four.

    Each batch normalisation is a round of messages in either direction.
    """
    torch.manual_seed(0)
    backbone = TinyResNet(4)
    backbone.layer1 = backbone.layer3 = backbone.layer4 = nn.Identity()
    backbone.fc = nn.Identity()
    return PairedNetwork(backbone, 8, objective.head_widths).double()


#: Objectives of the authors, and those with an equivariant term of its own.
AUTHORS, PREDICTING = ("mmcr", "barlow", "simclr"), ("augself", "equimod")
#: Where the gradient is the authors' on four processes, however many there are.
SHARES = {f"{name}, authors' gradient": (run, 4) for name, run in RUNS.items()}
TRAINED = {name: (run, 1) for name, run in RUNS.items()} | SHARES


def train_steps(objective, shares, group, rank, world):
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
        options = {"group": group, "gradient_shares": shares}
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


def by_own_rows(rows, group, rank):
    """Rows of all processes, of which those of others are constants."""
    every = list(gather_rows(rows.detach(), group).chunk(group.size()))
    every[rank] = rows
    return torch.cat(every)


def authors_loss(name, batches, group, rank, world):
    """What a process of the authors' code returns and differentiates."""
    if name == "mmcr":
        gathered = [by_own_rows(functional.normalize(b), group, rank) for b in batches]
        return -torch.linalg.svdvals(torch.stack(gathered).mean(0)).sum()
    if name == "simclr":
        own = functional.normalize(torch.cat(batches))
        n, m = len(own), len(own) // 2
        logits = own @ by_own_rows(own, group, rank).mT / 0.15
        rows = torch.arange(n)
        partners = logits[rows, n * rank + (rows + m) % n]
        logits[rows, n * rank + rows] = -torch.inf
        return (logits.logsumexp(1) - partners).mean()
    standard = []
    for batch in batches:  # batch normalisation over all processes is exact
        every = gather_rows(batch, group)
        spread = (every.var(0, correction=0) + 1e-5).sqrt()
        standard.append((batch - every.mean(0)) / spread)
    local = standard[0].mT @ standard[1] / (len(batches[0]) * world)
    others = sum_over(local.detach(), group) - local.detach()
    squares = (local + others - torch.eye(len(local))).square()
    on = squares.diagonal().sum()
    return 0.048 * (on + 5e-3 * (squares.sum() - on))


def authors_gradients(name, group, rank, world):
    """Gradient of weights by `combined_loss` and by the authors' procedure."""
    torch.manual_seed(5)
    inputs = torch.randn(2, 4, 2 * world, 6, dtype=torch.float64)
    inputs = inputs[:, :, 2 * rank : 2 * rank + 2]
    weights = torch.randn(2, 6, 5, dtype=torch.float64, requires_grad=True)
    followed = torch.randn(2, 6, 5, dtype=torch.float64)
    embeddings = inputs @ weights[:, None]
    momentum = inputs @ followed[:, None] if name == "mmcr" else [None, None]
    terms = combined_loss(
        OBJECTIVES[name],
        *embeddings,
        0.3,
        momentum_invariant=momentum[0],
        momentum_equivariant=momentum[1],
        gradient_shares=world,
        group=group,
    )
    views, changes = [], []
    for stacks in [embeddings, momentum] if name == "mmcr" else [embeddings]:
        a_1, b_1, a_2, b_2 = stacks[0]
        views += [torch.cat([a_1, a_2]), torch.cat([b_1, b_2])]
        a_1, b_1, a_2, b_2 = stacks[1]
        changes += [a_1 - b_1, a_2 - b_2]
    returned = 0.7 * authors_loss(name, views, group, rank, world)
    returned = returned + 0.3 * authors_loss(name, changes, group, rank, world)
    found = []
    for loss in (terms.total, returned):
        (gradient,) = torch.autograd.grad(loss, weights, retain_graph=True)
        found += [mean_over(gradient, group), mean_over(loss.detach(), group)]
    return found


def predicting_gradients(name, group, rank=0, world=1):
    """Loss of an equivariant term of its own, and gradient of weights before it."""
    torch.manual_seed(6)
    inputs = torch.randn(4, N_PAIRS, 6)
    parameters = torch.randn(N_PAIRS, 2, 12)
    weights = torch.randn(6, 5, requires_grad=True)
    term = OBJECTIVES[name].equivariant(5)
    for parameter in term.parameters():
        nn.init.normal_(parameter)
    own = slice(rank * N_PAIRS // world, (rank + 1) * N_PAIRS // world)
    loss = term(inputs[:, own] @ weights, parameters[own], group)
    (gradient,) = torch.autograd.grad(loss, weights)
    return mean_over(gradient, group), loss.detach()


def work(rank, world, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store{world}"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    group = dist.group.WORLD
    results = {k: train_steps(*run, group, rank, world) for k, run in TRAINED.items()}
    results["authors"] = {
        name: authors_gradients(name, group, rank, world) for name in AUTHORS
    }
    for name in PREDICTING:
        results[name] = predicting_gradients(name, group, rank, world)
    results["collectives"] = collectives(group, rank, world)
    torch.save(results, folder / f"{world}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone():
    return {name: train_steps(*run, None, 0, 1) for name, run in TRAINED.items()}


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def together(request, tmp_path_factory):
    """Results of every process, in the order of ranks."""
    folder, world = tmp_path_factory.mktemp("processes"), request.param
    server()  # has imported torch once for all processes
    torch_processes.start_processes(
        work, (world, folder), nprocs=world, start_method="forkserver"
    )
    return [torch.load(folder / f"{world}-{rank}.pt") for rank in range(world)]


@pytest.mark.parametrize("run", TRAINED)
def test_every_process_ends_where_one_alone_does(run, alone, together):
    for results in together:
        assert results[run].keys() == alone[run].keys()
        for name, expected in alone[run].items():
            torch.testing.assert_close(
                results[run][name], expected, rtol=1e-8, atol=1e-9, msg=name
            )


@pytest.mark.parametrize("name", AUTHORS)
def test_the_authors_gradient_is_that_of_their_procedure(name, together):
    for results in together:
        found, loss, expected, returned = results["authors"][name]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(loss, returned, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PREDICTING)
def test_an_equivariant_term_of_its_own_is_that_of_all_rows(name, together):
    expected = predicting_gradients(name, None)
    for results in together:
        torch.testing.assert_close(results[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("run", RUNS)
def test_the_authors_gradient_is_a_share_of_that_of_the_same_loss(run, alone):
    whole, theirs = alone[run], alone[f"{run}, authors' gradient"]
    assert torch.equal(whole["total loss 0"], theirs["total loss 0"])
    shares = theirs["gradient norms 0"] / whole["gradient norms 0"]
    if run == "simclr":  # the share of its rows' own terms is whole
        assert ((shares > 0.5) & (shares != 1)).all()
    else:
        torch.testing.assert_close(shares, torch.full_like(shares, 0.25))


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
