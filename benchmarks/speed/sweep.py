"""Seconds to plan a sweep of 10,000 configurations, and to say how it stands.

    python -m benchmarks.speed.sweep

Half of the results are there. Planned twice, as a user would: before, and to go on.
"""

import time
from pathlib import Path

from ce_align.files import scratch_folder
from ce_align.results import ResultStore, Row
from ce_align.stages.scores import ScoreConfig
from ce_align.sweeps.board import Board
from ce_align.sweeps.start import planned, standing

from ._machine import describe

N = 10_000


def main() -> None:
    """Print the seconds of each."""
    print(describe())
    configs = [
        ScoreConfig(model=f"torchvision/net{i // 10}", recording=f"r{i % 10}.nc")
        for i in range(N)
    ]
    with scratch_folder("sweep") as folder:
        store = ResultStore(Path(folder))
        for i, config in enumerate(configs[: N // 2]):
            row = Row(stage="score", model="m", metric="pls", value=0.5, config_id="x")
            store.put("score", f"{i:08d}", config, [row])
        board = Board(store)
        for what in ("first", "again"):
            start = time.perf_counter()
            sweep, rest = planned(configs, store)
            planning = time.perf_counter() - start
            board.write_sweep(sweep)
            for job in sweep.jobs[::3]:
                board.end(job.id)
            start = time.perf_counter()
            found = standing(board.read_sweep(only=""), board)
            seconds = time.perf_counter() - start
            n_done = sum(one.state == "done" for one in found)
            print(
                f"{what}: {len(sweep.jobs)} jobs, {len(rest)} to be run, planned in "
                f"{planning:.2f} s; {n_done} done, status in {seconds:.2f} s"
            )


if __name__ == "__main__":
    main()
