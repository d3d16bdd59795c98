"""A local stand-in for Brain-Score's storage: S3's answers to the requests it makes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

#: Only requests that this key has signed may read private files.
READER = "AKIAREADER"

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"


class Storage:
    """Files by key, those that are private, and the requests that came."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.private: set[str] = set()
        self.torn: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.address = ""

    def add(self, files: dict[str, Path], *, private: bool) -> None:
        for name, path in files.items():
            key = f"/brainscore-storage/brainio-brainscore/{name}"
            self.files[key] = path
            if private:
                self.private.add(key)


@contextmanager
def serving(storage: Storage) -> Iterator[Storage]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            key = self.path.partition("?")[0]
            storage.requests.append((self.command, key))
            allowed = READER in self.headers.get("Authorization", "")
            if key in storage.private and not allowed:
                self.refuse(403, "AccessDenied", body)
            elif key not in storage.files:
                self.refuse(404, "NoSuchKey", body)
            else:
                content = storage.files[key].read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", '"0"')
                self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
                self.end_headers()
                if body:
                    torn = key in storage.torn
                    self.wfile.write(content[:100] if torn else content)
                    self.close_connection = torn

        def refuse(self, status: int, code: str, body: bool) -> None:
            content = ERROR.format(code=code).encode() if body else b""
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    storage.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield storage
    finally:
        server.shutdown()
        server.server_close()
