"""What those who work at a sweep know of one another: small files beside the results.

Rows are in the store, which alone says what is done. The board says who is at what:
each file is written whole, a claim is a hard link, and nothing is locked, so that it
holds on network file systems, too.
"""

import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ce_align.digests import digest_bytes
from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.files import STALE, alive, atomic_path, read_text, this_process
from ce_align.progress import WHOLE, TimeLeft
from ce_align.results import ResultStore
from ce_align.runner import config_type
from ce_align.sweeps.jobs import Job

__all__ = ["Beat", "Board", "Claim", "Sweep", "worker_name"]

#: Seconds between two heartbeats, and without one until a worker counts as lost.
INTERVAL, PATIENCE = 10.0, 90.0
#: The last line of a traceback, of which so much is shown.
ERROR = re.compile(r"[\w.]+(?:Error|Exception|Interrupt|Exit)\b")
MOST_LETTERS = 200


@dataclass(frozen=True)
class Sweep:
    """A plan that was started.

    Attributes
    ----------
    id : of its jobs and settings
    file : that it was read from
    folder : where relative paths in it start
    settings : of every run, such as ``runs``, ``out`` and ``labels``
    jobs : those that others wait for first
    asked : stage and settings of the configurations of each job, as they were read
    """

    id: str
    file: str
    folder: str
    settings: Mapping[str, Any]
    jobs: tuple[Job, ...]
    asked: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]] = field(
        default_factory=dict, compare=False
    )


@dataclass
class Beat:
    """What a worker last told of itself.

    Attributes
    ----------
    worker : machine and process, or job of the cluster
    began : Unix time
    what, done, total : units of what it is doing
    seconds_left : of the whole job; None while nothing is known
    tries : how often the job was begun
    """

    worker: str
    began: float
    what: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    tries: int = 1


