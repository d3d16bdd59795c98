"""Stand-ins for the authors: their server, with its moods, and their checkpoints."""

import datetime
import enum
import hashlib
import random
import re
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType

import numpy as np
import torch
from torchmetrics.classification import MulticlassAccuracy
from torchvision.models import shufflenet_v2_x0_5

from ce_align.models.catalogue import PUBLISHED


@dataclass
class Mood:
    """How the server treats one request.

    Attributes
    ----------
    status : refuse with this status
    headers : added to the answer
    cut : close the connection after so many bytes of the body
    pause : seconds before every 64 KiB of the body
    silent : after `cut` bytes, keep the connection open and send nothing
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    pause: float = 0.0
    silent: bool = False


class CheckpointServer:
    """Files on a local port.

    Attributes
    ----------
    files : content by path
    moods : of the next requests; afterwards `mood`
    ranges, tags : whether the server gives parts, and says which version it has
    heeds_versions : whether it gives parts only of the version that is asked for
    requests : path and Range header of every request so far
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.moods: list[Mood] = []
        self.mood = Mood()
        self.ranges = self.tags = self.heeds_versions = True
        self.requests: list[tuple[str, str | None]] = []
        self.released = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._http.daemon_threads = True
        self.base = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,)).start()

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()


def _handler_of(server: CheckpointServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            server.requests.append((self.path, asked))
            mood = server.moods.pop(0) if server.moods else server.mood
            content = server.files.get(self.path.lstrip("/"))
            status = mood.status or (404 if content is None else 200)
            body = content or b""
            headers = {"Content-Type": "application/octet-stream", **mood.headers}
            tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            if server.tags:
                headers["ETag"] = tag
            wanted = self.headers.get("If-Range", tag)
            version = headers.get("Last-Modified", tag)
            current = wanted in (tag, version) or not server.heeds_versions
            if status == 200 and asked and server.ranges and current:
                start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
                last = len(body) - 1
                status = 206 if start <= last else 416
                headers["Content-Range"] = f"bytes {start}-{last}/{len(body)}"
                body = body[start:]
            if status not in (200, 206):
                body = b""
            self.send_response(status)
            headers.setdefault("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # the client has gone
                self._send(body, mood)
            self.close_connection = True

        def _send(self, body: bytes, mood: Mood) -> None:
            end = len(body) if mood.cut is None else mood.cut
            for start in range(0, end, 65536):
                time.sleep(mood.pause)
                self.wfile.write(body[start : min(start + 65536, end)])
            if mood.silent:
                server.released.wait()

    return Handler


def small(name: str):
    """A published network whose architecture is small enough for quick tests."""
    return replace(
        PUBLISHED[name], architecture="shufflenet_v2_x0_5", layers={"IT": "conv5"}
    )


def small_network(seed: int = 3) -> torch.nn.Module:
    torch.manual_seed(seed)
    return shufflenet_v2_x0_5(num_classes=10).eval()


def authors_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Keys of the authors: backbone, momentum copy, heads and probe."""
    model = {}
    for key, values in network.state_dict().items():
        if key.startswith("fc."):
            model[f"module.lin_cls.{key[3:]}"] = values
        else:
            model[f"module.f.{key}"] = values
            model[f"module.mom_f.{key}"] = torch.zeros_like(values)
    for head in ("g", "g_equi", "mom_g"):
        model[f"module.{head}.0.weight"] = torch.randn(16, 32)
        model[f"module.{head}.1.running_mean"] = torch.zeros(16)
    return model


@contextmanager
def _absent_package(module: str, *classes: str):
    """Classes that can be pickled here, of a package that no reader has."""
    parts = module.split(".")
    names = [".".join(parts[: n + 1]) for n in range(len(parts))]
    for name in names:
        sys.modules[name] = ModuleType(name)
    for name in classes:
        setattr(sys.modules[module], name, type(name, (), {"__module__": module}))
    try:
        yield sys.modules[module]
    finally:
        for name in names:
            sys.modules.pop(name, None)


def write_authors_checkpoint(path, network, **changed) -> bytes:
    """File in Composer's layout with all that Composer keeps around the weights."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    with (
        _absent_package("composer.core.time", "Timestamp") as clock,
        _absent_package("lab.callbacks", "MomentumCallback") as lab,
    ):
        now, callback = clock.Timestamp(), lab.MomentumCallback()
        clock.TimeUnit = enum.Enum("TimeUnit", ["EPOCH"], module=clock.__name__)
        now.epoch, now.unit = 100, clock.TimeUnit.EPOCH
        now.started = datetime.datetime(2023, 5, 1, tzinfo=datetime.UTC)
        callback.schedule = np.linspace(0.99, 1, 5)
        state = {
            "model": authors_state(network),
            "optimizers": {"LARS": optimizer.state_dict()},
            "schedulers": {"CosineAnnealingWithWarmup": {"last_epoch": 62500}},
            "callbacks": [("MomentumCallback", callback)],
            "algorithms": [],
            "timestamp": {"Timestamp": now, "total_wct": datetime.timedelta(hours=15)},
            # Older releases pickle the metric itself, with functions that reduce it.
            "train_metrics": {"top1": MulticlassAccuracy(num_classes=10)},
            "scaler": {"scale": 65536.0, "growth_tracker": 3},
            "run_name": "barlow",
            "rank_zero_seed": 17,
            **changed,
        }
        rng = {
            "python": random.getstate(),
            "numpy": np.random.RandomState(0).get_state(),
            "generator": np.random.default_rng(0),
            "torch": torch.get_rng_state(),
            "cuda": [],
        }
        torch.save({"state": state, "rng": [rng]}, path)
    return path.read_bytes()
