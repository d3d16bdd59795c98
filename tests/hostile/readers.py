"""Files that commands read, in whose place is a FIFO, a device, a folder or a loop."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.numpy import save

from .command_lines import toy_recording
from .harness import Case

SCORE = "score --model {} --recording toy.nc --layer pixels --regression ridge"
NETWORK = """
from torch import nn
import helper

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
"""
#: Files that a line reads: the first takes another form in turn, the others are sound.
READ: Mapping[str, tuple[str, ...]] = {
    f"{SCORE.format('pixels')} --neuroids ids.txt": ("ids.txt",),
    f"{SCORE.format('features:f.npy')}": ("f.npy",),
    f"{SCORE.format('features:f.npz')}": ("f.npz",),
    f"{SCORE.format('features:f.npy:ids.csv')}": ("ids.csv", "f.npy"),
    f"{SCORE.format('net.py:build')}": ("net.py",),
    f"{SCORE.format('net.py:build')} --splits 2": ("helper.py", "net.py"),
    f"{SCORE.format('w.pt:resnet18')}": ("w.pt",),
    f"{SCORE.format('w.safetensors:resnet18')}": ("w.safetensors",),
    f"{SCORE.format('local-dir:hub')}": ("hub/config.json", "hub/model.safetensors"),
    f"{SCORE.format('local-dir:hub')} --splits 2": (
        *("hub/model.safetensors", "hub/config.json"),
    ),
    "score --model pixels --recording x.nc": ("x.nc",),
    "correlate --rows rows.json": ("rows.json",),
    "report --others scores.csv": ("scores.csv",),
    "report --runs run": ("run/log/version_0/metrics.csv",),
    "import-scores scores.csv": ("scores.csv",),
    "import t.csv --out r.nc --images images": ("t.csv",),
    "import a.npy --out r.nc --images images": ("a.npy",),
    "import a.mat --out r.nc --images images": ("a.mat",),
    "import a.nwb --out r.nc --images images": ("a.nwb",),
    "import a.h5 --out r.nc --images images": ("a.h5",),
    "results": ("results/score/f.json",),
    "tables": ("results/score/f.json",),
    "run recipe.py": ("recipe.py",),
    "run plan.yaml": ("plan.yaml",),
    "sweep status": ("results/.sweep/plans/f.json",),
    "sweep start plan.yaml --dry-run": ("plan.yaml",),
    "train --config t.yaml --dry-run": ("t.yaml",),
    "submit --check plugin --no-run": ("plugin/__init__.py", "plugin/model.py"),
    "submit --check plugin --no-run --json": ("plugin/model.py", "plugin/__init__.py"),
    "submit --check ./plugin --no-run": (
        *("plugin/metadata.yml", "plugin/model.py", "plugin/__init__.py"),
    ),
    "submit --check ./plugin --no-run --json": (
        *("plugin/region_layer_map/x.json", "plugin/model.py", "plugin/__init__.py"),
    ),
    "submit --check p.zip --no-run": ("p.zip",),
    "submit --model pixels --out out --bibtex b.bib": ("b.bib",),
    "export w.safetensors:resnet18 --hub out": ("w.safetensors",),
}
FORMS: Mapping[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "circle": lambda path: path.symlink_to(path.name),
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "/proc/kmsg": lambda path: path.symlink_to("/proc/kmsg"),
}


@cache
def _sound(suffix: str) -> bytes:
    """Content of a file of a kind."""
    values = np.arange(72, dtype=np.float32).reshape(24, 3)
    if suffix == ".safetensors":
        return save({"weight": values})
    with TemporaryDirectory() as folder:
        if suffix == ".npy":
            np.save(Path(folder) / "x.npy", values)
            return (Path(folder) / "x.npy").read_bytes()
    texts = {
        ".json": json.dumps({"architecture": "resnet18", "stage": "score", "rows": []}),
        ".py": "IDENTIFIER = 'x'\n",
        ".csv": "model,score\npixels,0.5\n",
    }
    return texts.get(suffix, "x\n").encode()


def _placed(
    line: Sequence[str],
    names: tuple[str, ...],
    form: Callable[[Path], object] | None,
    folder: Path,
) -> Sequence[str]:
    (folder / "toy.nc").write_bytes(toy_recording())
    (folder / "images").mkdir()
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == names[0] and form is not None:
            form(path)
        else:
            content = NETWORK.encode() if name == "net.py" else _sound(path.suffix)
            path.write_bytes(content)
    return line


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every file in every form."""
    sound = partial(_placed, ["results"], (), None)
    yield Case("readers/sound", sound, statuses=(0,))
    for line, names in READ.items():
        for what, form in FORMS.items():
            made = partial(_placed, line.split(), names, form)
            yield Case(f"readers/{line[:40]} {names[0]}: {what}", made)
