"""Scores of every time bin against the score of one, from images to rows.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.time_bins``. Both runs are
processes of their own with an empty cache: an untrained ResNet-50 reads 1,000 images
for 168 simulated neuroids, whose responses mean nothing.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.speed._measure import Measured, Rows, command_seconds, main
from ce_align.data.imagesets import ImageSet
from ce_align.data.netcdf import write_recording
from ce_align.data.presentations import Presentations
from ce_align.data.recordings import Recording

WIDTH = 10  # ms


def plant(path: Path, images: int, neuroids: int, bins: int) -> None:
    """Write a recording with time bins."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (images, 64, 64, 3), np.uint8)
    values = rng.normal(size=(images, neuroids, bins)).astype(np.float32)
    once = np.zeros(images, dtype=np.intp)
    starts = WIDTH * np.arange(bins, dtype=np.float64)
    recording = Recording(
        "simulated_bins",
        ImageSet.from_array("noise", pixels),
        Presentations(values, np.arange(images), once),
        tuple(f"n{i}" for i in range(neuroids)),
        "IT",
        origin="simulated",
        time_bins=np.stack([starts, starts + WIDTH], axis=1),
    )
    write_recording(recording, path)


def score(folder: Path, time_asked: str, regression: str) -> float:
    """Seconds of one command."""
    with tempfile.TemporaryDirectory() as empty:
        command = [sys.executable, "-m", "ce_align", "score", "--json"]
        command += ["--model", "torchvision/resnet50:none", "--layer", "layer4"]
        command += ["--recording", str(folder / "bins.nc"), "--time", time_asked]
        command += ["--regression", regression, "--results", f"{empty}/results"]
        return command_seconds(command, env={"CE_ALIGN_HOME": empty})


def rows(images: int = 1000, neuroids: int = 168, bins: int = 30) -> Rows:
    """Every bin at once, against as many scores of one."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        plant(folder / "bins.nc", images, neuroids, bins)
        for regression in ("pls", "ridge"):
            one = score(folder, "0", regression)
            yield Measured(
                f"{regression} of {bins} time bins, {images} images",
                score(folder, "all", regression),
                peer="as many scores of one bin",
                theirs=bins * one,
                floor=one,
                of_floor="one bin",
            )


if __name__ == "__main__":
    main(rows)
