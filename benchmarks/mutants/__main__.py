"""Share of mutants of the numerical code that the tests kill, in a random sample.

Run with ``make mutants``; ``ARGS="--seed 2 bures pls"`` draws others, of two modules.
mutmut changes one thing in a function and runs the tests that go through it (which code
and which tests: ``[tool.mutmut]`` in ``pyproject.toml``). It leaves alone defaults of
arguments, constants of modules, functions with decorators, and here the words of
refusals. One that takes five times as long as the code is killed. What was tried is
kept in the folder ``mutants``, so that again is a resume; survivors are tried again,
since tests may have been added.

Mutants that no test can tell from the code are in ``equivalent.toml`` with the reason,
and leave the sample.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from scipy.stats import binomtest

__all__ = ["main"]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "mutants"
#: mutmut's exit codes of mutants that live: survived, no test goes through them.
ALIVE = (0, 5, 33)


def results() -> dict[str, dict[str, int | None]]:
    """Exit code of every mutant, None where it was not tried, by module."""
    return {
        meta.name.removesuffix(".py.meta"): codes
        for meta in sorted((FOLDER / "ce_align").rglob("*.meta"))
        if (codes := json.loads(meta.read_text())["exit_code_by_key"])
    }


def mutmut(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of mutmut from the root of the repository."""
    return subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def change(name: str) -> tuple[str, str]:
    """Lines of the code that a mutant changes, and what they become."""
    lines = mutmut("show", name).stdout.splitlines()[3:]
    was, becomes = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign))
        for sign in "-+"
    )
    return was, becomes


def reason(module: str, was: str, becomes: str) -> str | None:
    """Why no test can tell a mutant from the code, None if one might."""
    known = tomllib.loads(Path(__file__).with_name("equivalent.toml").read_text())
    for entry in known["mutant"]:
        if (entry["module"], entry["was"], entry["becomes"]) == (module, was, becomes):
            return str(entry["why"])
    for keyword, why in known["keywords"].items():
        given = re.compile(rf",? *\b{keyword}=\w+|, (?=\))")
        if given.sub("", was) == given.sub("", becomes):
            return str(why)
    for function in known["messages"]["functions"]:
        named = re.compile(rf"(\b{function}\(.*), (?:\"[^\"]*\"|None|name)")
        if named.sub(r"\1", was) == named.sub(r"\1", becomes):
            return "it changes the words of a refusal"
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw mutants, try them, print shares that were killed and survivors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="by default all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=25, help="mutants of a module")
    options = parser.parse_args(arguments)
    # It makes the mutants and learns which tests go where before it finds no such name.
    mutmut("run", "--max-children", "1", "none")
    tried = results()
    drawn = {
        module: shuffled(codes, f"{options.seed}:{module}")[: options.each]
        for module, codes in tried.items()
        if not options.modules or module in options.modules
    }
    if waiting := [
        name
        for module, names in drawn.items()
        for name in names
        if tried[module][name] in (None, *ALIVE)
    ]:
        done = mutmut("run", "--max-children", "1", *waiting)
        if done.returncode:
            sys.exit(done.stdout[-5000:] + done.stderr[-5000:])
    found = results()
    n_drawn = sum(map(len, drawn.values()))
    total, killed, equivalent = 0, 0, 0
    rows, survivors = [], []
    for module, names in drawn.items():
        alive = [name for name in names if found[module][name] in ALIVE]
        dead = sum(found[module][name] not in (None, *ALIVE) for name in names)
        changes = {name: change(name) for name in alive}
        left = [name for name in alive if not reason(module, *changes[name])]
        survivors += [
            "{}\n  - {}\n  + {}".format(name, *changes[name]) for name in left
        ]
        equivalent += len(alive) - len(left)
        total, killed = total + dead + len(left), killed + dead
        if dead or left:
            rows.append(row(module, dead, dead + len(left)))
    print(*survivors, "", *rows, row("all", killed, total), sep="\n")
    print(
        f"seed {options.seed}: {n_drawn} drawn, {equivalent} of them equivalent and "
        f"left out, {n_drawn - equivalent - total} not tried"
    )


def shuffled(names: Iterable[str], seed: str) -> list[str]:
    """Names in an order that the seed alone decides."""
    return sorted(names, key=lambda name: sha256(f"{seed}:{name}".encode()).digest())


def row(name: str, killed: int, total: int) -> str:
    """A line of the table: killed of how many, with Wilson's 95 % interval."""
    bounds = binomtest(killed, total).proportion_ci(method="wilson")
    share = f"{killed / total:7.1%} [{bounds.low:.1%}, {bounds.high:.1%}]"
    return f"{name:20} {killed:4} of {total:4} {share}"


if __name__ == "__main__":
    main()
