"""Plans and states of many stored configurations, with an index and without.

Run with ``python -m benchmarks.speed.store``. The rows are simulated: nothing is
scored. Times are of the CPU; on a network file system every file that is read costs a
round trip or two on top, which is what the index is for.
"""

import os
import tempfile
import time
from pathlib import Path

from benchmarks.speed._measure import Measured, Rows, best_of, main
from ce_align import index
from ce_align.report.states import Wanted, states
from ce_align.results import ResultStore
from ce_align.runner import plan
from ce_align.stages.scores import ScoreConfig, ScoreRow

SKETCH = [[69.30215 + i for i in range(64)]] * 2


def fill(store: ResultStore, configs: list[ScoreConfig]) -> None:
    """Store a row of each configuration, and what a network behind it computes."""
    for config in configs:
        config_id = config.fingerprint()
        row = ScoreRow(
            **config.model_dump(include={"model", "recording", "layer", "seed"}),
            metric="pearson",
            value=0.5,
            config_id=config_id,
            origin="simulated",
            region="IT",
            raw=0.5,
            error=0.01,
            ceiling=0.8,
            regression="pls",
            n_stimuli=640,
            n_neuroids=96,
            n_splits=10,
            model_digest="0" * 20,
            recording_digest="0" * 20,
        )
        behaviour = {"precision": "float32", "width": 25088, "sketch": SKETCH}
        store.put("score", config_id, config, [row], behaviours=[behaviour])


def rows(configs: int = 10_000) -> Rows:
    """Plans, rows and states, with the index and without."""
    asked = [
        ScoreConfig(
            model=f"runs/{i // 40}",
            recording="simulated",
            layer=f"layer{i // 10 % 4}",
            seed=i % 10,
        )
        for i in range(configs)
    ]
    with tempfile.TemporaryDirectory() as made:
        os.environ["CE_ALIGN_HOME"] = f"{made}/home"
        store = ResultStore(Path(made) / "results")
        of = f"{configs:,} configurations"
        nothing = best_of(lambda: plan(asked, store), 1)
        yield Measured(f"plan of {of}, none stored", nothing)
        yield Measured(f"storing {of}", best_of(lambda: fill(store, asked), 1))
        time.sleep(index.SETTLED + 1)
        first = best_of(lambda: plan(asked, store), 1)
        yield Measured(f"first plan of {of}, which makes the index", first)
        few = index.FEW
        for what, function in {
            "plan": lambda: plan(asked, store),
            "rows": lambda: store.load(),
            "states": lambda: states(store, Wanted()),
        }.items():
            index.FEW = few
            ours = best_of(function, 1)
            index.FEW = configs + 1
            theirs = best_of(function, 1)
            index.FEW = few
            yield Measured(
                f"{what} of {of}, with the index", ours, peer="without", theirs=theirs
            )


if __name__ == "__main__":
    main(rows)
