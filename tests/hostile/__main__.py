"""`python -m hostile`: every damaged or hostile input, and how it is answered."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from pkgutil import walk_packages

import ce_align

from .harness import Case, Outcome, attempt, cases_of, families, faults, forked

LIBRARIES = (
    *("h5py", "lightning.pytorch", "matplotlib.pyplot", "pandas", "pyarrow.parquet"),
    *("scipy.io", "seaborn", "timm"),
)
#: Modules that do something when they are imported.
EFFECTS = (
    *("ce_align.__main__", "ce_align.brainscore.registry"),
    "ce_align.brainscore.plugin.probe",
)
#: Where inputs lie, and all of them; forked processes know both.
SCRATCH: Path
INPUTS: list[Case] = []


@dataclass
class Tally:
    """What became of the inputs of a family."""

    n: int
    done: int = 0
    wrong: int = 0
    seconds: float = 0
    slowest: float = 0
    gigabytes: float = 0

    def add(self, outcome: Outcome | None, told: list[str]) -> None:
        """Count an input."""
        self.done += 1
        self.wrong += bool(told)
        if outcome is not None:
            self.seconds += outcome.seconds
            self.slowest = max(self.slowest, outcome.seconds)
            self.gigabytes = max(self.gigabytes, outcome.gigabytes)


def _tried(place: int) -> tuple[Outcome | None, list[str]]:
    return forked(INPUTS[place], SCRATCH / f"{place}", [SCRATCH])


def _load() -> None:
    """Import what commands use, so that forked processes need not."""
    for name in LIBRARIES:
        import_module(name)
    for module in walk_packages(ce_align.__path__, "ce_align."):
        if module.name not in EFFECTS:
            import_module(module.name)


def _run(asked: argparse.Namespace) -> dict[str, Tally]:
    _load()
    tallies = {}
    for family in asked.family or families():
        found = cases_of(family, asked.seed)
        # The first is sound: tried here, it loads the libraries for all others.
        list(faults(found[0], attempt(found[0], SCRATCH / family), [SCRATCH]))
        found = [c for c in found if asked.case in c.name][:: asked.every]
        tallies[family] = Tally(len(found))
        INPUTS.extend(found)
    with ProcessPoolExecutor(asked.jobs, get_context("fork")) as pool:
        answers = pool.map(_tried, range(len(INPUTS)))
        for case, (outcome, told) in zip(INPUTS, answers, strict=True):
            family = case.name.partition("/")[0]
            tally = tallies[family]
            tally.add(outcome, told)
            for fault in told:
                print(f"{case.name}: {fault}", flush=True)
            if outcome is not None and asked.show:
                answer = "\n  ".join(outcome.lines[-12:])
                print(f"{case.name}: {outcome.status}\n  {answer}", flush=True)
            if tally.done == tally.n:
                print(
                    f"{family}: {tally.n} inputs, {tally.wrong} answered wrongly; "
                    f"{tally.seconds:.0f} s, at most {tally.slowest:.1f} s and "
                    f"{tally.gigabytes:.2f} GB",
                    flush=True,
                )
    return tallies


def main() -> int:
    """Try the inputs; 1 if one of them is answered wrongly."""
    global SCRATCH
    parser = argparse.ArgumentParser(prog="python -m hostile")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--family", action="append", help="Only this one. Repeatable.")
    parser.add_argument("--case", default="", help="Only those with this in the name.")
    parser.add_argument("--every", type=int, default=1, help="Only each n-th.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="Processes.")
    parser.add_argument("--show", action="store_true", help="Show every answer.")
    asked = parser.parse_args()
    sys.dont_write_bytecode = True
    SCRATCH = Path(tempfile.mkdtemp(prefix="hostile-"))
    caches = ("CE_ALIGN_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR")
    for name in (*caches, "TMPDIR"):
        (SCRATCH / name.lower()).mkdir()
        os.environ[name] = str(SCRATCH / name.lower())
    os.environ["BS_INSTALL_DEPENDENCIES"] = "no"
    # A shell's background jobs ignore Ctrl-C, and so would every process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("CE_ALIGN_IMAGENET", None)
    tempfile.tempdir = None
    began = time.monotonic()
    try:
        tallies = _run(asked)
    finally:
        shutil.rmtree(SCRATCH, ignore_errors=True)
    n, wrong = len(INPUTS), sum(tally.wrong for tally in tallies.values())
    took = time.monotonic() - began
    print(f"{n} inputs, {wrong} answered wrongly; {took:.0f} s")
    return int(wrong > 0)


sys.exit(main())
