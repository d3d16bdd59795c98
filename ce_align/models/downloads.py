"""Files from the network: continued where they stopped, whole or not at all.

A file comes to ``.<name>.part``, which an interruption leaves for the next run; what
the server said of it stands in ``.<name>.part.json``. It is only continued while the
server vouches that it is still the same file (``If-Range``): two versions are never
glued together.
"""

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests import exceptions as faults
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, NewConnectionError

from ce_align.errors import AccessError, CeAlignError, ConfigError
from ce_align.files import atomic_path, check_space, read_text
from ce_align.names import printable
from ce_align.progress import MEGABYTE, Progress, silent

__all__ = ["discard_stale", "download"]

#: Attempts in a row that bring nothing new before we give up.
ATTEMPTS = 5
#: Seconds before the second attempt; each further one waits twice as long.
BACKOFF = 1.0
#: Most seconds between attempts, whatever the server asks for.
LONGEST_WAIT = 60.0
#: Seconds until a server must be reached, and in which a piece of a file must come.
CONNECT_TIMEOUT, STALL_TIMEOUT = 10.0, 20.0
#: Seconds in which it must have answered, and something new must have come, in all
#: attempts together; those that it asked us to wait do not count.
DEADLINE = 30.0
#: Most bytes of a file of which the server does not say how many it has.
LARGEST = 8 * 10**9
#: Digits of a number of bytes, and characters of what names a version.
MAX_DIGITS, MAX_VERSION = 15, 200
#: Bytes written at a time, and at most lost when a connection breaks; fewer of them in
#: `STALL_TIMEOUT` seconds are as good as none.
PIECE = 16 * 1024
#: Seconds after which what an interrupted download left is of no use.
STALE = 7 * 24 * 3600.0
#: Seconds for which a host that could not be reached is not asked again.
OUT_OF_REACH = 60.0

#: Refusals that another attempt may change.
PASSING = (408, 425, 429, 500, 502, 503, 504)
#: What a broken, silent or missing connection raises.
NETWORK_FAULTS = (faults.ConnectionError, faults.Timeout, faults.ChunkedEncodingError)

#: When a host could last not be reached: 21 networks must not wait 21 times for it.
_unreachable: dict[str, float] = {}


class Transient(Exception):
    """A fault that another attempt may mend; `wait` is what the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class OutOfReach(Transient):
    """No connection came about: no network, no such host, or nobody who listens."""


class Session(requests.Session):
    """Stays secure, asks for files as they are, and ends what takes too long.

    The time that requests knows of begins again with every byte: a server that sends
    one now and then would be waited for without end.
    """

    def __init__(self) -> None:
        super().__init__()
        # Sizes and ranges are those of the file itself only without compression.
        self.headers.update({"Accept-Encoding": "identity"})
        self._sockets: list[socket.socket] = []
        self._until, self._closed = math.inf, threading.Event()
        self.late = False
        for prefix in ("http://", "https://"):
            adapter = HTTPAdapter()
            classes = adapter.poolmanager.pool_classes_by_scheme
            adapter.poolmanager.pool_classes_by_scheme = {
                scheme: type(
                    pool.__name__, (pool,), {"ConnectionCls": self._seen(pool)}
                )
                for scheme, pool in classes.items()
            }
            self.mount(prefix, adapter)
        threading.Thread(target=self._watch, daemon=True).start()

    def _seen(self, pool: Any) -> Any:
        """Connections of a pool, whose sockets this session knows."""
        kind: Any = pool.ConnectionCls

        def connect(connection: Any) -> None:
            kind.connect(connection)
            self._sockets.append(connection.sock)

        return type(kind.__name__, (kind,), {"connect": connect})

    def allow(self, seconds: float) -> None:
        """Shut every connection in so many seconds, unless this is called again."""
        self.late, self._until = False, time.monotonic() + seconds

    def _watch(self) -> None:
        while not self._closed.wait(0.1):
            if time.monotonic() > self._until:
                self.late, self._until = True, math.inf
                for one in self._sockets:
                    with suppress(OSError, ValueError):
                        one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closed.set()
        super().close()

    def get_redirect_target(self, resp: Any) -> str | None:
        """Where an answer leads, if it leads elsewhere."""
        place: str | None = super().get_redirect_target(resp)
        if place and resp.url.startswith("https:"):
            place = urljoin(resp.url, place)
            if not place.startswith("https:"):
                raise AccessError(
                    f"{resp.url[:200]} leads to the insecure address {place[:200]}; "
                    "refused"
                )
        return place


@dataclass
class _Part:
    """What has come so far of the file at `url`."""

    path: Path
    url: str

    @property
    def _story(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def n_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def story(self) -> dict[str, Any]:
        """Validator and size that the server stated; empty if of another address."""
        try:
            found = json.loads(read_text(self._story))
        except (OSError, ValueError):
            return {}
        known = isinstance(found, dict) and found.get("url") == self.url
        return found if known else {}

    def begin(self, validator: str | None, size: int | None) -> None:
        """Forget what has come, and note what comes now."""
        self.discard()
        with atomic_path(self._story) as temporary:
            story = {"url": self.url, "validator": validator, "size": size}
            temporary.write_text(json.dumps(story))

    def discard(self) -> None:
        for path in (self.path, self._story):
            path.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        self.path.replace(target)
        self._story.unlink(missing_ok=True)


def discard_stale(folder: Path, pattern: str) -> None:
    """Remove files that downloads given up days ago left in a folder."""
    for path in folder.glob(pattern):
        with suppress(OSError):  # another process may have been faster
            # A download that goes on writes, so its file is young.
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()


def download(
    url: str,
    target: Path,
    *,
    what: str = "",
    size: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Bring a file, continuing what an earlier call left of it; gives back `target`.

    Faults that may pass (an overloaded server, a broken or silent connection) are met
    with further attempts, ever later ones. The caller keeps other processes away.

    Parameters
    ----------
    url : ``http`` or ``https``; a secure address is not left for an insecure one
    target : file that is there, whole, after a success
    what : name of the file for those who watch; by default that of `target`
    size : bytes that the file should have, if that is known
    progress : told of megabytes

    Raises
    ------
    AccessError
        If the file is not there, refused or out of reach, is a web page, has another
        size, or ends early at every attempt.
    ConfigError
        If `url` is no address.
    CeAlignError
        If the disk is full.
    """
    part = _Part(target.with_name(f".{target.name.lstrip('.')}.part"), url)

    def show(done: int, total: int) -> None:
        progress(f"{what or target.name}, MB", done, total)

    try:
        with Session() as session:
            session.get_adapter(requests.Request("GET", url).prepare().url or "")
            part.path.parent.mkdir(parents=True, exist_ok=True)
            _persist(part, lambda: _receive(session, part, size, show))
        part.finish(target)
    except CeAlignError:
        raise
    except (faults.InvalidURL, faults.InvalidSchema, faults.MissingSchema) as error:
        raise ConfigError(f"{url[:200]} is no address: {_reason(error)}") from None
    except (requests.RequestException, HTTPError, HTTPException, ValueError) as error:
        raise AccessError(f"{url}: {_reason(error)}") from None
    except OSError as error:
        part.discard()
        raise CeAlignError(
            f"cannot write {part.path}: {error.strerror or error}; free some space or "
            "set CE_ALIGN_HOME to another disk"
        ) from error
    return target


