"""Seconds to plan a sweep of 10,000 configurations, and to say how it stands.

    python -m benchmarks.speed.sweep

Half of the results are there. Planned twice, as a user would: before, and to go on.
"""

from pathlib import Path
from typing import Any

from benchmarks.speed._measure import Measured, Rows, best_of, main
from ce_align.files import scratch_folder
from ce_align.results import ResultStore, Row
from ce_align.stages.scores import ScoreConfig
from ce_align.sweeps.board import Board
from ce_align.sweeps.start import planned, standing


def rows(configs: int = 10_000) -> Rows:
    """Planned twice, as a user would: before, and to go on."""
    asked = [
        ScoreConfig(model=f"torchvision/net{i // 10}", recording=f"r{i % 10}.nc")
        for i in range(configs)
    ]
    with scratch_folder("sweep") as folder:
        store = ResultStore(Path(folder))
        for i, config in enumerate(asked[: configs // 2]):
            row = Row(stage="score", model="m", metric="pls", value=0.5, config_id="x")
            store.put("score", f"{i:08d}", config, [row])
        board = Board(store)
        for what in ("first", "again"):
            plans: list[tuple[Any, Any]] = []
            planning = best_of(lambda: plans.append(planned(asked, store)), 1)  # noqa: B023
            sweep, rest = plans[0]
            board.write_sweep(sweep)
            for job in sweep.jobs[::3]:
                board.end(job.id)
            found: list[Any] = []
            seconds = best_of(
                lambda: found.extend(standing(board.read_sweep(only=""), board)),  # noqa: B023
                1,
            )
            n_done = sum(one.state == "done" for one in found)
            note = f"{len(sweep.jobs)} jobs, {len(rest)} to be run, {n_done} done"
            of = f"a sweep of {configs:,}, {what}"
            yield Measured(f"plan of {of}", planning, note=note)
            yield Measured(f"status of {of}", seconds, note=note)


if __name__ == "__main__":
    main(rows)
