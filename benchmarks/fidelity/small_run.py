"""Are all rows the same before and after a change of the code, to the last digit?

    python -m benchmarks.fidelity.small_run before.json     # in the tree before
    python -m benchmarks.fidelity.small_run after.json      # in the tree after
    python -m benchmarks.fidelity.small_run before.json after.json

The run is small and fixed: four trainings of an epoch; scores with PLS and ridge; every
analysis; an overlap; a transfer; imported scores; correlations. It takes four minutes
on one core. Last digits depend on the machine, so both runs are of one machine.
"""

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
    "--out runs/{} --devices 1 --precision 32"
)
VIEWS = (
    "--images simulated --comparisons 20 --views 8 --crops 5 --photometrics 5 "
    "--repeats 2 --size 32 --family tiny"
)
COMMANDS = (
    TRAIN.format("mmcr", 0, "a"),
    TRAIN.format("mmcr", 0.3, "b"),
    TRAIN.format("barlow", 0.3, "c"),
    TRAIN.format("simclr", 0, "d"),
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


def execute(out: Path) -> None:
    """Run the commands in a folder of their own, and write all rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        home = {"CE_ALIGN_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
        for command in COMMANDS:
            print(f"$ ce-align {command}", flush=True)
            subprocess.run(
                [sys.executable, "-m", "ce_align", *command.split()],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(Path.cwd()), **home},
                check=True,
                capture_output=True,
            )
        rows = list(rows_of(folder / "results"))
    out.write_text(json.dumps(rows, indent=1))
    print(dict(Counter(row["stage"] for row in rows)))


def compare(before: Path, after: Path) -> int:
    """Print what differs; columns that were added are no difference."""
    first, second = (json.loads(path.read_text()) for path in (before, after))
    by_name = {name_of(row): row for row in second}
    n_different = len({name_of(r) for r in first} ^ by_name.keys())
    for row in first:
        other = by_name.get(name_of(row), {})
        differing = [k for k in row if k not in other or row[k] != other[k]]
        if differing:
            n_different += 1
            shown = {k: (row[k], other.get(k)) for k in differing}
            print(name_of(row), shown)
    print(f"{len(first)} and {len(second)} rows, {n_different} differ")
    return min(n_different, 1)


def name_of(row: dict[str, Any]) -> str:
    """What tells a row from all others."""
    names = ("stage", "config_id", "model", "metric", "measure", "recording", "target")
    return " ".join(str(row.get(name)) for name in names)


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    if len(paths) == 2:
        sys.exit(compare(*paths))
    execute(paths[0])
