"""A server that does not do as it should, asked for a checkpoint."""

import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from ce_align.models import downloads

from .harness import Case, Outcome

CONTENT = bytes(range(256)) * 400
#: Seconds that an answer may take here in all, and in which something must come.
DEADLINE, STALL = 4.0, 1.5
OK = b"HTTP/1.1 200 OK\r\n"
KIND = b"Content-Type: application/octet-stream\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(CONTENT)
SOUND = OK + KIND + LENGTH + b'ETag: "a"\r\n\r\n' + CONTENT

Send = Callable[[bytes], object]
#: What a server sends to one request after the other; the last is repeated.
Answers = tuple[bytes | Callable[[Send], object], ...]


class Server:
    """Answers on a local port, byte for byte as stated."""

    def __init__(self, answers: Answers) -> None:
        self._answers, self._n = answers, 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                answer = self._answers[min(self._n, len(self._answers) - 1)]
                self._n += 1
                arguments = (connection, answer)
                threading.Thread(target=_answer, args=arguments, daemon=True).start()

    def close(self) -> None:
        self._socket.close()


def _answer(
    connection: socket.socket, answer: bytes | Callable[[Send], object]
) -> None:
    with connection, contextlib.suppress(OSError):
        connection.recv(65536)
        if callable(answer):
            answer(connection.sendall)
        else:
            connection.sendall(answer)


def _slowly(content: bytes, send: Send) -> None:
    """A byte every half of a second, without end."""
    while True:
        for byte in content or b"x":
            send(bytes([byte]))
            threading.Event().wait(0.5)


def _then_slowly(head: bytes, content: bytes, send: Send) -> None:
    send(head)
    _slowly(content, send)


def _forever(head: bytes, content: bytes, send: Send) -> None:
    send(head)
    while True:
        send(content)


def _silent(head: bytes, send: Send) -> None:
    send(head)
    threading.Event().wait(60)


def _led(place: bytes, status: bytes = b"302 Found") -> bytes:
    return (
        b"HTTP/1.1 " + status + b"\r\nLocation: " + place
        + b"\r\nContent-Length: 0\r\n\r\n"
    )  # fmt: skip


