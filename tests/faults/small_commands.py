"""Commands of every kind on inputs so small that each takes about a second."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ce_align.data.imagesets import ImageSet
from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording
from ce_align.results import ResultStore
from ce_align.stages.scores import ScoreConfig, ScoreRow

NETWORKS = """
import torch
def build(seed=0):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.Tanh(), torch.nn.Flatten())
    network.ce_align = dict(input_size=32, layers=dict(IT="2"))
    return network
def other():
    return build(7)
"""
NETWORK = ("--model", "nets.py:build")
SCORE = ("score", *NETWORK, "--recording", "toy.nc", "--components", 3, "--splits", 2)
VIEWS = ("--size", 32, "--comparisons", 10, "--views", 4, "--repeats", 1)
VIEWS += ("--crops", 4, "--photometrics", 4, "--metric", "bures")
TRAIN = ("train", "--objective", "mmcr", "--weight", 0.3, "--preset", "tiny")
TRAIN += ("--workers", 0, "--images", "images", "--epochs", 2, "--pairs-per-step", 4)
SWEPT = {"model": "pixels", "recording": "toy.nc", "layer": "pixels"}
SWEPT |= {"components": 3, "splits": 2}

#: What each command is given. Those of `BEFORE` have been run in its folder.
COMMANDS: dict[str, tuple[Any, ...]] = {
    "import": (
        *("import", "responses.npy", "--images", "images", "--region", "IT"),
        *("--degrees", 8, "--axes", "stimulus,repetition,neuroid", "--out", "mine.nc"),
        "--force",
    ),
    "score": SCORE,
    "similarity": ("similarity", *NETWORK, "--recording", "toy.nc", "--metric", "cka"),
    "analyze": ("analyze", *NETWORK, "--images", "images", *VIEWS),
    "transfer": (
        *("transfer", "--model", "pixels", "--dataset", "shades"),
        *("--size", 8, "--repeats", 1),
    ),
    "train": TRAIN,
    "pack": ("pack", "images", "packed"),
    "export": ("export", "runs/mmcr_l0.3", "--hub", "hub"),
    "sweep": ("sweep", "plan.yaml", "--where", "here", "--minutes", 0),
    "figures": ("figures", "--which", 3, "--results", "rows"),
    "tables": ("tables", "--which", 5, "--results", "rows"),
    "report": ("report", "--results", "rows"),
    "submit": (
        *("submit", "--model", "runs/mmcr_l0.3", "--out", "mine.zip"),
        *("--weights", "embed", "--identifier", "mine", "--force"),
    ),
}
#: The plugin as a folder, not an archive.
COMMANDS["submit folder"] = tuple(
    "plugins" if word == "mine.zip" else word for word in COMMANDS["submit"]
)
#: Files that are equal to the byte if what they hold is.
COMPARED = (
    *(".npy", ".u8", ".safetensors", ".csv", ".md", ".tex", ".svg", ".png", ".pdf"),
    *(".zip", ".yaml"),
)
BEFORE: dict[str, tuple[str, ...]] = {
    "export": ("train",),
    "submit": ("train",),
    "submit folder": ("train",),
}
FETCHED = "ce_mmcr_l0.1"


def serve_a_network(
    server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, ...]:
    """Let a `CheckpointServer` have a published network; the command that fetches."""
    from checkpoint_server import (  # type: ignore[import-not-found]
        small,
        small_network,
        write_authors_checkpoint,
    )

    from ce_align.models import catalogue, downloads, fetching

    monkeypatch.setattr(downloads, "BACKOFF", 0.001)
    monkeypatch.setattr(fetching, "PACKAGED", folder / "checksums.toml")
    monkeypatch.setitem(catalogue.PUBLISHED, FETCHED, small(FETCHED))
    server.files[small(FETCHED).path] = write_authors_checkpoint(
        folder / "checkpoint", small_network()
    )
    return ("fetch", FETCHED, "--url", server.base)


def store_scores(folder: Path) -> None:
    """Made-up scores of networks against a simulated recording."""
    for k, model in enumerate(("ce_mmcr_l0", "ce_mmcr_l0.1")):
        config = ScoreConfig(model=model, recording="simulated", layer="layer4")
        row = ScoreRow(
            model=model,
            layer="layer4",
            model_digest=f"network {k}",
            recording="simulated",
            region="IT",
            recording_digest="r",
            metric="predictivity",
            value=0.3 + 0.1 * k,
            config_id=f"c{k}",
            raw=0.5 + 0.05 * k,
            error=0.01,
            ceiling=0.8,
            seed=1,
            n_stimuli=640,
            n_neuroids=96,
            n_splits=10,
            regression="pls",
        )
        ResultStore(folder).put("score", f"c{k}", config, [row])


def prepare(place: Path) -> None:
    """Write what the commands read into a folder."""
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 4, 4, 3), np.uint8)
    pixels = pixels.repeat(8, axis=1).repeat(8, axis=2)
    for split in ("train", "val", "test"):
        for kind in ("dark", "light"):
            (place / "shades" / split / kind).mkdir(parents=True)
    (place / "images").mkdir()
    for i, image in enumerate(map(Image.fromarray, pixels)):
        image.save(place / "images" / f"{i:02d}.png")
        split, kind = ("train", "val", "test")[i % 3], ("dark", "light")[i // 3 % 2]
        image.save(place / "shades" / split / kind / f"{i}.png")
    responses = rng.normal(size=(24, 4, 3)) + rng.normal(size=(24, 1, 3))
    np.save(place / "responses.npy", responses)
    images = ImageSet.from_array("toy", pixels)
    recording = Recording("toy", images, responses, ("a", "b", "c"), "IT")
    write_recording(recording, place / "toy.nc")
    store_scores(place / "rows")
    (place / "nets.py").write_text(NETWORKS)
    # Which is YAML.
    plan = {"score": [{**SWEPT, "seed": [0, 1, 2]}]}
    (place / "plan.yaml").write_text(json.dumps(plan))


def unfinished(place: Path) -> list[Path]:
    """What was begun and is not whole, wherever it lies below a folder."""
    return [p for p in place.rglob("*") if p.name.endswith(".part") or ".tmp" in p.name]


def products(place: Path) -> dict[str, str]:
    """Content of what commands have written, less what tells when and where."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.suffix == ".json" and path.parent.parent.name == "results":
            rows = json.loads(path.read_text())["rows"]
            found[name] = json.dumps([{**row, "created": ""} for row in rows])
        # A training that goes on begins another log.
        elif path.suffix in COMPARED and "/log/" not in name:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
