"""Files from the network: continued where they stopped, whole or not at all.

A file comes to ``.<name>.part``, which an interruption leaves for the next run; what
the server said of it stands in ``.<name>.part.json``. It is only continued while the
server vouches that it is still the same file (``If-Range``): two versions are never
glued together.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests import exceptions as faults
from urllib3.exceptions import NewConnectionError

from ce_align.errors import AccessError, CeAlignError, ConfigError
from ce_align.files import atomic_path, check_space
from ce_align.progress import MEGABYTE, Progress, silent

__all__ = ["discard_stale", "download"]

#: Attempts in a row that bring nothing new before we give up.
ATTEMPTS = 5
#: Seconds before the second attempt; each further one waits twice as long.
BACKOFF = 1.0
#: Most seconds between attempts, whatever the server asks for.
LONGEST_WAIT = 60.0
#: Seconds until a server must have answered, and between two pieces of a file.
CONNECT_TIMEOUT, STALL_TIMEOUT = 10.0, 60.0
#: Bytes written at a time, and at most lost when a connection breaks.
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
    """Stays secure, and asks for files as they are."""

    def __init__(self) -> None:
        super().__init__()
        # Sizes and ranges are those of the file itself only without compression.
        self.headers.update({"Accept-Encoding": "identity"})

    def get_redirect_target(self, resp: Any) -> str | None:
        """Where an answer leads, if it leads elsewhere."""
        place: str | None = super().get_redirect_target(resp)
        if place and resp.url.startswith("https:"):
            place = urljoin(resp.url, place)
            if not place.startswith("https:"):
                raise AccessError(
                    f"{resp.url} leads to the insecure address {place}; refused"
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
            found = json.loads(self._story.read_text())
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
        part.path.parent.mkdir(parents=True, exist_ok=True)
        with Session() as session:
            _persist(part, lambda: _receive(session, part, size, show))
        part.finish(target)
    except (faults.InvalidURL, faults.InvalidSchema, faults.MissingSchema) as error:
        raise ConfigError(f"{url} is no address: {error}") from None
    except requests.RequestException as error:
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
    failures = 0
    while True:
        try:
            return attempt()
        except Transient as fault:
            if isinstance(fault, OutOfReach) and part.n_bytes <= started:
                _unreachable[host] = time.monotonic()
                raise AccessError(f"{part.url} is out of reach: {fault}") from None
            failures = 1 if part.n_bytes > furthest else failures + 1
            furthest = max(furthest, part.n_bytes)
            if failures >= ATTEMPTS:
                raise AccessError(
                    f"{part.url}: {fault}, {failures} times in a row; what has come is "
                    "kept for another attempt later"
                ) from None
            wait = max(BACKOFF * 2 ** (failures - 1), fault.wait)
            time.sleep(min(wait, LONGEST_WAIT))


def _receive(
    session: requests.Session,
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
        continues = bool(ranged) and response.status_code in (206, 416)
        if continues:
            total = _continued(response, part, story)
        else:
            total = _declared_size(response)
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
            if kind.lower() in ("text/html", "application/xhtml+xml"):  # as of a login
                raise AccessError(
                    f"{part.url} answers with a web page instead of a file"
                )
            _check_size(part.url, size, total)
            part.discard()
        missing = (total or 0) - part.n_bytes
        remains = f"the remaining bytes of {part.url}"
        check_space(part.path.parent, missing, remains, "or choose another place")
        if not continues:
            part.begin(_validator(response), total)
        try:
            _write(response, part.path, total, show)
        except NETWORK_FAULTS as error:
            raise Transient(f"the connection broke ({_reason(error)})") from None
    if total is not None and part.n_bytes < total:
        raise Transient(f"ended after {part.n_bytes} of {total} bytes")
    if total is not None and part.n_bytes > total:
        part.discard()
        raise Transient(f"has more than the {total} bytes that it declares")
    _check_size(part.url, size, part.n_bytes)


def answer_of(
    session: requests.Session, url: str, headers: Mapping[str, str]
) -> requests.Response:
    """Answer with a file, or a part of one, in it.

    Raises
    ------
    Transient
        If another attempt may bring it.
    AccessError
        If none will.
    """
    timeouts = (CONNECT_TIMEOUT, STALL_TIMEOUT)
    try:
        response = session.get(
            url, headers=dict(headers), stream=True, timeout=timeouts
        )
    except NETWORK_FAULTS as error:
        kind = OutOfReach if _never_reached(error) else Transient
        raise kind(_reason(error)) from None
    status = response.status_code
    # 416: there is less of the file now than we have, which the caller must resolve.
    if status in (200, 206, 416):
        return response
    response.close()
    answer = f"{status} {response.reason or ''}".strip()
    if status in PASSING:
        wait = response.headers.get("Retry-After", "")
        seconds = float(wait) if wait.isdecimal() else 0.0
        raise Transient(f"the server answers {answer}", seconds)
    explained = {401: "refused", 403: "refused", 404: "not there", 410: "not there"}
    raise AccessError(f"{url} is {explained.get(status, 'not given')}: {answer}")


def _write(
    response: requests.Response,
    path: Path,
    total: int | None,
    show: Callable[[int, int], None],
) -> None:
    with path.open("ab") as file:
        for piece in response.iter_content(PIECE):
            file.write(piece)
            done = file.tell()
            # Of an unknown size there is always some left.
            show(done // MEGABYTE, (total or done + MEGABYTE) // MEGABYTE)


def _continued(response: requests.Response, part: _Part, story: Any) -> int:
    """Size of the whole file whose rest an answer brings."""
    stated = response.headers.get("Content-Range", "")
    begins, _, total = stated.removeprefix("bytes ").partition("/")
    size = int(total) if total.isdecimal() else None
    fits = begins.startswith(f"{part.n_bytes}-") and size == story.get("size")
    # Some servers give ranges without heeding If-Range.
    same = _validator(response) in (None, story.get("validator"))
    if size is None or not (fits and same):
        part.discard()
        raise Transient("changed between two attempts")
    return size


def _check_size(url: str, expected: int | None, found: int | None) -> None:
    if expected is not None and found is not None and expected != found:
        raise AccessError(f"{url} has {found} bytes; expected {expected}")


def _declared_size(response: requests.Response) -> int | None:
    stated = response.headers.get("Content-Length", "")
    # The size of a compressed answer is not that of the file.
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return int(stated) if stated.isdecimal() and not encoded else None


def _validator(response: requests.Response) -> str | None:
    """What identifies this version of the file, if it can be asked for by ranges."""
    tag = response.headers.get("ETag", "")
    # Weak tags may stand for files that differ in some bytes.
    strong = tag if tag.startswith('"') else None
    return strong or response.headers.get("Last-Modified")


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
    return text.rpartition(": ")[2][:120] or type(seen).__name__
