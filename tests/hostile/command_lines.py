"""Command lines from a grammar: sound ones, in which words are changed."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from typer.main import get_group

from ce_align.cli.app import COMMANDS
from ce_align.data.netcdf import write_recording
from ce_align.data.simulation import simulated_recording

from .harness import Case, Outcome

SCORE = "score --model pixels --recording toy.nc --regression ridge --splits 2"
ANALYSE = (
    "analyze --model pixels --images images --comparisons views --views 4 --size 16"
)
TRAIN = "train --objective barlow --weight 0.2 --images images --preset tiny --dry-run"
#: Lines that are answered soon; most of their words are changed in turn. Those of the
#: second part are refused as they stand, before they do anything.
SOUND = (
    *(f"{SCORE} --stratify none --json", f"{SCORE} --stratify none --sort value"),
    "similarity --model pixels --recording toy.nc --metric rsa",
    *("correlate --rows rows.json", "results", "results --json", "tables --out tables"),
    *("models ce_*", "recordings", "recordings --json", "report --out r.html"),
    *("figures --out figures --which 2", "pack images packed --short-edge 8", TRAIN),
    *("import-scores table.csv", "sweep status plan.py", "--version", "--help"),
    *("import toy.npy --images images --out new.nc --axes stimulus,neuroid",),
    "export pixels --hub folder",
)
REFUSED = (
    *(ANALYSE, "compare pixels gabor --recording toy.nc --resamples 10"),
    "overlap --model pixels --model gabor --recording toy.nc --folds 2",
    "transfer --model pixels --dataset images --size 16 --repeats 1",
    "fetch ce_mmcr_l0.1 --url http://127.0.0.1:9",
    *("submit --model pixels --out plugins", "submit --check folder --no-run"),
    *("run recipe.py --dry-run", "sweep start recipe.py --dry-run"),
    *("sweep logs plan.py 1", "register nothing", "demo --out /proc/nowhere"),
)
#: Words in the place of others: numbers, texts, and what is no file to be read.
ODD = (
    *("", " ", "-", "--", "-1", "0", "1", "1e400", "nan", "inf", "9" * 20, "9" * 5000),
    *("0.0000001", "-0", "0x10", "1_000", "١", "true", "None", "[]", "{}", "a=b", "="),
    *("x" * 300, "x/" * 3000, "é" * 200, "\udcff", "\x1b[31m\x1b[2J", "a\nb\r\tc"),
    *("[/bold]", "[bold", "[link=http://x]", "%s%n", "$HOME", "~", "~nobody", "?"),
    *(",", ":", "::", "a:b:c", "@", "toy.nc:", "toy.nc@x", "..", ".", "../..", "a\\b"),
    *("/dev/null", "/dev/full", "/dev/zero", "/proc/nowhere", "/proc/self/mem"),
    *(
        "fifo",
        "loop",
        "gone",
        "folder",
        "empty",
        "toy.nc",
        "toy.npy",
        "images",
        "folder/",
    ),
    *("toy.nc/x", "broken.zip", "broken.pt", "broken.safetensors", "broken.py:net"),
    *("broken.json", "broken.toml", "table.csv", "http://127.0.0.1:9/x", "http://[x"),
    *("brainscore/x", "timm/x", "torchvision/x", "hf:x/y", "local-hub:folder", "-o"),
)
#: Options whose values name what is written: these the root of a disk is too good for.
OPTIONS_THAT_WRITE = ("--out", "--results", "--hub", "--root", "--figure", "--runs")


@cache
def toy_recording() -> bytes:
    made = simulated_recording(
        n_images=24, n_neuroids=3, n_repetitions=2, image_size=32
    )
    with TemporaryDirectory() as folder:
        write_recording(made.recording, Path(folder) / "toy.nc")
        return (Path(folder) / "toy.nc").read_bytes()


def _content(folder: Path) -> None:
    """Files that the lines name."""
    (folder / "toy.nc").write_bytes(toy_recording())
    (folder / "images").mkdir()
    shades = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    for place, pixels in enumerate(shades):
        Image.fromarray(pixels).save(folder / "images" / f"{place}.png")
    np.save(folder / "toy.npy", np.arange(12.0).reshape(4, 3))
    (folder / "folder").mkdir()
    (folder / "empty").touch()
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "gone").symlink_to("nowhere")
    for name in ("zip", "pt", "safetensors", "json", "toml", "py"):
        (folder / f"broken.{name}").write_bytes(b"\x80\x00{[(\xff" * 9)
    (folder / "table.csv").write_text("model,benchmark,score\nCE-MMCR,[/bold],\n")
    (folder / "recipe.py").write_text("CONFIGS = [1]\n")
    (folder / "plan.py").write_text("PLAN = 3\n")
    (folder / "rows.json").write_text("[]")


@cache
def _options(name: str) -> tuple[tuple[str, bool], ...]:
    """Options of a command, and whether each takes a value."""
    module = import_module(f"ce_align.cli.{COMMANDS[name][0]}")
    found = get_group(module.commands).commands[name].params
    return tuple(
        (one.opts[0], not getattr(one, "is_flag", False))
        for one in found
        if one.opts[0].startswith("-")
    )


def _prepared(folder: Path, line: Sequence[str]) -> Sequence[str]:
    _content(folder)
    return line


def _parsed(outcome: Outcome) -> str | None:
    """Rows that a line asks for as JSON are JSON."""
    if outcome.status == 0:
        try:
            json.loads(outcome.out)
        except ValueError:
            return f"no JSON: {outcome.out[:200]}"
    return None


def _told(outcome: Outcome) -> str | None:
    return None


def _changed(words: list[str], rng: np.random.Generator) -> list[str]:
    """A line of which a word is left out, repeated, exchanged, replaced or added."""
    place, odd = (
        int(rng.integers(1, len(words))),
        str(rng.choice(np.array(ODD, object))),
    )
    before, word, after = words[:place], words[place], words[place + 1 :]
    changes: list[Callable[[], list[str]]] = [
        lambda: [*before, *after],
        lambda: [*before, word, word, *after],
        lambda: [*before, *after, word],
        lambda: [*before, odd, *after],
        lambda: [*before, odd, word, *after],
        lambda: [*words, odd],
        lambda: [*before, f"{word}={odd}", *after],
    ]
    return changes[int(rng.integers(len(changes)))]()


def _lines(rng: np.random.Generator) -> Iterator[list[str]]:
    for line in (*SOUND, *REFUSED):
        words = line.split()
        if len(words) > 1:
            for _ in range(8):
                yield _changed(words, rng)
        for option, valued in _options(words[0]) if words[0] in COMMANDS else ():
            yield from _with(words, option, valued, rng)
    for odd in ODD:
        yield [odd]
    for line in ("report --out /", "tables --out ''", "results --stage /"):
        yield line.replace("''", "").split(" ")


def _with(
    words: list[str], option: str, valued: bool, rng: np.random.Generator
) -> Iterator[list[str]]:
    """A line with an option more, once or thrice, of a value that does not suit it."""
    for _ in range(2 if valued else 1):
        odd = str(rng.choice(np.array(ODD, object)))
        if option in words[1:-1] and valued:
            place = words.index(option) + 1
            yield [*words[:place], odd, *words[place + 1 :]]
        else:
            yield [*words, option, *([odd] if valued else [])]


def _safe(line: Sequence[str]) -> bool:
    """Whether a line neither writes beside its folder nor works for minutes."""
    away = ("..", "../..", "~", "/", "~nobody", "$HOME")
    long = line[0] in ("demo", "benchmark", "doctor") and "/proc/nowhere" not in line
    return not long and not any(word.split("=")[-1] in away for word in line[1:])


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Sound lines, then those with a word that does not belong there."""
    yield Case(
        "command_lines/sound", partial(_prepared, line=SOUND[0].split()), _parsed, (0,)
    )
    for line in SOUND[1:]:
        yield Case(f"command_lines/{line}", partial(_prepared, line=line.split()))
    seen = set()
    for line in _lines(rng):
        if tuple(line) not in seen and line and (_safe(line) or line[-1] == "/"):
            seen.add(tuple(line))
            name = ascii(" ".join(line))[1:-1][:150]
            check = _parsed if "--json" in line and "--help" not in line else _told
            yield Case(f"command_lines/{name}", partial(_prepared, line=line), check)
