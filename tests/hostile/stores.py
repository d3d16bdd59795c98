"""Folders of results in which one file is damaged, edited or another program's."""

import copy
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ce_align.results import ResultStore
from ce_align.stages.scores import ScoreConfig, ScoreRow

from .harness import Case, Outcome

SHOWN = {"model": "pixels", "recording": "simulated", "layer": "pixels"}
#: What may stand in place of any value of JSON.
ODD: dict[str, Any] = {
    "null": None,
    "true": True,
    "a number": 3,
    "a float": -0.5,
    "a text": "[/bold]\x1b[31mx",
    "a long text": "y" * 20000,
    "a list": [1, 2],
    "lists": [["a"]],
    "an object": {"a": {"b": 1}},
    "400 digits": 10**400,
    "an empty text": "",
    "an empty list": [],
    "an empty object": {},
}
#: Documents that json cannot write.
TEXTS = {
    "nothing": b"",
    "half": b'{"stage": "score", "rows": [',
    "deep": b"[" * 100000,
    "NaN": b'{"stage": "score", "config_id": "x", "rows": [{"value": NaN}]}',
    "infinite": b'{"stage": "score", "rows": [{"model": "a", "value": 1e999}]}',
    "5000 digits": b'{"stage": "score", "rows": [{"value": ' + b"9" * 5000 + b"}]}",
    "no UTF-8": b'{"stage": "\xff", "rows": []}',
    "a surrogate": b'{"stage": "score", "rows": [{"model": "\\ud800", "value": 1}]}',
    "bytes": bytes(range(256)),
    "a BOM": b"\xef\xbb\xbf{}",
    "a list": b"[1]",
    "a text": b'"x"',
}
COMMANDS: tuple[Sequence[str], ...] = (
    ("results",),
    ("results", "--json"),
    ("tables", "--which", "1"),
    ("correlate",),
    ("results", "--full", "--model", "pixels"),
    ("figures", "--which", "forest", "--out", "figures"),
    ("report", "--out", "report.html"),
)


def _row(value: float, **further: Any) -> ScoreRow:
    known = {
        name: str(field.annotation)
        for name, field in ScoreRow.model_fields.items()
        if field.is_required()
    }
    plain = {"str": "x", "int": 3, "float": 0.25, "bool": False}
    filled = {
        name: next((v for k, v in plain.items() if k in kind), None)
        for name, kind in known.items()
    }
    return ScoreRow(**{**filled, **SHOWN, "value": value, **further})


@cache
def _document() -> dict[str, Any]:
    """A result of one score, as the store writes it."""
    with TemporaryDirectory() as folder:
        config = ScoreConfig(**SHOWN)
        path = ResultStore(Path(folder)).put(
            "score", "0" * 16, config, [_row(0.25, config_id="0" * 16)]
        )
        document = dict(json.loads(path.read_text()))
        del document["digest"]  # which would tell what is changed here
        return document


def _write(content: bytes, place: str, folder: Path) -> None:
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _sound(folder: Path) -> None:
    document = _document()
    _write(json.dumps(document).encode(), "results/score/sound.json", folder)


def _replaced(where: Sequence[Any], value: Any) -> bytes:
    """The document with another value at a place; ``...`` removes it."""
    document: Any = copy.deepcopy(_document())
    document["config_id"] = document["rows"][0]["config_id"] = "f" * 16
    part = document
    for key in where[:-1]:
        part = part[key]
    if value is ...:
        del part[where[-1]]
    else:
        part[where[-1]] = value
    return json.dumps(document).encode()


def _inputs(rng: np.random.Generator) -> Iterator[tuple[str, Callable[[Path], None]]]:
    document = _document()
    places = [(name,) for name in document]
    places += [("config", name) for name in document["config"]]
    places += [("rows", 0, name) for name in document["rows"][0]]
    places += [("rows", 0), ("environment", "numpy")]
    for where in places:
        spelled = ".".join(map(str, where))
        shown = {"nothing": ..., **ODD}
        few = len(where) > 1 and where[-1] not in (*SHOWN, "value", "config_id", 0)
        for what in rng.permutation(list(shown))[: 4 if few else None]:
            content = _replaced(where, shown[str(what)])
            yield f"{spelled} {what}", partial(_write, content, "results/score/f.json")
    yield "a further column", partial(_further, {"extra[/b]": {"a": [1]}})
    for what, value in ODD.items():
        yield f"a column of {what}", partial(_further, {"further": value})
    for what, content in TEXTS.items():
        yield f"content {what}", partial(_write, content, "results/score/f.json")
        failed = "results/score/failed/f.json"
        yield f"failure {what}", partial(_write, content, failed)
    whole = json.dumps(document).encode()
    for k in range(30):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=int(rng.integers(1, 5))):
            damaged[place] ^= 1 << int(rng.integers(8))
        yield f"flip {k}", partial(_write, bytes(damaged), "results/score/f.json")
    for share in range(1, 10):
        cut = whole[: len(whole) * share // 10]
        yield f"cut {share}", partial(_write, cut, "results/score/f.json")
    for name in ("[/bold].json", "\x1b[31m.json", "n" * 240 + ".json", " .json"):
        content = TEXTS["half"]
        yield f"name {name[:9]!r}", partial(_write, content, f"results/score/{name}")
    yield "room [/b]", partial(_write, whole, "results/[/b]\x1b[2J/f.json")
    yield "a FIFO", _fifo
    yield "a folder", partial(_write, b"", "results/score/f.json/x")
    for target in ("/dev/zero", "/proc/self/mem", "f.json", "/proc/self/fd/0"):
        yield f"link to {target}", partial(_link, target)


def _further(columns: dict[str, Any], folder: Path) -> None:
    document = copy.deepcopy(_document())
    document["rows"][0] |= columns
    _write(json.dumps(document).encode(), "results/score/f.json", folder)


def _fifo(folder: Path) -> None:
    (folder / "results" / "score").mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "results" / "score" / "f.json")


def _link(target: str, folder: Path) -> None:
    (folder / "results" / "score").mkdir(parents=True, exist_ok=True)
    (folder / "results" / "score" / "f.json").symlink_to(target)


def _still_shown(outcome: Outcome) -> str | None:
    """The sound result is shown whatever lies beside it."""
    if outcome.status:
        return f"nothing is shown: {outcome.err[:300]}"
    return None if "0.25" in outcome.out else "the sound result is not shown"


def _asked(
    write: Callable[[Path], None], command: Sequence[str], folder: Path
) -> Sequence[str]:
    _sound(folder)
    write(folder)
    return command


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """A store with a sound result and another file, read by each command in turn."""
    none = partial(_write, b"", "results/score/.hidden.json")
    for place, (name, write) in enumerate([("sound", none), *_inputs(rng)]):
        # Reports and figures take a second each.
        turn = place % 5 if place % 40 else 5 + place // 40 % 2
        command = COMMANDS[turn] if place else COMMANDS[0]
        shows = command[0] == "results"
        yield Case(
            f"stores/{command[0]}, {name}",
            partial(_asked, write, command),
            _still_shown if shows else lambda outcome: None,
            (0,) if shows else (0, 1, 2),
        )
