"""A score from its command to its row: the share of the network's products, and memory.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.score``. The command starts with
an empty cache; an untrained ResNet-50 reads the images for simulated neuroids. What it
cannot do without are the passes of the folded network over as many images, and the Gram
matrix of the features, which grows with the square of their number.
"""

import resource
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed._measure import Measured, Rows, best_of, command_seconds, main
from ce_align.data.netcdf import write_recording
from ce_align.data.simulation import simulated_recording
from ce_align.files import scratch_folder
from ce_align.metrics.gram import centred_gram
from ce_align.models.activations import ActivationReader
from ce_align.models.devices import accelerated
from ce_align.models.load import load_network

#: Images that the passes are measured on.
N_PASSED = 64


def seconds_of_a_pass(model: str, layer: str) -> tuple[float, int]:
    """Of the folded network, for an image, and how many features it gives."""
    network = load_network(model)
    pixels = np.random.default_rng(0).integers(
        0, 256, (N_PASSED, 224, 224, 3), np.uint8
    )
    inputs = network.preprocessing.normalise(torch.from_numpy(pixels))
    fast = accelerated(network.module, [layer], inputs[:1])
    widths: list[int] = []

    def passes() -> None:
        with ActivationReader(fast, [layer]) as read:
            for batch in torch.split(inputs, 16):
                widths.append(read(batch)[layer].shape[1])

    return best_of(passes, 2) / N_PASSED, widths[0]


def rows(
    images: int = 3200,
    neuroids: int = 168,
    model: str = "torchvision/resnet50:none",
    layer: str = "layer4",
) -> Rows:
    """Seconds and peak memory of one command."""
    with scratch_folder("score") as folder:
        made = simulated_recording(n_images=images, n_neuroids=neuroids).recording
        write_recording(made, Path(folder) / "toy.nc")
        command = [sys.executable, "-m", "ce_align", "score", "--json"]
        command += ["--model", model, "--layer", layer]
        command += ["--recording", str(folder / "toy.nc")]
        command += ["--results", str(folder / "results")]
        seconds = command_seconds(command, env={"CE_ALIGN_HOME": str(folder / "home")})
        unit = 1 if sys.platform == "darwin" else 1024
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        memory = usage.ru_maxrss * unit / 1e9
    each, width = seconds_of_a_pass(model, layer)
    part = np.random.default_rng(0).random((images, min(width, 4096)), np.float32)
    gram = best_of(lambda: centred_gram(part), 1) * width / part.shape[1]
    job = f"score of {model} {layer} on {images} images and {neuroids} neuroids"
    for of_floor, floor in (
        ("the network's products", images * each),
        ("these and the Gram matrix", images * each + gram),
    ):
        yield Measured(job, seconds, floor=floor, of_floor=of_floor, at_most=1 / 0.9)
    yield Measured(
        f"peak memory of the {job}",
        memory,
        "GB",
        peer="the memory allowed",
        theirs=4.0,
        floor=4 * images * width / 1e9,
        of_floor="the features",
        at_least=1,
    )


if __name__ == "__main__":
    main(rows)
