"""A training whose jobs run out of time on SLURM, against one that is left alone.

    python -m benchmarks.faults.timeouts [MINUTES]

The time of a job is shorter than the training: SLURM warns it, it stops at a step that
its checkpoint holds, is queued again and goes on from there. The cluster is SLURM
itself, one node on this machine (root, ``apt install slurm-wlm``), which waits two
minutes before it starts a job again.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.faults.sweeps import TESTS
from ce_align.files import scratch_folder
from ce_align.runner import run
from ce_align.stages.train import training_folder
from ce_align.trainer.presets import preset_config

EPOCHS = 24


def main(minutes: int = 3) -> None:
    """Train on the cluster until it is done, then here, and compare the weights."""
    from real_slurm import one_node  # type: ignore[import-not-found]

    config = preset_config(
        "tiny", "mmcr", equivariance_weight=0.3, images="simulated", epochs=EPOCHS
    )
    weights = training_folder(config, Path("runs")) / "model.safetensors"
    with scratch_folder("timeouts") as folder:
        os.chdir(folder)
        Path("plan.yaml").write_text(
            "train:\n- {objective: mmcr, equivariance_weight: 0.3, preset: tiny, "
            f"images: simulated, epochs: {EPOCHS}}}\n"
        )
        began, starts = time.monotonic(), 0
        with one_node(folder / "slurm") as cluster:
            command = [sys.executable, "-m", "ce_align", "sweep", "plan.yaml"]
            command += ["--where", "slurm", "--slurm", f"time={minutes}"]
            subprocess.run(command, check=True)
            state = ""
            while jobs := cluster.ask("squeue", "-h", "-o", "%T %r"):
                if jobs != state:
                    print(f"{time.monotonic() - began:5.0f} s  {jobs.strip()}")
                    sys.stdout.flush()
                starts += jobs.startswith("RUNNING") and not state.startswith("RUNNING")
                state = jobs
                time.sleep(1)
        print(f"{time.monotonic() - began:.0f} s, begun {starts} times")
        assert starts > 1, "it was done before its time was over; take more epochs"
        found = weights.read_bytes()
        alone = folder / "alone"
        outcome = run([config], alone / "results", runs=alone / "runs")
        assert not outcome.failures, outcome.failures
        equal = found == (alone / weights).read_bytes()
        print(f"weights {'are equal to the bit' if equal else 'DIFFER'}")
        assert equal


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    main(*map(int, sys.argv[1:]))