def _persist(part: _Part, attempt: Callable[[], None]) -> None:
    """Attempt until it succeeds, or several attempts in a row bring nothing."""
    host = urlsplit(part.url).netloc
    if time.monotonic() - _unreachable.get(host, -OUT_OF_REACH) < OUT_OF_REACH:
        raise AccessError(f"{part.url} is out of reach, as it was a moment ago")
    started = furthest = part.n_bytes
    failures, since = 0, time.monotonic()
    while True:
        try:
            return attempt()
        except Transient as fault:
            if isinstance(fault, OutOfReach) and part.n_bytes <= started:
                _unreachable[host] = time.monotonic()
                raise AccessError(f"{part.url} is out of reach: {fault}") from None
            if part.n_bytes > furthest:
                failures, since = 0, time.monotonic()
            failures += 1
            furthest = max(furthest, part.n_bytes)
            if failures >= ATTEMPTS or time.monotonic() - since > DEADLINE:
                raise AccessError(
                    f"{part.url}: {fault}, {failures} times in a row; what has come is "
                    "kept for another attempt later"
                ) from None
            wait = min(max(BACKOFF * 2 ** (failures - 1), fault.wait), LONGEST_WAIT)
            time.sleep(wait)
            since += wait


def _receive(
    session: Session,
    part: _Part,
    size: int | None,
    show: Callable[[int, int], None],
) -> None:
    """One attempt; on return the file is whole."""
    story = part.story()
    if story.get("size") == part.n_bytes != 0:
        return
    ranged = {}
    if part.n_bytes and (known := story.get("validator")):
        ranged = {"Range": f"bytes={part.n_bytes}-", "If-Range": str(known)}
    with answer_of(session, part.url, ranged) as response:
        total: int | None
        continues = response.status_code != 200
        if continues:
            total, end = _continued(response, part, story)
        else:
            total = _declared_size(response)
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
            if kind.lower() in ("text/html", "application/xhtml+xml"):  # as of a login
                raise AccessError(
                    f"{part.url} answers with a web page instead of a file"
                )
            _check_size(part.url, size, total)
            part.discard()
            end = LARGEST if total is None else total
        missing = (total or 0) - part.n_bytes
        remains = f"the remaining bytes of {part.url}"
        check_space(part.path.parent, missing, remains, "or choose another place")
        if not continues:
            part.begin(_validator(response), total)
        try:
            _write(session, response, part.path, total, end, show)
        except NETWORK_FAULTS as error:
            if session.late:
                raise Transient(f"nothing came for {STALL_TIMEOUT:g} s") from None
            raise Transient(f"the connection broke ({_reason(error)})") from None
    if session.late or (total is not None and part.n_bytes < total):
        raise Transient(f"ended after {part.n_bytes} of {total or 'its'} bytes")
    if part.n_bytes > end:
        part.discard()
        raise Transient(f"has more than the {end} bytes that were asked for")
    _check_size(part.url, size, part.n_bytes)


