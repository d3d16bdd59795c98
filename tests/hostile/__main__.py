"""`python -m hostile`: every damaged or hostile input, and how it is answered."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .harness import attempt, cases_of, families, faults, forked


def main() -> int:
    """Try the inputs; 1 if one of them is answered wrongly."""
    parser = argparse.ArgumentParser(prog="python -m hostile")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--family", action="append", help="Only this one. Repeatable.")
    parser.add_argument("--case", default="", help="Only those with this in the name.")
    parser.add_argument("--every", type=int, default=1, help="Only each n-th.")
    parser.add_argument("--show", action="store_true", help="Show every answer.")
    asked = parser.parse_args()
    sys.dont_write_bytecode = True
    scratch = Path(tempfile.mkdtemp(prefix="hostile-"))
    for name in ("CE_ALIGN_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TMPDIR"):
        (scratch / name.lower()).mkdir()
        os.environ[name] = str(scratch / name.lower())
    os.environ["BS_INSTALL_DEPENDENCIES"] = "no"
    os.environ.pop("CE_ALIGN_IMAGENET", None)
    tempfile.tempdir = None
    total = n_wrong = 0
    try:
        for family in asked.family or families():
            began, wrong, worst = time.monotonic(), 0, (0.0, 0.0)
            # The first is sound: tried here, it loads the libraries for all others.
            first = cases_of(family, asked.seed)[0]
            list(faults(first, attempt(first, scratch / family), [scratch]))
            found = [c for c in cases_of(family, asked.seed) if asked.case in c.name]
            found = found[:: asked.every]
            for place, case in enumerate(found):
                outcome, told = forked(case, scratch / f"{family}-{place}", [scratch])
                wrong += bool(told)
                for fault in told:
                    print(f"{case.name}: {fault}", flush=True)
                if outcome is not None:
                    worst = (
                        max(worst[0], outcome.seconds),
                        max(worst[1], outcome.gigabytes),
                    )
                    if asked.show:
                        answer = "\n  ".join(outcome.lines[-12:])
                        print(f"{case.name}: {outcome.status}\n  {answer}", flush=True)
            took = time.monotonic() - began
            print(
                f"{family}: {len(found)} inputs, {wrong} answered wrongly; {took:.0f} s"
            )
            print(f"  at most {worst[0]:.1f} s, {worst[1]:.2f} GB", flush=True)
            total, n_wrong = total + len(found), n_wrong + wrong
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{total} inputs, {n_wrong} answered wrongly")
    return int(n_wrong > 0)


sys.exit(main())