class Board:
    """The board of a store, in its folder ``.sweep``.

    ``plans`` are sweeps; of each job there are a claim and a beat while it is worked
    at, a mark in ``done`` or the reason in ``faults``, the name that a cluster gave it
    in ``submitted``, and what it told in ``logs``.
    """

    def __init__(self, store: ResultStore) -> None:
        self.store = store
        self.folder = store.folder / ".sweep"

    def _path(self, kind: str, job: str, suffix: str = ".json") -> Path:
        return self.folder / kind / f"{job}{suffix}"

    def log(self, job: str) -> Path:
        """What a job told."""
        return self._path("logs", job, ".txt")

    def cluster_log(self, cluster_id: str) -> Path:
        """What a job of a cluster told before its worker began."""
        return self.folder / "slurm" / f"{cluster_id}_0_log.out"

    def last_error(self, cluster_id: str) -> str | None:
        """The error that kept a job of a cluster from beginning, if it told one."""
        with suppress(OSError, ValueError):
            text = read_text(self.cluster_log(cluster_id), errors="backslashreplace")
            errors = [line for line in text.splitlines() if ERROR.match(line)]
            return errors[-1][:MOST_LETTERS] if errors else None
        return None

    def write_sweep(self, sweep: Sweep) -> None:
        """Keep a sweep, so that workers and `read_sweep` find it."""
        document = {
            **{k: getattr(sweep, k) for k in ("id", "file", "folder", "settings")},
            "jobs": [
                {
                    **{k: v for k, v in vars(job).items() if k != "configs"},
                    "configs": [
                        [config.stage, config.model_dump(mode="json")]
                        for config in job.configs
                    ],
                }
                for job in sweep.jobs
            ],
        }
        self._write("plans", sweep.id, document)

    def read_sweep(self, sweep: str | None = None, only: str | None = None) -> Sweep:
        """A sweep by its id, the one that was started last without.

        Of its jobs, `only` that one has its configurations if it is given.

        Raises
        ------
        ConfigError
            If there is none.
        DataError
            If it is damaged.
        """
        plans = self.folder / "plans"
        try:
            paths = [plans / f"{sweep}.json"] if sweep else list(plans.glob("*.json"))
            path = max(paths, key=lambda path: path.stat().st_mtime)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"no sweep {sweep or ''} was started with the results in "
                f"{self.store.folder}; start one: ce-align sweep PLAN"
            ) from error
        try:
            document = _document(path)
            entries = document.pop("jobs")
            asked = {entry["id"]: entry["configs"] for entry in entries}
            jobs = tuple(_read_job(entry, only) for entry in entries)
            return Sweep(**document, jobs=jobs, asked=asked)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{path} is no plan of a sweep, or damaged; delete it, or start it "
                "again: ce-align sweep PLAN"
            ) from error

    def claim(self, job: str, worker: str) -> "Claim | None":
        """Begin to work at a job; None while another does.

        A claim is a hard link, which is made once, whoever tries; locks may mean
        nothing on a network. Who succeeds one that is gone links to a name that only
        its token leads to, so that of several one succeeds.
        """
        place = self._path("claims", job, "")
        place.parent.mkdir(parents=True, exist_ok=True)
        token = secrets.token_hex(8)
        mine = place.with_name(f".{job}.{token}.new")
        mine.write_text(json.dumps({"process": this_process(), "token": token}))
        try:
            owners = self._owners(job)
            if owners and self._is_live(*owners[-1]):
                return None
            if owners:
                place = self._successor(job, owners[-1][1])
            os.link(mine, place)
        except FileExistsError:
            return None
        finally:
            mine.unlink(missing_ok=True)
        return Claim(self, job, place, token, worker)

    def release(self, job: str, token: str) -> None:
        """End a claim, unless its owner seemed gone and was succeeded."""
        owners = self._owners(job)
        if owners and owners[-1][1]["token"] == token:
            # What lies behind stays, for who has just read the first one's token.
            self._path("claims", job, "").unlink(missing_ok=True)

    def is_claimed(self, job: str) -> bool:
        """Whether somebody works at a job."""
        owners = self._owners(job)
        return bool(owners) and self._is_live(*owners[-1])

    def _owners(self, job: str) -> list[tuple[Path, dict[str, Any]]]:
        """Who claimed a job, and who succeeded whom; where that stands."""
        found: list[tuple[Path, dict[str, Any]]] = []
        place = self._path("claims", job, "")
        while True:
            try:
                owner = dict(json.loads(read_text(place)))
            except FileNotFoundError:
                return found
            except (OSError, ValueError):
                owner = {"process": "", "token": "damaged"}
            found.append((place, owner))
            place = self._successor(job, owner)

    def _successor(self, job: str, owner: Mapping[str, Any]) -> Path:
        return self.folder / "claims" / f".{job}.{owner['token']}"

    def _is_live(self, place: Path, owner: Mapping[str, Any]) -> bool:
        known = alive(owner["process"])
        if known is not None:
            return known
        try:
            return self._now() - place.stat().st_mtime < PATIENCE
        except FileNotFoundError:
            return False

    def _now(self) -> float:
        """The time by the clock of the files, which may be another machine's."""
        probe = self.folder / "claims" / f".clock-{secrets.token_hex(4)}"
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with suppress(OSError):
                probe.unlink()

    def beats(self) -> dict[str, Beat]:
        """What workers last told, of jobs that are worked at."""
        found = {}
        for job in _names(self.folder / "claims"):
            if self.is_claimed(job):
                with suppress(OSError, ValueError, TypeError):
                    found[job] = Beat(**_document(self._path("beats", job)))
        return found

    def done(self) -> set[str]:
        """Jobs that ended well."""
        return _names(self.folder / "done")

    def told(self, jobs: Container[str]) -> set[str]:
        """Jobs that ended well and told of rows, which the store has still."""
        found = set()
        for job in self.done():
            if job in jobs:
                rows = list(self.rows([job]))
                if rows and all(self.store.has(*row) for row in rows):
                    found.add(job)
        return found

    def failed(self) -> dict[str, dict[str, Any]]:
        """Jobs that ended with a failure, with ``reason``, ``tries``, ``memory``."""
        return _documents(self.folder / "faults")

    def submitted(self) -> dict[str, dict[str, Any]]:
        """Jobs that were given to a cluster, with its ``id`` for them."""
        return _documents(self.folder / "submitted")

    def submit(self, job: str, cluster_id: str, **more: Any) -> None:
        """Note what a cluster calls a job."""
        self._write("submitted", job, {"id": cluster_id, **more})

    def end(self, job: str, reason: str | None = None, **more: Any) -> None:
        """Note that a job is done, or why it failed."""
        kind, other = ("faults", "done") if reason else ("done", "faults")
        self._write(kind, job, {"reason": reason, **more})
        for former in (other, "begun"):
            self._path(former, job).unlink(missing_ok=True)

    def rows(self, jobs: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Stage and ``config_id`` of the rows of jobs that have ended."""
        for job in jobs:
            for kind in ("done", "faults"):
                with suppress(OSError, ValueError, KeyError, TypeError):
                    found = _document(self._path(kind, job))
                    yield from ((stage, name) for stage, name in found["rows"])

    def forget(self, jobs: Iterable[str]) -> None:
        """Forget how jobs ended, so that they are begun again."""
        for job in jobs:
            for kind in ("done", "faults", "submitted"):
                self._path(kind, job).unlink(missing_ok=True)
            for left in (self.folder / "claims").glob(f".{job}.*"):
                with suppress(OSError):
                    if self._now() - left.stat().st_mtime > STALE:
                        left.unlink()

    def begun(self, job: str) -> list[int]:
        """Groups of a job at which its process was killed, by their places."""
        try:
            return list(map(int, _document(self._path("begun", job))["places"]))
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def begin(self, job: str, places: Sequence[int]) -> None:
        """Note the group that a job is at, after those at which it was killed."""
        self._write("begun", job, {"places": list(places)})

    def tries(self, job: str) -> int:
        """How often a job was begun."""
        try:
            return int(_document(self._path("beats", job))["tries"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _write(self, kind: str, job: str, document: dict[str, Any]) -> None:
        document = {**document, "digest": _digest(document)}
        with atomic_path(self._path(kind, job)) as temporary:
            temporary.write_text(json.dumps(document) + "\n", encoding="utf-8")


class Claim:
    """A job that this process works at, and says so until it is done."""

    def __init__(
        self, board: Board, job: str, path: Path, token: str, worker: str
    ) -> None:
        self._board, self._job, self._path, self._token = board, job, path, token
        self.beat = Beat(worker, time.time(), tries=board.tries(job) + 1)
        self._time_left = TimeLeft()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell_regularly, daemon=True)

    def __enter__(self) -> "Claim":
        self._tell()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        with suppress(OSError, CeAlignError):
            self._tell()
        self._board.release(self._job, self._token)

    def progress(self, what: str, done: int, total: int, state: str = "", /) -> None:
        """Note progress, for the next heartbeat."""
        self._time_left.told(what, done, total)
        if what != WHOLE:
            self.beat.what, self.beat.done, self.beat.total = what, done, total
        self.beat.seconds_left = self._time_left.whole()

    def _tell_regularly(self) -> None:
        while not self._over.wait(INTERVAL):
            # A full disk or a server that is away ends no computation.
            with suppress(Exception):
                self._tell()
                os.utime(self._path)

    def _tell(self) -> None:
        self._board._write("beats", self._job, asdict(self.beat))


def worker_name() -> str:
    """What this process is called: its job of the cluster, or machine and process."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{n}_ID") for n in ("JOB", "TASK"))
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
    host = socket.gethostname()
    return f"job {job} on {host}" if job else f"process {os.getpid()} on {host}"