def _ranged(stated: bytes, content: bytes) -> Answers:
    """Half of the file, then its rest as `stated`."""
    half = SOUND[: -len(CONTENT) // 2]
    head = b"HTTP/1.1 206 Partial Content\r\n" + KIND + b'ETag: "a"\r\n'
    length = b"\r\nContent-Length: %d\r\n\r\n" % len(content)
    rest = head + b"Content-Range: " + stated + length + content
    return half, rest, SOUND


def _length(stated: bytes, content: bytes = CONTENT) -> bytes:
    return OK + KIND + b"Content-Length: " + stated + b"\r\n\r\n" + content


def _chunked(body: bytes) -> bytes:
    return OK + KIND + b"Transfer-Encoding: chunked\r\n\r\n" + body


def _answers(rng: np.random.Generator) -> Iterator[tuple[str, Answers]]:
    continued = b"HTTP/1.1 100 Continue\r\n\r\n"
    yield "a head slowly", (partial(_slowly, b"HTTP/1.1 200 OK\r\nX: "),)
    yield "a header slowly", (partial(_then_slowly, OK + b"X: ", b"y"),)
    yield "a body slowly", (partial(_then_slowly, SOUND[:300], b"z"),)
    yield "chunks slowly", (partial(_then_slowly, _chunked(b""), b"1\r\nx\r\n"),)
    yield "continue slowly", (partial(_slowly, continued),)
    yield "continue without end", (partial(_forever, b"", continued),)
    yield "headers without end", (partial(_forever, OK, b"X: y\r\n"),)
    yield "one header without end", (partial(_forever, OK + b"X: ", b"y" * 1000),)
    yield "a status without end", (partial(_forever, b"HTTP/1.1 200 ", b"K" * 1000),)
    yield "a body without end", (partial(_forever, OK + KIND + b"\r\n", b"y" * 65536),)
    yield "a chunk's size without end", (partial(_forever, _chunked(b""), b"0" * 99),)
    yield "more than stated", (partial(_forever, SOUND, b"y" * 65536),)
    for place in (b"", OK, SOUND[:200], _chunked(b"5\r\nab")):
        yield f"silent after {len(place)}", (partial(_silent, place),)
    for status in (
        100,
        101,
        102,
        201,
        204,
        205,
        206,
        300,
        304,
        400,
        401,
        403,
        404,
        418,
    ):
        head = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
        yield f"status {status}", (head,)
    for status in (0, 1, 99, 600, 999, 1000, 10**20, -1):
        yield f"status {status}", (b"HTTP/1.1 %d X\r\n\r\n" % status + CONTENT,)
    for line in (
        b"",
        b"\r\n",
        b"\x00" * 99,
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"SSH-2.0\r\n",
    ):
        yield f"a head of {line[:9]!r}", (line,)
    reason = b"HTTP/1.1 404 \x1b[2J[/bold]" + b"r" * 5000 + b"\r\n\r\n"
    yield "a reason of escapes", (reason,)
    for place in (
        *(b"", b"http://", b"http:///x", b"//", b"http://[", b"http://[::1", b"/x" * 9),
        *(b"http://\xff\xfe/", b"http://b\xfccher.invalid/", b"ftp://127.0.0.1/x"),
        *(b"file:///etc/passwd", b"http://127.0.0.1:99999/", b"http://127.0.0.1:x/"),
        *(b"http://" + b"a" * 300 + b"/", b"http://a..b/", b"http://*/", b"data:,x"),
        *(b"http://%00/", b"http://a b/", b"javascript:1", b"/\x1b[2J", b"?" * 70000),
        *("http://бюхер.invalid/".encode(), b"http://xn--a/", b"http://127.0.0.1:0/"),
        *(b"http://user:pass@127.0.0.1:9/", b"http://0x7f.1:9/", b"\\\\host\\share"),
        *(
            b"http://\xe2\x80\xae/",
            b"http://127.0.0.1:-1/",
            b"http://.:9/",
            b"mailto:x",
        ),
    ):
        yield f"leads to {ascii(place)[2:40]}", (_led(place),)
    yield "leads to itself", (_led(b"/file"),)
    yield "leads without a place", (b"HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n",)
    for stated in (
        *(
            b"9" * 5000,
            b"-1",
            b"0",
            b"1",
            b"1e9",
            b"0x10",
            b"+5",
            b"\xb2",
            b" ",
            b"1, 1",
        ),
        *(b"%d, %d" % (len(CONTENT), 5), b"9" * 15, b"%d" % 2**64, b"nan", b"\x1b[2J"),
        *(b"%d" % (len(CONTENT) - 1), b"%d" % (len(CONTENT) + 1), b"9" * 50),
    ):
        yield f"a length of {ascii(stated)[2:30]}", (_length(stated),)
    for body in (
        *(b"-5\r\nabcde\r\n0\r\n\r\n", b"xyz\r\n", b"\r\n\r\n", b"5\r\nabc", b"0\r\n"),
        *(
            b"F" * 5000 + b"\r\n",
            b"FFFFFFFFFFFFFFFF\r\nab",
            b"5\r\nabcdefgh\r\n0\r\n\r\n",
        ),
        *(
            b"5;" + b"x" * 70000 + b"\r\nabcde\r\n0\r\n\r\n",
            b" 5\r\nabcde\r\n0\r\n\r\n",
        ),
        *(b"\x1b[2J\r\n", b"0\r\nX: " + b"y" * 70000 + b"\r\n\r\n", b"+5\r\nabcde\r\n"),
        *(b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n", b"0x5\r\nabcde\r\n0\r\n\r\n"),
    ):
        yield f"chunks {ascii(body)[2:30]}", (_chunked(body),)
    half, n = len(CONTENT) - len(CONTENT) // 2, len(CONTENT)
    rest = CONTENT[half:]
    for stated in (
        *(
            b"",
            b"bytes",
            b"bytes */%d" % n,
            b"bytes 0-%d/%d" % (n - 1, n),
            b"bytes x-y/z",
        ),
        *(
            b"bytes %d-/%d" % (half, n),
            b"bytes %d-%d/*" % (half, n - 1),
            b"items 0-1/2",
        ),
        *(b"bytes %d-%d/%d" % (half, n - 1, 10**30), b"bytes %d-5/%d" % (half, n)),
        *(b"bytes %d-%d/%s" % (half, n - 1, b"9" * 5000), b"bytes -5-9/%d" % n),
        *(
            b"bytes %d-%d/%d" % (half, n * 2, n),
            b"\x1b[2J",
            b"bytes %d-%d/-1" % (half, n),
        ),
    ):
        yield f"a range {ascii(stated)[2:40]}", _ranged(stated, rest)
    right = b"bytes %d-%d/%d" % (half, n - 1, n)
    yield "a range that brings more", _ranged(right, rest + b"more")
    yield "a range that brings all", _ranged(right, CONTENT)
    yield "a range that brings less", _ranged(right, rest[:-5])
    short = b"bytes %d-%d/%d" % (half, half + 99, n)
    yield "a range of less that brings all", _ranged(short, rest)
    yield "a range of less", _ranged(short, rest[:100])
    yield (
        "a range without end",
        (
            SOUND[: -n // 2],
            partial(
                _forever,
                b"HTTP/1.1 206 X\r\nContent-Range: " + right + b"\r\n\r\n",
                rest,
            ),
        ),
    )
    for kind in (
        b"gzip",
        b"deflate",
        b"br",
        b"zstd",
        b"gzip, gzip",
        b"x" * 5000,
        b"\xff",
    ):
        coded = OK + KIND + b"Content-Encoding: " + kind + b"\r\n" + LENGTH + b"\r\n"
        yield f"encoded as {ascii(kind)[2:20]}", (coded + CONTENT,)
    bomb = OK + KIND + b"Content-Encoding: gzip\r\n\r\n"
    yield "a bomb", (partial(_forever, bomb + _zeros(), b""),)
    for tag in (b'"' + b"t" * 60000 + b'"', b'"\x1b[2J"', b'"\xff"', b'"a\x00b"', b'"'):
        head = OK + KIND + LENGTH + b"ETag: " + tag + b"\r\n\r\n"
        answers = (head + CONTENT[:half], head + CONTENT)
        yield f"a version {ascii(tag)[2:12]}", answers
    for wait in (b"9" * 5000, b"-5", b"x", b"\xb2", b"1e9", b"nan"):
        busy = (
            b"HTTP/1.1 503 X\r\nContent-Length: 0\r\nRetry-After: " + wait + b"\r\n\r\n"
        )
        yield f"busy for {ascii(wait)[2:12]}", (busy, SOUND)
    for k in range(30):  # of what a sound one sends
        n_flips = int(rng.choice([1, 2, 8]))
        head = bytearray(SOUND[: -len(CONTENT)])
        for place in rng.integers(0, len(head), n_flips).tolist():
            head[place] = int(rng.integers(256))
        yield f"a damaged head {k}", (bytes(head) + CONTENT,)


def _zeros() -> bytes:
    import gzip

    return gzip.compress(bytes(2**28), 1)


def _asked(answers: Answers, folder: Path) -> Callable[[], object]:
    server = Server(answers)
    limits = {
        "BACKOFF": 0.001,
        "STALL_TIMEOUT": STALL,
        "CONNECT_TIMEOUT": STALL,
        "LONGEST_WAIT": 0.01,
        "DEADLINE": DEADLINE,
        "LARGEST": 10**8,
    }

    def asked() -> None:
        try:
            with patch.multiple(downloads, **limits):
                path = downloads.download(f"{server.base}/file", folder / "file")
            print(hashlib.sha256(path.read_bytes()).hexdigest())
        finally:
            server.close()

    return asked


def _whole(outcome: Outcome) -> str | None:
    """What has come is the file, or as much as a server said that the file is."""
    if outcome.status:
        named = "127.0.0.1" in outcome.err
        return None if named else f"the server is not named: {outcome.err[:300]}"
    known = hashlib.sha256(CONTENT).hexdigest()
    return None if outcome.out.strip() == known else "another file counts as whole"


def _any(outcome: Outcome) -> str | None:
    """A server that states another length, or none, is believed."""
    return _whole(outcome) if outcome.status else None


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """What servers answer."""
    yield Case("servers/sound", partial(_asked, (SOUND,)), _whole, (0,))
    for name, answers in _answers(rng):
        own = name.startswith(
            ("a length", "chunks", "a damaged", "a head of", "encoded")
        )
        check = _any if own else _whole
        yield Case(f"servers/{name}", partial(_asked, answers), check)
