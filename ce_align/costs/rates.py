"""How fast a machine is: measured in a minute and kept, or published."""

import io
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ce_align.digests import digest_json
from ce_align.environment import processor
from ce_align.files import atomic_path, cache_folder, read_bytes, scratch_folder
from ce_align.progress import Progress, silent

if TYPE_CHECKING:
    import torch

__all__ = ["MACHINES", "USUAL", "Rates", "measure", "stored_rates"]

#: Seconds that each measurement takes, at least.
SECONDS = 2.0
#: Pixels of the views that are rendered, and of the images that networks are shown.
SMALL, LARGE = 32, 224


@dataclass(frozen=True)
class Rates:
    """Work in a second, of one process with all the threads that it has.

    Attributes
    ----------
    machine : what was measured, or assumed
    decoded : megapixels of JPEG images
    views : views that are rendered, whatever their size
    rendered : megapixels of views
    small, large : 10⁹ operations of a network that needs few (10⁷) for an image, and
        many (4 · 10⁹)
    trained : 10⁹ operations of training, forward and backward, of a small network
    products : 10⁹ operations of dense products in single precision
    decomposed : 10⁹ n³ of decompositions of n × n matrices in double precision
    written : megabytes to the disk of the caches
    starts : processes that have imported what a stage needs
    """

    machine: str
    decoded: float
    views: float
    rendered: float
    small: float
    large: float
    trained: float
    products: float
    decomposed: float
    written: float
    starts: float


#: Of one core of a usual server, until `measure` was run.
USUAL = Rates(
    "one usual core, not measured: ce-align benchmark",
    decoded=60,
    views=4000,
    rendered=25,
    small=20,
    large=60,
    trained=25,
    products=70,
    decomposed=2,
    written=500,
    starts=0.15,
)


def _of_gpu(name: str, peak: float, cores: int) -> Rates:
    """A GPU of `peak` 10¹² operations a second, and so many cores that decode.

    The authors' 15 hours a network on eight A100 are 5 % of the peak, views and data
    included; a ResNet-50 alone is trained at a fifth of it in published benchmarks.
    Between them lies a tenth, which is assumed.
    """
    reached = 1e3 * peak / 10
    return Rates(
        name,
        decoded=cores * USUAL.decoded,
        views=cores * USUAL.views,
        rendered=cores * 100.0,
        small=reached / 10,
        large=reached,
        trained=reached,
        products=1e3 * peak / 4,
        decomposed=cores * USUAL.decomposed,
        written=1000,
        starts=USUAL.starts,
    )


def _of_cores(n: int) -> Rates:
    several = {
        name: n * value
        for name, value in asdict(USUAL).items()
        if name not in ("machine", "written", "starts")
    }
    return Rates(f"{n} cores", written=USUAL.written, starts=USUAL.starts, **several)


#: Machines that nobody measured here: published peaks in half precision (NVIDIA's data
#: sheets: 989 and 312 · 10¹² operations a second, dense) times a share.
MACHINES = {
    "one H100": _of_gpu("one H100", 989, 16),
    "8 × A100": _of_gpu("8 × A100", 8 * 312, 64),
    "8 cores": _of_cores(8),
}


def stored_rates() -> Rates:
    """What was measured on this machine with as many threads; else `USUAL`."""
    try:
        return TypeAdapter(Rates).validate_json(read_bytes(_file()))
    except (OSError, ValidationError):
        return USUAL


