"""Python that need not import the libraries again: forks of a server that has.

Such a process costs a second where a new interpreter takes six. It is like any other in
every other way: its folder, environment, streams and signals are its own.
"""

import atexit
import gc
import multiprocessing
import os
import runpy
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from waiting import LIMIT

#: What commands import, or their libraries at work; nothing that reads settings of a
#: test as it is imported.
LIBRARIES = [
    *("ce_align.report.page", "ce_align.stages.train", "ce_align.sweeps.worker"),
    *("sklearn.model_selection", "sklearn.cross_decomposition", "torch._dynamo"),
]


def server() -> multiprocessing.context.ForkServerContext:
    """Starts processes from the server, which is the one of all tests of a worker."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    return context


def execute(arguments: tuple[str, ...]) -> None:
    """Do as `python` with these arguments: `-c CODE ...` or `-m MODULE ...`."""
    kind, what, *rest = arguments
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})


def _begin(arguments, folder, environment, streams) -> None:
    gc.freeze()  # what the server knows stays, and its memory is not copied
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(streams, start=1):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    try:
        execute(arguments)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


class Forked:
    """As much of `subprocess.Popen` as the tests use, with streams in files."""

    def __init__(self, *arguments, cwd=None, env=None, log=None) -> None:
        self._folder = TemporaryDirectory()
        self._streams = [Path(self._folder.name, name) for name in ("out", "err")]
        if log is not None:  # both streams go there
            self._streams = [Path(log)] * 2
        for path in self._streams:
            path.touch()
        self._process = server().Process(
            target=_begin,
            args=(
                tuple(map(str, arguments)),
                Path(cwd or Path.cwd()).resolve(),
                dict(os.environ if env is None else env),
                self._streams,
            ),
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def communicate(self) -> tuple[str, str]:
        """Standard output and error, once the process has ended."""
        self._process.join(LIMIT)
        assert self.returncode is not None, f"it has not ended within {LIMIT} s"
        out, err = (path.read_text() for path in self._streams)
        return out, err

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self) -> None:
        self._process.join()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
