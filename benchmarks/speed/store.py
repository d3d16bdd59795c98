"""Plans and states of many stored configurations, with an index and without.

Run with ``python -m benchmarks.speed.store``. The rows are simulated: nothing is
scored. Times are of the CPU; on a network file system every file that is read costs a
round trip or two on top, which is what the index is for.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.speed._machine import describe
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


def seconds(function: Callable[[], object]) -> float:
    """Time of the CPU that a call takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    """Print seconds and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", type=int, default=10_000)
    n = parser.parse_args().configs
    print(describe())
    configs = [
        ScoreConfig(
            model=f"runs/{i // 40}",
            recording="simulated",
            layer=f"layer{i // 10 % 4}",
            seed=i % 10,
        )
        for i in range(n)
    ]
    with tempfile.TemporaryDirectory() as made:
        os.environ["CE_ALIGN_HOME"] = f"{made}/home"
        store = ResultStore(Path(made) / "results")
        print(
            f"plan of {n:,}, none stored: {seconds(lambda: plan(configs, store)):.2f} s"
        )
        print(f"storing them: {seconds(lambda: fill(store, configs)):.1f} s")
        time.sleep(index.SETTLED + 1)
        asked = {
            "plan": lambda: plan(configs, store),
            "rows": lambda: store.load(),
            "states": lambda: states(store, Wanted()),
        }
        first = seconds(asked["plan"])
        print(f"first plan, which makes the index: {first:.2f} s")
        few = index.FEW
        for what, function in asked.items():
            index.FEW = few
            with_index = seconds(function)
            index.FEW = n + 1
            without = seconds(function)
            print(
                f"{what}: {with_index:.2f} s with the index, {without:.2f} s without, "
                f"{without / with_index:.1f}×"
            )


if __name__ == "__main__":
    main()