def measure(progress: Progress = silent) -> Rates:
    """Measure this machine, in about a minute, and keep it.

    Meanwhile it should do nothing else.
    """
    import torch

    from ce_align.backbones import TinyResNet

    steps: dict[str, Callable[[], float]] = {
        "decoded": _decoded,
        "views": lambda: _rendered(SMALL),
        "rendered": lambda: _rendered(LARGE),
        "small": lambda: _shown(TinyResNet(), SMALL, 256),
        "large": lambda: _shown(_resnet(), LARGE, 8),
        "trained": lambda: _trained(TinyResNet(), SMALL, 256),
        "products": _products,
        "decomposed": _decomposed,
        "written": _written,
        "starts": _starts,
    }
    found = {}
    for place, (name, step) in enumerate(steps.items()):
        progress("benchmark", place, len(steps))
        found[name] = step()
    progress("benchmark", len(steps), len(steps))
    # A view costs something whatever its size, and something for each pixel.
    small, large = 1 / found["views"], 1 / found["rendered"]
    a_pixel = max(large - small, 0.1 * large) / (LARGE**2 - SMALL**2)
    found["views"] = 1 / max(small - SMALL**2 * a_pixel, 0.1 * small)
    found["rendered"] = 1 / a_pixel / 1e6
    threads = torch.get_num_threads()
    rates = Rates(
        f"{processor()}, {threads} thread{'s' if threads > 1 else ''}", **found
    )
    with atomic_path(_file()) as temporary:
        temporary.write_text(json.dumps(asdict(rates), indent=1) + "\n")
    return rates


def _file() -> Path:
    """Where the rates of this machine are, with as many threads."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    names = [platform.node(), processor(), str(os.cpu_count()), threads]
    return cache_folder("rates") / f"{digest_json(names)[:12]}.json"


def _rate(call: Callable[[], object], amount: float, *, waits: bool = False) -> float:
    """Amount of work in a second, at best, after one call that warms up.

    One thread is timed by what the processor gives it, so that other processes change
    little; what `waits` for the disk or for other processes, by the clock.
    """
    import torch

    alone = torch.get_num_threads() == 1 and not waits
    now = time.process_time if alone else time.perf_counter
    call()
    best, began = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - began < SECONDS:
        start = now()
        call()
        best = min(best, now() - start)
    return amount / best


def _decoded() -> float:
    from PIL import Image

    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
    held = io.BytesIO()
    coarse.resize((500, 375)).save(held, "JPEG", quality=90)
    return _rate(
        lambda: Image.open(io.BytesIO(held.getvalue())).convert("RGB"), 500 * 375 / 1e6
    )


def _rendered(size: int) -> float:
    from ce_align.augment.parameters import sample
    from ce_align.augment.transforms import apply

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (375, 500, 3), np.uint8)
    sizes = np.tile([375, 500], (16, 1))
    ledger = sample("strong", 16, rng, sizes=sizes)
    return _rate(lambda: apply(image, ledger, size), 16)


def _resnet() -> "torch.nn.Module":
    from ce_align.vision import models

    network: torch.nn.Module = models.resnet18()
    return network


def _shown(network: "torch.nn.Module", size: int, n: int) -> float:
    import torch

    from ce_align.costs.operations import operations_of

    network.eval()
    images = torch.rand(n, 3, size, size)
    with torch.inference_mode():
        return _rate(lambda: network(images), n * operations_of(network, size) / 1e9)


def _trained(network: "torch.nn.Module", size: int, n: int) -> float:
    import torch

    from ce_align.costs.operations import operations_of

    images = torch.rand(n, 3, size, size)
    amount = 3 * n * operations_of(network, size) / 1e9
    return _rate(lambda: network(images).square().sum().backward(), amount)


def _products() -> float:
    a = np.random.default_rng(0).random((1500, 1500), np.float32)
    return _rate(lambda: a @ a, 2 * 1500**3 / 1e9)


def _decomposed() -> float:
    a = np.random.default_rng(0).random((600, 600))
    a += a.T
    return _rate(lambda: np.linalg.eigh(a), 600**3 / 1e9)


def _written() -> float:
    block = np.random.default_rng(0).bytes(2**25)
    with scratch_folder("benchmark", cache_folder("rates")) as folder:

        def write() -> None:
            with (folder / "block").open("wb") as file:
                file.write(block)
                os.fsync(file.fileno())

        return _rate(write, len(block) / 1e6, waits=True)


def _starts() -> float:
    rooms = ("vision", "stages.score", "stages.analyze")
    code = "import torch, " + ", ".join(f"ce_align.{room}" for room in rooms)
    for _ in range(2):  # the first reads the disk
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True)
        after = os.times()
    return 1 / (
        after.children_user
        - before.children_user
        + after.children_system
        - before.children_system
    )
