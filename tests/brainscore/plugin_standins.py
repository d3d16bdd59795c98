"""Stand-ins for the published networks: tiny, random, and served on this machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from safetensors.torch import save_file

from ce_align.backbones import TinyResNet
from ce_align.models import catalogue


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Address at which the files of a folder are served."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_tiny_paper(monkeypatch) -> None:
    """Let the published networks be tiny ones."""
    for name, entry in catalogue.PUBLISHED.items():
        tiny = replace(entry, architecture="tiny")
        monkeypatch.setitem(catalogue.PUBLISHED, name, tiny)
        if entry.brainscore_id is not None:
            monkeypatch.setitem(catalogue._BY_BRAINSCORE_ID, entry.brainscore_id, tiny)


def save_tiny(path: Path, seed: int, n_classes: int | None = 10, **metadata: str):
    """Write the weights of a random tiny network whose blocks all contribute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = TinyResNet(n_classes=n_classes or 1).state_dict()
        for key, values in state.items():
            if key.endswith("bn2.weight"):
                torch.nn.init.uniform_(values, 0.5, 1.0)
    if n_classes is None:
        state = {key: v for key, v in state.items() if not key.startswith("fc.")}
    save_file(state, path, metadata or None)
    return path


def cache_tiny(name: str, seed: int = 0) -> Path:
    """Put random tiny weights where a published network's are kept."""
    from ce_align.files import cache_folder

    return save_tiny(cache_folder("checkpoints") / f"{name}.safetensors", seed)


def own_training(folder: Path, seed: int = 0, n_classes: int | None = None) -> Path:
    """The folder of a training of one's own at 32 pixels, with its weights."""
    save_tiny(
        folder / catalogue.EXPORTED,
        seed,
        n_classes,
        architecture="tiny",
        input_size="32",
        interpolation="bicubic",
        config='{"objective": "mmcr", "equivariance_weight": 0.1, "epochs": 2}',
    )
    return folder
