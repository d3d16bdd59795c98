"""Versions and machine that produce a result; they are written beside it."""

import os
import platform
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["environment", "processor"]

#: Packages whose versions can change a number.
REPORTED_PACKAGES = (
    *("numpy", "scipy", "scikit-learn", "torch", "torchvision"),
    *("xarray", "pandas", "pillow", "brainscore-vision"),
)


@cache
def processor() -> str:
    """Name of the processor, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return (names[0] if names else platform.processor()).strip() or "unknown"


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in REPORTED_PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def environment() -> dict[str, str]:
    """Versions and machine that produced a result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    found["processor"] = f"{processor()}, {os.cpu_count()} cores"
    # Only if a stage has it already: importing it takes seconds.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found | _versions()
