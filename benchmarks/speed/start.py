"""What is stored, asked for again: seconds beyond the import of torch.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.start

The score of a ResNet-50, whose identity and outputs are checked as always; and the
same where torchvision has brought the compiler of torch, as it does by itself. Seconds
of the processor, which other processes change little; the least of five starts.
"""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.speed._machine import describe
from ce_align.data.netcdf import write_recording
from ce_align.data.simulation import simulated_recording
from ce_align.files import scratch_folder

SCORE = """
import sys
from ce_align.cli.app import main
sys.argv = ["ce-align", "score", "--model", "torchvision/resnet50:none",
            "--recording", "toy.nc", "--layer", "layer4", "--json"]
sys.exit(main())
"""


def seconds(code: str, starts: int = 5) -> float:
    """Seconds of the processor that a program takes, the least of several starts."""
    least = float("inf")
    for _ in range(starts):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = os.times()
        user = after.children_user - before.children_user
        least = min(least, user + after.children_system - before.children_system)
    return least


def main() -> None:
    """Print how long torch takes, and what comes on top of it."""
    print(describe())
    with scratch_folder("start") as folder:
        os.environ["CE_ALIGN_HOME"] = str(folder / "home")
        os.chdir(folder)
        made = simulated_recording(n_images=320, n_neuroids=8).recording
        write_recording(made, Path("toy.nc"))
        seconds(SCORE, 1)
        torch = seconds("import torch")
        with_compiler = seconds(f"import torch, torchvision{SCORE}")
        print(f"import torch                        {torch:5.2f} s")
        print(f"stored score, beyond it             {seconds(SCORE) - torch:5.2f} s")
        print(f"... with the compiler of torch      {with_compiler - torch:5.2f} s")


if __name__ == "__main__":
    main()
