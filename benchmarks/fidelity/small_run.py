"""Are all rows the same before and after a change of the code, or on two machines?

    python -m benchmarks.fidelity.small_run before.json     # in the tree before
    python -m benchmarks.fidelity.small_run after.json      # in the tree after
    python -m benchmarks.fidelity.small_run before.json after.json

The run is small and fixed: four trainings of an epoch; scores with PLS and ridge; every
analysis; an overlap; a transfer; imported scores; correlations. It takes four minutes
on one core. A change of the code must change nothing. Another Python, number of threads
or processor changes last digits, which trainings let grow: networks are trained once.

    python -m benchmarks.fidelity.small_run one.json --runs runs
    OMP_NUM_THREADS=2 python -m benchmarks.fidelity.small_run two.json --runs runs
    python -m benchmarks.fidelity.small_run one.json two.json --tolerance 1e-5

Differences are relative to the larger of the number and .01. With a tolerance, digests
of views and correlations, which follow from last digits, are not compared.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TRAIN = (
    "train --objective {} --weight {} --images simulated --preset tiny --epochs 1 "
    "--out {} --devices 1 --precision 32"
)
VIEWS = (
    "--images simulated --comparisons 20 --views 8 --crops 5 --photometrics 5 "
    "--repeats 2 --size 32 --family tiny"
)
TRAININGS = {
    "a": ("mmcr", 0),
    "b": ("mmcr", 0.3),
    "c": ("barlow", 0.3),
    "d": ("simclr", 0),
}
COMMANDS = (
    "score --model pixels --model gabor --model runs/a --model runs/b --model runs/c "
    "--model runs/d --recording simulated",
    "score --model torchvision/resnet18:none --recording simulated --layer layer4 "
    "--layer layer3 --ceiling variance",
    "score --model pixels --model runs/a --recording simulated --regression ridge",
    "score --model runs/a --recording simulated --regression ridge --alpha 1 --seed 3 "
    "--splits 4",
    "score --model gabor --recording simulated --pls-mode exact --components 10 "
    "--gram-dtype float32",
    f"analyze --metric all --model runs/a --model runs/c --model runs/d {VIEWS}",
    f"analyze --metric all --model runs/b --baseline runs/a {VIEWS}",
    f"analyze --metric bures --metric decoding --model gabor --model pixels {VIEWS}",
    "overlap --model runs/a --model runs/b --recording simulated",
    "transfer --model runs/a --model pixels --dataset data --repeats 2 --size 32",
    "transfer --online --model runs/a --model runs/b",
    "import-scores imported.csv",
    "correlate",
    "correlate --against simulated --seed 2",
)

#: Columns that two runs of one code differ in.
PASSING = ("created", "version")

#: Columns that follow from last digits of others.
DERIVED = ("views_digest", "note")

#: Columns that name a row.
NAMING = ("stage", "config_id", "model", "metric", "measure", "recording", "target")


def write_inputs(folder: Path) -> None:
    """Labelled images and a table of scores."""
    for part, n in (("train", 12), ("test", 6)):
        for label in range(3):
            place = folder / "data" / part / f"class{label}"
            place.mkdir(parents=True)
            for k in range(n):
                rng = np.random.default_rng([label, k, n])
                coarse = rng.integers(0, 255, (5, 5, 3), np.uint8)
                Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)).save(
                    place / f"{k}.png"
                )
    (folder / "imported.csv").write_text(
        "model,benchmark,score\na,MajajHong2015public.IT-pls,0.25\n"
        "b,MajajHong2015public.IT-pls,0.31\n"
    )


def rows_of(results: Path) -> Iterator[dict[str, Any]]:
    """Every stored row with its stage, without what passes."""
    for path in sorted(results.glob("*/*.json")):
        document = json.loads(path.read_text())
        for row in document["rows"]:
            yield {
                "stage": document["stage"],
                **{k: v for k, v in row.items() if k not in PASSING},
            }


def execute(out: Path, runs: Path | None) -> None:
    """Run the commands in a folder of their own, and write all rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        if runs:
            runs.mkdir(parents=True, exist_ok=True)
            (folder / "runs").symlink_to(runs.resolve())
        commands = [
            TRAIN.format(*settings, f"runs/{network}")
            for network, settings in TRAININGS.items()
            if not (folder / "runs" / network / "model.safetensors").exists()
        ]
        environment = {
            "OMP_NUM_THREADS": "1",
            **os.environ,
            "PYTHONPATH": str(Path.cwd()),
            "CE_ALIGN_HOME": str(folder / "home"),
        }
        for command in (*commands, *COMMANDS):
            print(f"$ ce-align {command}", flush=True)
            subprocess.run(
                [sys.executable, "-m", "ce_align", *command.split()],
                cwd=folder,
                env=environment,
                check=True,
                capture_output=True,
            )
        rows = list(rows_of(folder / "results"))
    out.write_text(json.dumps(rows, indent=1))
    print(dict(Counter(row["stage"] for row in rows)))


def compare(before: Path, after: Path, tolerance: float) -> int:
    """Print what differs; columns that were added are no difference."""
    first, second = (json.loads(path.read_text()) for path in (before, after))
    if tolerance:
        # Correlations are of the other rows, and their identities of last digits.
        first, second = (
            [
                {k: v for k, v in row.items() if k not in DERIVED}
                for row in rows
                if row["stage"] != "correlate"
            ]
            for rows in (first, second)
        )
    by_name = {name_of(row): row for row in second}
    n_different = len({name_of(r) for r in first} ^ by_name.keys())
    worst: dict[str, tuple[float, str]] = {}
    for row in first:
        name = name_of(row)
        other = by_name.get(name, {})
        apart = {key: difference(row[key], other.get(key)) for key in row}
        column = max(apart, key=apart.__getitem__)
        stage = row["stage"]
        worst[stage] = max(
            worst.get(stage, (-1.0, "")), (apart[column], f"{column} of {name}")
        )
        if differing := [key for key in row if apart[key] > tolerance]:
            n_different += 1
            print(name, {key: (row[key], other.get(key)) for key in differing})
    for stage, (size, where) in worst.items():
        print(f"{stage:12} differs by at most {size:.1e}: {where}")
    print(f"{len(first)} and {len(second)} rows, {n_different} differ")
    return min(n_different, 1)


def difference(first: Any, second: Any) -> float:
    """0 where two values are equal, relative for numbers, infinite for what is not."""
    if first == second:
        return 0.0
    if isinstance(first, dict) and isinstance(second, dict):
        keys = first.keys() | second.keys()
        return max(difference(first.get(key), second.get(key)) for key in keys)
    if isinstance(first, list) and isinstance(second, list):
        if len(first) != len(second):
            return float("inf")
        return max(difference(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) / max(abs(first), abs(second), 0.01)
    return float("inf")


def name_of(row: dict[str, Any]) -> str:
    """What tells a row from all others."""
    return " ".join(str(row.get(name)) for name in NAMING)


def main() -> int:
    """Run, or compare two runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "rows", type=Path, nargs="+", help="one to write, two to compare"
    )
    parser.add_argument("--runs", type=Path, help="folder of networks, trained once")
    parser.add_argument("--tolerance", type=float, default=0.0)
    options = parser.parse_args()
    if len(options.rows) == 2:
        before, after = options.rows
        return compare(before, after, options.tolerance)
    execute(options.rows[0], options.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
