"""What a measurement of speed is made of: seconds, rows, and the machine they hold for.

A benchmark is a module with a generator `rows`, whose arguments are its sizes. Alone it
prints its rows; ``python -m benchmarks.speed`` runs all and writes one table.
"""

import argparse
import inspect
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

__all__ = [
    *("Measured", "Rows", "best_of", "command_seconds", "describe", "in_turns"),
    *("document", "main", "markdown", "peak_memory", "run_command", "versions"),
]

#: Whose versions a table states.
PACKAGES = ("ce_align", "numpy", "scipy", "scikit-learn", "torch", "torchvision")


@dataclass(frozen=True)
class Measured:
    """A job, what it costs, and what it is compared with; less is better throughout.

    Attributes
    ----------
    job : what is done, with its size
    ours, theirs, floor : in `unit`; a floor is what the job cannot do without
    peer, of_floor : what `theirs` and `floor` are of
    at_least : goal of theirs / ours
    at_most : goal of ours / floor
    apart, within : how far our result is from the peer's, and how far it may be
    note : what the numbers do not say

    Raises
    ------
    ValueError
        If a number is not positive and finite, or the results are too far apart: what
        was measured is then not the job.
    """

    job: str
    ours: float
    unit: str = "s"
    peer: str = ""
    theirs: float | None = None
    floor: float | None = None
    of_floor: str = ""
    at_least: float | None = None
    at_most: float | None = None
    apart: float | None = None
    within: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for number in (self.ours, self.theirs, self.floor):
            if number is not None and not 0 < number < float("inf"):
                raise ValueError(f"{self.job}: measured {number} {self.unit}")
        if self.apart is not None and not self.apart <= (self.within or 0.0):
            raise ValueError(
                f"{self.job}: the results of both are {self.apart:.1e} apart, expected "
                f"at most {self.within or 0.0:.1e}; speeds are compared of one result"
            )

    @property
    def ratio(self) -> float | None:
        """How many times faster than the peer."""
        return self.theirs / self.ours if self.theirs else None

    @property
    def above(self) -> float | None:
        """How many times the floor it takes."""
        return self.ours / self.floor if self.floor else None

    def goals(self) -> str:
        """Goals, and whether each is met."""
        asked = []
        if self.at_least is not None and self.ratio is not None:
            met = self.ratio >= self.at_least
            asked.append(f"≥ {self.at_least:g}× {_said(met)}")
        if self.at_most is not None and self.above is not None:
            met = self.above <= self.at_most
            asked.append(f"≤ {self.at_most:g}× its floor {_said(met)}")
        return ", ".join(asked)

    def cells(self) -> list[str]:
        """Cells of the table, for its `HEADINGS`."""
        notes = [self.note] if self.note else []
        if self.apart is not None:
            notes.append(f"results within {self.apart:.0e}")
        return [
            self.job,
            f"{self.ours:.3g} {self.unit}",
            f"{self.peer}: {self.theirs:.3g} {self.unit}" if self.theirs else "",
            f"{self.ratio:,.3g}×" if self.ratio else "",
            f"{self.of_floor}: {self.floor:.3g} {self.unit}, {self.above:.2f}×"
            if self.floor
            else "",
            self.goals(),
            "; ".join(notes),
        ]


HEADINGS = ("job", "ours", "peer", "ratio", "floor", "goal", "note")
Rows = Iterator[Measured]


def _said(met: bool) -> str:
    return "met" if met else "MISSED"


def markdown(rows: Sequence[Measured]) -> list[str]:
    """Lines of a table."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(row.cells() for row in rows)]
    return [f"| {' | '.join(cell.replace('|', '∣') for cell in x)} |" for x in lines]


def best_of(function: Callable[[], object], repeats: int = 3) -> float:
    """Least of several times of the processor that a call takes, in seconds."""
    return in_turns(function, repeats=repeats)[0]


def in_turns(
    *routes: Callable[[], object],
    repeats: int = 3,
    first: int = 0,
    clock: Callable[[], float] | None = None,
) -> list[float]:
    """`best_of` several, in turns, so that another load on the machine falls on all.

    So many `first` turns only warm up; the clock is the processor's unless given.
    """
    now = clock or _processor_time
    times: list[list[float]] = [[] for _ in routes]
    for _ in range(first + repeats):
        for route, of_route in zip(routes, times, strict=True):
            start = now()
            route()
            of_route.append(now() - start)
    return [min(of_route[first:]) for of_route in times]


def _processor_time() -> float:
    """Seconds that this process and those that it has waited for have worked."""
    resource = import_module("resource")
    waited_for = resource.getrusage(resource.RUSAGE_CHILDREN)
    return float(time.process_time() + waited_for.ru_utime + waited_for.ru_stime)


def run_command(command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """What a command prints; RuntimeError with its last words if it fails.

    A command that is refused is quick: its time says nothing.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(env or {})}
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise RuntimeError(
            f"{' '.join(command)[:200]} ended with {done.returncode}: "
            f"{said[-1] if said else 'it said nothing'}"
        )
    return done.stdout


def command_seconds(
    command: Sequence[str], repeats: int = 1, env: Mapping[str, str] | None = None
) -> float:
    """`best_of` for a command."""
    return best_of(lambda: run_command(command, env), repeats)


def peak_memory() -> float:
    """Most memory that this process has had, in GB."""
    resource = import_module("resource")
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit / 1e9


def describe() -> str:
    """Processor, its vector instructions, cores, and threads in use."""
    import_module("numpy")  # has the threads
    pools = import_module("threadpoolctl").threadpool_info()
    threads = max((pool["num_threads"] for pool in pools), default=1)
    return (
        f"{_processor()}, {os.cpu_count()} cores, {threads} "
        f"thread{'s' if threads > 1 else ''} used"
    )


def versions() -> dict[str, str]:
    """Of Python and what is compared, as far as it is installed."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """Name and vector instructions of the processor, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    lines = path.read_text().splitlines()
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", "").split()
    best = next((flag for flag in ("avx512f", "avx2", "avx") if flag in flags), "")
    return f"{facts.get('model name', platform.machine())} {best}".strip()


def main(rows: Callable[..., Rows]) -> None:
    """Print the rows of a benchmark as they come; its sizes are options."""
    parser = argparse.ArgumentParser(description=inspect.getdoc(rows))
    for name, parameter in inspect.signature(rows).parameters.items():
        default: Any = parameter.default
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            help=f"{default} unless told",
        )
    sizes = vars(parser.parse_args())
    print(describe(), *(f"{k} {v}" for k, v in versions().items()), sep=", ")
    for row in rows(**sizes):
        found = zip(HEADINGS, row.cells(), strict=True)
        print("; ".join(f"{k} {v}" for k, v in found if v), flush=True)


def document(row: Measured) -> dict[str, Any]:
    """A row as JSON has it, with the ratios."""
    return {**asdict(row), "ratio": row.ratio, "above_floor": row.above}
