"""One input, tried in this process, and what is wrong with how it was answered."""

import contextlib
import importlib
import io
import os
import pickle
import pkgutil
import re
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ce_align.cli import main
from ce_align.errors import explained
from ce_align.names import printable

#: What any answer must keep to.
STATUSES, LINE, GIGABYTES, SECONDS = (0, 1, 2, 3), 400, 1.5, 30
#: Signs of a fault that nobody foresaw.
SIGNS = re.compile(r"Traceback \(most recent call last\)|unexpected [A-Z]\w+")


@dataclass(frozen=True)
class Outcome:
    """How an input was answered."""

    status: int
    out: str
    err: str
    seconds: float
    gigabytes: float
    written: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        return [*self.out.splitlines(), *self.err.splitlines()]


@dataclass(frozen=True)
class Case:
    """An input.

    Attributes
    ----------
    name : ``family/what it is``
    make : writes the input into an empty folder, which is the working folder then, and
        gives the arguments of ce-align, or a function to call
    check : what else is wrong with the outcome, or None
    statuses : with which it may end
    line : characters of a line of standard error; of a table, what is asked for
    """

    name: str
    make: Callable[[Path], Sequence[str] | Callable[[], object]]
    check: Callable[[Outcome], str | None] = lambda outcome: None
    statuses: tuple[int, ...] = STATUSES
    line: int = LINE


class _OutOfTime(KeyboardInterrupt):
    """An input takes too long."""


class _Clock:
    """Seconds since it was made, but for those in which other processes ran."""

    def __init__(self) -> None:
        self._began = time.monotonic() - self._waited()

    @staticmethod
    def _waited() -> float:
        try:
            return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
        except OSError:  # a system that does not tell
            return 0.0

    def __call__(self) -> float:
        return time.monotonic() - self._waited() - self._began

    def out_of_time(self, signum: int, frame: object) -> None:
        """End what takes too long, or wait for the rest of its time."""
        if (left := SECONDS - self()) <= 0:
            raise _OutOfTime
        signal.setitimer(signal.ITIMER_REAL, max(left, 0.1))


class _Writes:
    """Files that Python code opens to write, makes, moves or removes, while watched."""

    def __init__(self) -> None:
        self.found: set[str] | None = None
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.found is None:
            return
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            if writes and isinstance(path, str | bytes):
                self.found.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.rename"):
            for path in arguments[:2]:
                if isinstance(path, str | bytes) and arguments[-1] == -1:
                    self.found.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100


_writes = _Writes()


def _peak(reset: bool = False) -> float:
    """Most memory of this process, in GB, since it was last reset."""
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _called(asked: Sequence[str] | Callable[[], object]) -> int:
    try:
        if callable(asked):
            asked()
        else:
            sys.argv = ["ce-align", *asked]
            main()
    except SystemExit as end:
        return int(end.code or 0)
    except Exception as error:  # as `main` tells of it
        found = explained(error)
        print(printable(f"error: {found}"), file=sys.stderr)
        return found.exit_status
    except BaseException:
        traceback.print_exc()
        return -1
    return 0


def attempt(case: Case, folder: Path) -> Outcome:
    """Try an input in a folder, which is made."""
    folder.mkdir(parents=True)
    asked = case.make(folder)
    out, err = io.StringIO(), io.StringIO()
    before, argv, here = _peak(reset=True), sys.argv, Path.cwd()
    asking = [signal.SIGINT, signal.SIGTERM, signal.SIGALRM]
    handlers = {number: signal.getsignal(number) for number in asking}
    clock, _writes.found = _Clock(), set()
    signal.signal(signal.SIGALRM, clock.out_of_time)
    os.chdir(folder)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = _called(asked)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.chdir(here)
        sys.argv, written, _writes.found = argv, _writes.found or set(), None
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Outcome(
        status,
        out.getvalue(),
        err.getvalue(),
        clock(),
        _peak() - before,
        tuple(sorted(written)),
    )


def faults(case: Case, outcome: Outcome, folders: Sequence[Path]) -> Iterator[str]:
    """What is wrong with how an input was answered; it may write into `folders`."""
    if outcome.status not in case.statuses:
        yield f"ended with {outcome.status}, not one of {case.statuses}"
    told = f"{outcome.out}\n{outcome.err}"
    if sign := SIGNS.search(told):
        yield f"{told[sign.start() :].strip()[-300:]}"
    if outcome.status in (1, 2, 3) and "error: " not in outcome.err:
        yield f"no line says why it ended with {outcome.status}"
    longest = max(map(len, outcome.err.splitlines()), default=0)
    if longest > case.line:
        yield f"a line of {longest} characters"
    if escapes := [c for c in told if not c.isprintable() and c not in "\n\t"]:
        yield f"characters that move the cursor: {escapes[:3]}"
    if outcome.gigabytes > GIGABYTES:
        yield f"{outcome.gigabytes:.1f} GB of memory"
    if outcome.seconds > SECONDS:
        yield f"{outcome.seconds:.0f} s"
    places = [*map(str, folders), "/dev/", "/proc/"]
    outside = [
        path for path in outcome.written if not f"{path}/".startswith(tuple(places))
    ]
    if outside:
        yield f"written outside: {outside[:3]}"
    if (fault := case.check(outcome)) is not None:
        yield fault


def forked(
    case: Case, folder: Path, folders: Sequence[Path]
) -> tuple[Outcome | None, list[str]]:
    """Outcome and faults of an input in a process of its own, which may die or hang."""
    reads, writes = os.pipe()
    if (pid := os.fork()) == 0:
        status = 1
        try:
            outcome = attempt(case, folder)
            answer = pickle.dumps((outcome, list(faults(case, outcome, folders))))
            with os.fdopen(writes, "wb") as stream:
                stream.write(answer)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writes)
    answer, late = b"", time.monotonic() + 10 * SECONDS
    with os.fdopen(reads, "rb", buffering=0) as stream:
        while (left := late - time.monotonic()) > 0:
            if not select.select([stream], [], [], left)[0]:
                break
            if not (part := stream.read(2**16)):
                break
            answer += part
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, code = os.waitpid(pid, 0)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        found: tuple[Outcome, list[str]] = pickle.loads(answer)
    except (EOFError, pickle.UnpicklingError):
        return None, [f"no answer: hung, or the process died (wait status {code})"]
    return found


def families() -> dict[str, Callable[[np.random.Generator], Iterator[Case]]]:
    """Generators of this folder by name."""
    package = __package__ or ""
    found = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith(("test_", "_", "harness")):
            held = importlib.import_module(f"{package}.{module.name}")
            if hasattr(held, "cases"):
                found[module.name] = held.cases
    return found


def cases_of(name: str, seed: int) -> list[Case]:
    """Every input of a family, the same for the same seed."""
    return list(families()[name](np.random.default_rng([seed, *name.encode()])))