def answer_of(
    session: Session, url: str, headers: Mapping[str, str]
) -> requests.Response:
    """Answer with a file in it, or what `headers` ask for of one.

    Raises
    ------
    Transient
        If another attempt may bring it.
    AccessError
        If none will.
    """
    timeouts = (CONNECT_TIMEOUT, STALL_TIMEOUT)
    session.allow(DEADLINE)
    try:
        response = session.get(
            url, headers=dict(headers), stream=True, timeout=timeouts
        )
    except NETWORK_FAULTS as error:
        if session.late:
            raise Transient(f"no answer within {DEADLINE:g} s") from None
        kind = OutOfReach if _never_reached(error) else Transient
        raise kind(_reason(error)) from None
    status = response.status_code
    # 416: there is less of the file now than we have, which the caller must resolve.
    if status == 200 or (status in (206, 416) and "Range" in headers):
        return response
    response.close()
    answer = printable(f"{status} {(response.reason or '')[:80]}".strip())
    if status in PASSING:
        wait = response.headers.get("Retry-After", "")
        seconds = float(wait) if wait.isdecimal() else 0.0
        raise Transient(f"the server answers {answer}", seconds)
    explained = {401: "refused", 403: "refused", 404: "not there", 410: "not there"}
    raise AccessError(f"{url} is {explained.get(status, 'not given')}: {answer}")


def _write(
    session: Session,
    response: requests.Response,
    path: Path,
    total: int | None,
    end: int,
    show: Callable[[int, int], None],
) -> None:
    """Add what comes to a file, until it is longer than `end`."""
    with path.open("ab") as file:
        allowed = -PIECE
        for piece in response.iter_content(PIECE):
            file.write(piece)
            done = file.tell()
            if done > end:
                return
            if done >= allowed + PIECE:
                session.allow(STALL_TIMEOUT)
                allowed = done
            # Of an unknown size there is always some left.
            show(done // MEGABYTE, (total or done + MEGABYTE) // MEGABYTE)


def _continued(response: requests.Response, part: _Part, story: Any) -> tuple[int, int]:
    """Size of the whole file of which an answer brings more, and where that ends."""
    stated = response.headers.get("Content-Range", "")
    span, _, total = stated.removeprefix("bytes ").partition("/")
    begins, _, last = span.partition("-")
    begin, end, size = map(_number, (begins, last, total))
    # Some servers give ranges without heeding If-Range.
    same = _validator(response) in (None, story.get("validator"))
    if begin != part.n_bytes or size != story.get("size") or not same:
        size = None
    if size is None or end is None or not part.n_bytes <= end < size:
        part.discard()
        raise Transient("changed between two attempts")
    return size, end + 1


def _number(stated: str) -> int | None:
    """Bytes that a server states, or None if it states no such number."""
    known = stated.isascii() and stated.isdecimal() and len(stated) <= MAX_DIGITS
    return int(stated) if known else None


def _check_size(url: str, expected: int | None, found: int | None) -> None:
    if expected is not None and found is not None and expected != found:
        raise AccessError(f"{url} has {found} bytes; expected {expected}")


def _declared_size(response: requests.Response) -> int | None:
    stated = response.headers.get("Content-Length", "")
    # The size of a compressed answer is not that of the file.
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    if len(stated) > MAX_DIGITS and stated.isdecimal():
        raise AccessError(f"{response.url} states a size of {len(stated)} digits")
    return None if encoded else _number(stated)


def _validator(response: requests.Response) -> str | None:
    """What identifies this version of the file, if it can be asked for by ranges."""
    tag = response.headers.get("ETag", "")
    # Weak tags may stand for files that differ in some bytes.
    strong = tag if tag.startswith('"') else None
    found = strong or response.headers.get("Last-Modified") or ""
    usable = found.isascii() and found.isprintable() and len(found) <= MAX_VERSION
    return found if usable and found else None


def _never_reached(error: Exception) -> bool:
    if isinstance(error, faults.ConnectTimeout | faults.SSLError | faults.ProxyError):
        return True
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(cause, NewConnectionError)


def _reason(error: Exception) -> str:
    """The innermost explanation of a fault of the network, in one short line."""
    if isinstance(error, faults.ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, faults.Timeout) or "timed out" in str(error):
        return f"nothing came for {STALL_TIMEOUT:g} s"
    seen: BaseException = error
    while True:
        inner = getattr(seen, "reason", None) or next(
            (part for part in reversed(seen.args) if isinstance(part, Exception)), None
        )
        if not isinstance(inner, BaseException):
            break
        seen = inner
    text = str(getattr(seen, "strerror", None) or seen).partition("\n")[0]
    return printable(text.rpartition(": ")[2])[:120] or type(seen).__name__
