"""Folders and files that may not be written or read, at every command that does so."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ce_align.cli import main

from .command_lines import toy_recording
from .harness import Case, Outcome

SCORE = "score --model pixels --recording toy.nc --layer pixels --regression ridge"
IMPORT = "import toy.npy --images images --axes stimulus,neuroid --region IT"
#: Lines that write into a folder, for whose name "{}" stands.
WRITES = (
    f"{SCORE} --splits 2 --stratify none --results {{}}",
    f"{SCORE} --splits 2 --stratify none --results {{}}/deep/results",
    "similarity --model pixels --recording toy.nc --metric cka --results {}",
    "analyze --model pixels --layer pixels --images images --metric dimensionality "
    "--views 4 --comparisons 10 --size 16 --results {}",
    f"{IMPORT} --out {{}}/new.nc",
    "import-scores table.csv --results {}",
    "pack images {}/packed --short-edge 8",
    "train --objective barlow --weight 0.2 --images images --preset tiny --out {}/run",
    "report --out {}/report.html",
    "tables --out {}/tables",
    "figures --out {}/figures",
    "submit --model torchvision/resnet18:none --weights embed --layer IT=avgpool "
    "--out {}/plugins",
    "export torchvision/resnet18:none --hub {}/hub",
    "run recipe.py --results {}",
    "sweep start recipe.py --results {}",
    "demo --out {}/demo",
    "results --results {}",
    "recordings",
)
#: What is written or read below a folder that commands share.
SHARED = ("CE_ALIGN_HOME", "TMPDIR")
#: Files that lines read.
READS = (
    (f"{SCORE} --splits 2 --stratify none", "toy.nc"),
    (f"{SCORE} --neuroids table.csv", "table.csv"),
    ("score --model net.py:build --recording toy.nc --layer 0", "net.py"),
    (
        f"{IMPORT} --out new.nc",
        "images",
    ),
    (
        f"{IMPORT} --out new.nc",
        "toy.npy",
    ),
    ("import-scores table.csv", "table.csv"),
    ("pack images packed --short-edge 8", "images"),
    ("pack images packed --short-edge 8", "images/0.png"),
    ("run recipe.py", "recipe.py"),
    ("results", "results"),
    ("results", "results/score"),
    ("report --others table.csv", "table.csv"),
)
MODES = (0o000, 0o400, 0o500)
RECIPE = '''"""Toy."""
from ce_align.stages.scores import ScoreConfig
RECIPE = [ScoreConfig(model="pixels", recording="toy.nc", layer="pixels", splits=2)]
'''
#: By which root reads and writes what it may not.
CAPABILITIES = 1 << 1 | 1 << 2


@contextmanager
def _bound() -> Iterator[None]:
    """Let the system refuse to root what it refuses to everybody."""
    libc = ctypes.CDLL(None)
    head, held = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(head, held)
    effective = held[0]
    held[0] &= ~CAPABILITIES
    libc.capset(head, held)
    try:
        yield
    finally:
        held[0] = effective
        libc.capset(head, held)


def _content(folder: Path) -> None:
    (folder / "toy.nc").write_bytes(toy_recording())
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for place in range(6):
        pixels = rng.integers(256, size=(48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{place}.png")
    np.save(folder / "toy.npy", np.arange(18.0).reshape(6, 3))
    (folder / "table.csv").write_text(
        "model,benchmark,score\npixels,MajajHong2015.IT-pls,0.5\n"
    )
    (folder / "recipe.py").write_text(RECIPE)
    (folder / "net.py").write_text("from torch import nn\nbuild = nn.Identity\n")
    (folder / "results" / "score").mkdir(parents=True)
    (folder / "closed").mkdir()


def _run(line: str, shared: str | None) -> None:
    before = os.environ.copy()
    sys.argv = ["ce-align", *line.split()]
    if shared is not None:
        os.environ[shared] = str(Path("closed").absolute())
    try:
        with _bound():
            main()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _refused(
    line: str, closed: str, mode: int, shared: str | None, folder: Path
) -> Callable[[], None]:
    """A line, while a file or folder may not be used."""
    _content(folder)
    (folder / closed).chmod(mode)
    return partial(_run, line, shared)


def _said(outcome: Outcome) -> str | None:
    """Why nothing was done is a line with the name of what may not be used."""
    if outcome.status == 0:
        return None
    return None if "error: " in outcome.err else "it does not say why"


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Every command that writes or reads, where it may not."""
    first = partial(_refused, WRITES[0].format("open"), "closed", 0o700, None)
    yield Case("permissions/sound", first, statuses=(0,))
    for mode in MODES:
        for line in WRITES:
            made = partial(_refused, line.format("closed"), "closed", mode, None)
            yield Case(f"permissions/{mode:o} {line[:40]}", made, _said)
        for line, closed in READS:
            made = partial(_refused, line, closed, mode, None)
            yield Case(f"permissions/{mode:o} {closed} of {line[:30]}", made, _said)
        for shared in SHARED:
            for line in WRITES[:7]:
                line = line.format("open")
                made = partial(_refused, line, "closed", mode, shared)
                yield Case(f"permissions/{mode:o} {shared} of {line[:30]}", made, _said)
