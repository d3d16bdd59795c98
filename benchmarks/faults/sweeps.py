"""A sweep of many jobs among faults, until every row is there, against a run without.

    python -m benchmarks.faults.sweeps slurm 200
    python -m benchmarks.faults.sweeps processes 100

Every few seconds something is killed at random: a job's processes, the driver that
gives jobs to the cluster, the daemon of its node; or a job is queued again, or warned
that its time is over. The same command is given until nothing is left to do. The
cluster is SLURM itself, one node on this machine (root, ``apt install slurm-wlm``).
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ce_align.data.imagesets import ImageSet
from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording
from ce_align.files import scratch_folder
from ce_align.results import ResultStore
from ce_align.runner import run
from ce_align.stages.scores import ScoreConfig

TESTS = Path(__file__).resolve().parents[2] / "tests"
#: Seconds between two faults, at least and at most.
BETWEEN = (0.5, 3.0)
#: Share of looks at which something is disturbed.
SHARE = 0.15
SETTINGS: dict[str, Any] = {
    "model": "pixels",
    "recording": "toy.nc",
    "layer": "pixels",
    "components": 3,
    "splits": 2,
}


def main(where: str, n: int, seed: int = 0) -> None:
    """Run the sweep among faults, and print what happened and whether rows agree."""
    rng = random.Random(seed)
    sys.path.insert(0, str(TESTS))
    with scratch_folder("faults") as folder, ExitStack() as stack:
        os.chdir(folder)
        configs = _prepare(n)
        run(configs, "reference")
        cluster = None
        if where == "slurm":
            from real_slurm import one_node  # type: ignore[import-not-found]

            cluster = stack.enter_context(one_node(folder / "slurm"))
        began, faults, starts = time.monotonic(), Counter[str](), 0
        while _missing(n):
            starts += 1
            _start(where, rng, faults, cluster)
            print(
                f"{time.monotonic() - began:5.0f} s  start {starts}, "
                f"{n - _missing(n)} of {n} rows, faults {dict(faults)}",
                flush=True,
            )
        _compare(n)
        print(f"{starts} starts, {time.monotonic() - began:.0f} s, {dict(faults)}")


def _prepare(n: int) -> list[ScoreConfig]:
    rng = np.random.default_rng(0)
    images = ImageSet.from_array("toy", rng.integers(0, 256, (40, 16, 16, 3), np.uint8))
    responses = rng.normal(size=(40, 4, 3)) + rng.normal(size=(40, 1, 3))
    write_recording(
        Recording("toy", images, responses, ("a", "b", "c"), "IT"), Path("toy.nc")
    )
    plan = {"score": [{**SETTINGS, "seed": list(range(n))}]}
    Path("plan.yaml").write_text(json.dumps(plan))
    return [ScoreConfig(**SETTINGS, seed=seed) for seed in range(n)]


def _missing(n: int) -> int:
    return n - len(list(Path("results/score").glob("[!.]*.json")))


def _start(
    where: str, rng: random.Random, faults: "Counter[str]", cluster: Any
) -> None:
    """Give the command once, and disturb until it and its jobs have ended."""
    command = [sys.executable, "-m", "ce_align", "sweep", "plan.yaml", "--minutes", "0"]
    command += ["--where", where, *(["--jobs", "2"] if where == "processes" else [])]
    with Path("driver.log").open("a") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log)
    while True:
        time.sleep(rng.uniform(*BETWEEN))
        running = driver.poll() is None
        jobs = cluster.ask("squeue", "-h", "-r", "-o", "%i %T") if cluster else ""
        if not running and not jobs:
            return
        # A driver that only submits lives for a few seconds.
        if rng.random() < (0.5 if cluster and running else SHARE):
            _disturb(rng, faults, driver, cluster, jobs)


def _disturb(
    rng: random.Random,
    faults: "Counter[str]",
    driver: "subprocess.Popen[bytes]",
    cluster: Any,
    jobs: str,
) -> None:
    active = [line.split()[0] for line in jobs.splitlines() if "RUNNING" in line]
    what = rng.choice(["kill", "kill", "requeue", "time", "node"])
    if driver.poll() is None and rng.random() < (0.5 if cluster else 0.1):
        what = "driver"
    if what == "driver":
        driver.kill()
    elif what == "kill" and active:
        with suppress(subprocess.CalledProcessError):  # it has just ended
            cluster.ask("scancel", "--signal=KILL", "--full", rng.choice(active))
    elif what == "kill" and cluster is None and (workers := _workers()):
        with suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
    elif what == "time" and active:
        with suppress(subprocess.CalledProcessError):
            cluster.ask("scancel", "--signal=USR2", rng.choice(active))
    elif what == "requeue" and active:
        with suppress(subprocess.CalledProcessError):
            cluster.ask("scontrol", "requeue", rng.choice(active))
    elif what == "node" and cluster is not None:
        cluster.kill_node()
        time.sleep(1)
        cluster.start_node()
    else:
        return
    faults[what] += 1


def _workers() -> list[int]:
    """Processes of workers of this sweep."""
    here, found = str(Path.cwd()), []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            ours = b"ce_align.sweeps.worker" in words
            if ours and str(path.with_name("cwd").readlink()).startswith(here):
                found.append(int(path.parent.name))
    return found


def _compare(n: int) -> None:
    """Every row once, none damaged, equal to those of a run without faults."""

    def rows(folder: str) -> list[str]:
        found = ResultStore(Path(folder)).load("score").to_dict("records")
        return sorted(
            json.dumps({**row, "created": ""}, default=str, sort_keys=True)
            for row in found
        )

    assert rows("results") == rows("reference"), "rows differ"
    left = [str(path) for path in Path("results").rglob("*.tmp*")]
    print(f"{n} rows, each once, equal to the bit; {len(left)} temporary files left")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))
