"""What is stored, asked for again: seconds beyond the import of torch.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.start

The score of a ResNet-50, whose identity and outputs are checked as always; and the
same where torchvision has brought the compiler of torch, as it does by itself. Seconds
of the processor, which other processes change little; the least of five starts.
"""

import os
import sys
from pathlib import Path

from benchmarks.speed._measure import Measured, Rows, command_seconds, main, run_command
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


def rows(starts: int = 5) -> Rows:
    """With and without the compiler of torch; the first start computes the score."""
    from json import loads

    with scratch_folder("start") as folder:
        os.environ["CE_ALIGN_HOME"] = str(folder / "home")
        os.chdir(folder)
        made = simulated_recording(n_images=320, n_neuroids=8).recording
        write_recording(made, Path("toy.nc"))
        codes = [SCORE, f"import torch, torchvision{SCORE}"]
        for code in codes:
            if not loads(run_command([sys.executable, "-c", code]))[0]["value"]:
                raise ValueError("no score was stored")
        torch, *whole = (
            command_seconds([sys.executable, "-c", code], starts)
            for code in ("import torch", *codes)
        )
        for what, seconds in zip(
            ("", ", with the compiler of torch"), whole, strict=True
        ):
            yield Measured(
                f"a stored score of ResNet-50, asked for again{what}, beyond torch",
                seconds - torch,
                peer="the time allowed",
                theirs=1.5,
                at_least=1,
                note=f"import torch takes {torch:.2f} s",
            )


if __name__ == "__main__":
    main(rows)