def _names(folder: Path) -> set[str]:
    try:
        return {
            entry.name.removesuffix(".json")
            for entry in os.scandir(folder)
            if not entry.name.startswith(".")
        }
    except FileNotFoundError:
        return set()


def _document(path: Path) -> dict[str, Any]:
    """Content of a file of the board; ValueError if it is not what was written."""
    found = dict(json.loads(read_text(path)))
    # Those of earlier versions have no digest.
    if found.pop("digest", None) not in (None, _digest(found)):
        raise ValueError("its digest is another")
    return found


def _digest(document: Mapping[str, Any]) -> str:
    # Reasons may quote names of files that are no text, which JSON escapes.
    return digest_bytes(json.dumps(document, sort_keys=True).encode())


def _documents(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for name in _names(folder):
        with suppress(OSError, ValueError, TypeError):
            found[name] = _document(folder / f"{name}.json")
    return found


def _read_job(entry: dict[str, Any], only: str | None) -> Job:
    configs = [
        config_type(stage)(**settings)
        for stage, settings in entry["configs"]
        if only in (None, entry["id"])
    ]
    entry = {name: value for name, value in entry.items() if name != "configs"}
    waits: dict[str, Any] = {k: tuple(entry.pop(k)) for k in ("needs", "follows")}
    return Job(**entry, **waits, configs=tuple(configs))
