"""Answers of web servers: what they declare, and what their refusals mean."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

import requests
from requests.exceptions import ChunkedEncodingError, ProxyError, SSLError
from urllib3.exceptions import NewConnectionError

from ce_align.errors import AccessError

__all__ = [
    *("NETWORK_FAULTS", "OutOfReach", "Transient", "answer_of"),
    *("check_is_file", "declared_size", "new_session", "reason", "validator"),
]

#: Seconds until a server must have answered, and between two pieces of a file.
CONNECT_TIMEOUT, STALL_TIMEOUT = 10.0, 60.0
#: Refusals that another attempt may change.
PASSING = (408, 425, 429, 500, 502, 503, 504)

#: What a broken, silent or missing connection raises.
NETWORK_FAULTS = (requests.ConnectionError, requests.Timeout, ChunkedEncodingError)


class Transient(Exception):
    """A fault that another attempt may mend; `wait` is what the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class OutOfReach(Transient):
    """No connection came about: no network, no such host, or nobody who listens."""


def new_session() -> requests.Session:
    """A session that stays secure and asks for files as they are."""

    class Session(requests.Session):
        def get_redirect_target(self, resp: Any) -> str | None:
            place: str | None = super().get_redirect_target(resp)
            if place and resp.url.startswith("https:"):
                place = urljoin(resp.url, place)
                if not place.startswith("https:"):
                    raise AccessError(
                        f"{resp.url} leads to the insecure address {place}; refused"
                    )
            return place

    session = Session()
    # Sizes and ranges are those of the file itself only without compression.
    session.headers.update({"Accept-Encoding": "identity"})
    return session


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
        raise kind(reason(error)) from None
    status = response.status_code
    # 416: there is less of the file now than we have, which the caller must resolve.
    if status in (200, 206, 416):
        return response
    response.close()
    answer = f"{status} {response.reason or ''}".strip()
    if status in PASSING:
        wait = response.headers.get("Retry-After", "")
        raise Transient(
            f"the server answers {answer}", float(wait) if wait.isdecimal() else 0.0
        )
    explained = {401: "refused", 403: "refused", 404: "not there", 410: "not there"}
    raise AccessError(f"{url} is {explained.get(status, 'not given')}: {answer}")


def _never_reached(error: Exception) -> bool:
    if isinstance(error, requests.ConnectTimeout | SSLError | ProxyError):
        return True
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(cause, NewConnectionError)


def reason(error: Exception) -> str:
    """The innermost explanation of a fault of the network, in one short line."""
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
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


def declared_size(response: requests.Response) -> int | None:
    """Bytes of the file that an answer brings, if it says so."""
    stated = response.headers.get("Content-Length", "")
    # The size of a compressed answer is not that of the file.
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return int(stated) if stated.isdecimal() and not encoded else None


def validator(response: requests.Response) -> str | None:
    """What identifies this version of the file, if it can be asked for by ranges."""
    tag = response.headers.get("ETag", "")
    # Weak tags may stand for files that differ in some bytes.
    strong = tag if tag.startswith('"') else None
    return strong or response.headers.get("Last-Modified")


def check_is_file(response: requests.Response, url: str) -> None:
    """Raise AccessError for a web page, such as that of a login."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise AccessError(f"{url} answers with a web page instead of a file")
