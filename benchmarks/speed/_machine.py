"""What every measurement of speed says about itself: the machine, and the best time."""

import os
import platform
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import scipy

__all__ = ["best_of", "describe"]


def describe() -> str:
    """One line on processor, cores, threads in use, load and library versions."""
    pools = import_module("threadpoolctl").threadpool_info()
    threads = max((pool["num_threads"] for pool in pools), default=1)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return (
        f"{_processor()}, {os.cpu_count()} cores, {threads} "
        f"thread{'s' if threads > 1 else ''} used, load {load:.1f}; "
        f"Python {platform.python_version()}, numpy {np.__version__}, "
        f"scipy {scipy.__version__}"
    )


def best_of(function: Callable[[], object], repeats: int = 3) -> float:
    """Shortest of `repeats` wall-clock times of a call, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


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
