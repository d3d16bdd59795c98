"""Run the benchmarks of speed, and write one table.

    python -m benchmarks.speed [NAME ...] [--out speed.md]

Each runs in a process of its own, one thread unless ``OMP_NUM_THREADS`` says more. The
table and, beside it, the same as JSON are written after each. What is there is kept if
it is of the same code, versions and machine; a benchmark that fails is named and tried
again next time, and the rest goes on. Exit status 1 if one failed.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed._measure import (
    Measured,
    describe,
    document,
    markdown,
    run_command,
    versions,
)
from ce_align.digests import digest_bytes, digest_json
from ce_align.files import atomic_path

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("[!_]*.py"))


def condition(name: str) -> str:
    """Digest of all that a benchmark's numbers depend on."""
    package = HERE.parents[1] / "ce_align"
    sources = [
        *sorted(package.rglob("*.py")),
        HERE / "_measure.py",
        HERE / f"{name}.py",
    ]
    code = digest_bytes(*(path.read_bytes() for path in sources))
    return digest_json([code, versions(), describe()])


def measured(name: str) -> list[dict[str, Any]]:
    """Rows of a benchmark, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed", "--rows", name]
    rows: list[dict[str, Any]] = json.loads(run_command(command).splitlines()[-1])
    if not rows:
        raise RuntimeError(f"{name} measured nothing")
    return rows


def write(found: dict[str, Any], path: Path) -> None:
    """The table, and the same as JSON."""
    fields = Measured.__dataclass_fields__
    rows = [
        Measured(**{k: v for k, v in row.items() if k in fields})
        for name in sorted(found)
        for row in found[name].get("rows", [])
    ]
    failed = {name: one["error"] for name, one in found.items() if "error" in one}
    minutes = sum(one.get("minutes", 0.0) for one in found.values())
    of_what = ", ".join(f"{k} {v}" for k, v in versions().items())
    machine = f"{minutes:.0f} minutes; {describe()}; {of_what}"
    lines = [
        "# Speed",
        "",
        "Time of the processor; less is better. Trust ratios, not seconds.",
        "",
        *markdown(rows),
        "",
        *(f"- {name} failed: {error}" for name, error in sorted(failed.items())),
        machine,
        "",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines))
    text = {"machine": describe(), "versions": versions(), "benchmarks": found}
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(text, indent=1))


def run(names: Sequence[str], path: Path) -> int:
    """Measure what the table lacks; how many failed."""
    try:
        known = json.loads(path.with_suffix(".json").read_text())["benchmarks"]
    except (OSError, ValueError, KeyError):
        known = {}
    conditions = {name: condition(name) for name in NAMES}
    found: dict[str, Any] = {
        name: one
        for name, one in known.items()
        if "rows" in one and one.get("condition") == conditions.get(name)
    }
    for name in names:
        if name in found:
            print(f"{name}: kept", flush=True)
            continue
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        try:
            entry: dict[str, Any] = {"rows": measured(name)}
            entry["minutes"] = round((time.monotonic() - start) / 60, 2)
        except (RuntimeError, ValueError, IndexError) as error:
            print(f"{name} failed: {error}", file=sys.stderr, flush=True)
            entry = {"error": str(error)}
        found[name] = {"condition": conditions[name], **entry}
        write(found, path)
    write(found, path)
    print(path)
    return sum("error" in found[name] for name in names)


def main() -> int:
    """Read the names, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--out", type=Path, default=Path("speed.md"))
    parser.add_argument("--rows", choices=NAMES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rows:
        module = importlib.import_module(f"benchmarks.speed.{asked.rows}")
        print(json.dumps([document(row) for row in module.rows()]))
        return 0
    unknown = sorted(set(asked.names) - set(NAMES))
    if unknown or asked.out.suffix == ".json":
        parser.error(
            f"unknown: {', '.join(unknown)}; choose from {', '.join(NAMES)}"
            if unknown
            else "--out names the table, such as speed.md; JSON is written beside it"
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return int(run(asked.names or NAMES, asked.out) > 0)


if __name__ == "__main__":
    sys.exit(main())
