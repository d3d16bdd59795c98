"""Checkpoints, of ``torch.save`` and of safetensors, damaged or made to do harm."""

import io
import json
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial, reduce
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ce_align.backbones import own_backbone
from ce_align.models.checkpoints import save_safetensors

from .command_lines import toy_recording
from .harness import Case, Outcome

SCORE = "--recording toy.nc --regression ridge --splits 2 --stratify none --json"
#: A modulus: Python's hash of this number, and of its multiples, is nought.
PRIME = 2**61 - 1
ESCAPES = "\x1b[2J\x1b]0;x\x07[/bold]\r"
METADATA = {
    "architecture": "tiny",
    "input_size": "[32, 32]",
    "mean": "[0.5, 0.5, 0.5]",
    "std": "[0.5, 0.5, 0.5]",
    "layers": '{"IT": "layer2"}',
    "config": '{"objective": "barlow", "equivariance_weight": 0.2, "families": []}',
}
#: Texts in the place of metadata.
ODD = (
    *("", "null", "0", "-1", "1e999", "NaN", "4096", "[4096, 4096]", "1" * 400, "[]"),
    *(
        "[1, 2, 3]",
        "1024",
        "1025",
        "[32.5, 32]",
        '"32"',
        "[0, 0, 0]",
        "[1e308, 1, 1]",
        "{}",
    ),
    *('{"IT": 3}', '{"IT": null}', '{"\\u001b[2J": "x"}', '{"IT": "nothing"}', ESCAPES),
    *("[" * 1000 + "]" * 1000, "[" * 10**5, '{"a":' * 1000 + "1" + "}" * 1000),
    *("x" * 10**6, '"' + "y" * 10**6 + '"', "[" + "1," * 10**5 + "1]", "timm/x"),
    *('{"objective": "' + "z" * 10**6 + '"}', '{"objective": "\\u001b[31m[/bold]"}'),
    *('{"equivariance_weight": 1e999, "seed": "x"}', '{"families": ' + "[" * 2000),
    *("resnet50", "regnet_y_128gf", "vit_h_14", "../../x", "tiny\ud7ff"),
)


@cache
def _state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return own_backbone("tiny", 4).eval().state_dict()


@cache
def _torch_bytes(legacy: bool = False, wrapped: bool = False) -> bytes:
    target = io.BytesIO()
    state: Any = {"model": _state(), "epoch": 3, "log": ["a"]} if wrapped else _state()
    torch.save(state, target, _use_new_zipfile_serialization=not legacy)
    return target.getvalue()


def _write(content: bytes, folder: Path) -> None:
    (folder / "bad.pt").write_bytes(content)


def _entries() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(_torch_bytes())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zipped(changed: dict[str, bytes], folder: Path) -> None:
    """The sound file with other entries; those that are empty are left out."""
    entries = _entries()
    root = next(iter(entries)).partition("/")[0]
    entries |= {f"{root}/{name}": content for name, content in changed.items()}
    with zipfile.ZipFile(folder / "bad.pt", "w") as archive:
        for name, content in entries.items():
            if content:
                archive.writestr(name, content)


def _pickled(content: Callable[[], bytes], folder: Path) -> None:
    _zipped({"data.pkl": content()}, folder)


def _text(content: str) -> bytes:
    encoded = content.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _number(value: int) -> bytes:
    length = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)


def _beside(extra: bytes) -> bytes:
    """Pickle of a dictionary with the sound state, and something beside it."""
    pickled = next(v for k, v in _entries().items() if k.endswith("data.pkl"))
    sound = pickled.removesuffix(b".")
    return sound[:2] + b"}(" + _text("model") + sound[2:] + _text("x") + extra + b"u."


def _numbers(n: int, key: Callable[[int], bytes]) -> bytes:
    return b"}(" + b"".join(key(k) + b"N" for k in range(n)) + b"u"


def _paired(k: int) -> tuple[int, int]:
    """The k-th of many pairs of numbers of one hash, as CPython makes that of a tuple.

    The state after the first number is cancelled by the second.
    """
    one, two, five = 11400714785074694791, 14029467366897019727, 2870177450012600261
    bits, inverse = 2**64, pow(14029467366897019727, -1, 2**64)
    first = k % PRIME
    state = (five + first * two) % bits
    state = ((state << 31 | state >> 33) % bits) * one % bits
    return first, (0 - state) * inverse % bits


def _pairs(n: int) -> bytes:
    """Keys that are pairs of one hash; numbers whose hash they are not are left out."""
    found = (pair for pair in map(_paired, range(16 * n)) if pair[1] < PRIME)
    keys = (_number(a) + _number(b) + b"\x86" for a, b in islice(found, n))
    return b"}(" + b"".join(key + b"N" for key in keys) + b"u"


def _nested(n: int, opening: bytes, closing: bytes) -> bytes:
    return opening * n + b"N" + closing * n


def _tensor(**changed: bytes) -> bytes:
    """Pickle of a tensor below the name `conv1.weight`, its parts replaced."""
    parts = {
        "storage": b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0")
        + _text("cpu") + b"K\x04tQ",
        "offset": b"K\x00",
        "size": b"K\x04\x85",
        "stride": b"K\x01\x85",
        "grad": b"\x89",
        "hooks": b"}",
    }  # fmt: skip
    body = b"(" + b"".join({**parts, **changed}.values()) + b"t"
    made = b"ctorch._utils\n_rebuild_tensor_v2\n" + body + b"R"
    return b"\x80\x02}" + _text("conv1.weight") + made + b"s."


#: What stands beside the weights.
BESIDE: dict[str, Callable[[], bytes]] = {
    "numbers of one hash": lambda: _numbers(40_000, lambda k: _number(k * PRIME)),
    "negative numbers of one hash": lambda: _numbers(
        40_000, lambda k: _number(-k * PRIME - 5)
    ),
    "pairs of one hash": lambda: _pairs(40_000),
    "tuples of numbers of one hash": lambda: _numbers(
        40_000, lambda k: _number(k * PRIME) + b"\x85"
    ),
    "floats of one hash": lambda: _numbers(
        900, lambda k: b"G" + struct.pack(">d", 2.0 ** (k + 61))
    ),
    "not-a-numbers": lambda: _numbers(
        40_000, lambda k: b"G" + struct.pack(">d", float("nan"))
    ),
    "a set of one hash": lambda: (
        b"\x8f(" + b"".join(_number(k * PRIME) for k in range(40_000)) + b"\x90"
    ),
    "low bits alike": lambda: _numbers(100_000, lambda k: _number(k << 40)),
    "lists within lists": lambda: _nested(100_000, b"]", b"a"),
    "tuples within tuples": lambda: b"N" + b"\x85" * 100_000,
    "dictionaries within": lambda: _nested(20_000, b"}K\x01", b"s"),
    "a key of 10 MB": lambda: b"}" + _text("k" * 10**7) + b"Ns",
    "keys of escapes": lambda: _numbers(9, lambda k: _text(ESCAPES + str(k))),
    "a text of escapes": lambda: _text(ESCAPES),
    "a million numbers": lambda: b"](" + b"K\x01" * 10**6 + b"e",
    "tensors of another name": lambda: b"}" + _text(ESCAPES) + _tensor()[2:-1] + b"s",
}

#: What stands for the tensor, or for a part of it.
PARTS = (
    *(b"N", b"K\x01", b"K\xff", b"\x89", b"}", b"]", b")", b"J\xff\xff\xff\xff"),
    *(_text("0"), _text(ESCAPES), _text("s" * 10**6), _number(2**62), _number(2**500)),
    *(b"G" + struct.pack(">d", 4.0), b"G" + struct.pack(">d", float("nan"))),
    *(b"K\x04\x85", b"K\x00\x85", _number(2**40) + b"\x85", b"ctorch\nFloatStorage\n"),
    *(b"(" + b"K\x01" * 200 + b"t", _text("0") + b"\x85", b"clab\nThing\n)\x81"),
)


@cache
def _operations() -> tuple[bytes, tuple[int, ...]]:
    """Pickle of the sound file, and where each of its instructions begins."""
    pickled = next(v for k, v in _entries().items() if k.endswith("data.pkl"))
    return pickled, tuple(p or 0 for _, _, p in pickletools.genops(pickled))


def _reordered(kind: int, one: int, other: int) -> bytes:
    """The sound pickle, one instruction left out, repeated or exchanged."""
    pickled, starts = _operations()
    ends = (*starts[1:], len(pickled))
    parts = [pickled[a:b] for a, b in zip(starts, ends, strict=True)]
    if kind == 0:
        parts[one] = b""
    elif kind == 1:
        parts[one] *= 2
    elif kind == 2:
        parts[one], parts[other] = parts[other], parts[one]
    else:
        parts[one] = parts[other]
    return b"".join(parts)


def _replaced(odd: bytes, old: bytes) -> bytes:
    return _operations()[0].replace(old, odd, 1)


def _states(folder: Path, make: Callable[[], Any]) -> None:
    torch.save(make(), folder / "bad.pt")


#: What a trainer, or somebody else, might have kept.
CONTENTS: dict[str, Callable[[], Any]] = {
    "nothing": dict,
    "a number": lambda: 3,
    "a tensor": lambda: torch.zeros(3),
    "keys of escapes": lambda: {ESCAPES + k: v for k, v in _state().items()},
    "keys of 1 MB": lambda: {k + "x" * 10**6: v for k, v in list(_state().items())[:5]},
    "many prefixes": lambda: {
        f"{n}.{k}": v for n in range(40) for k, v in _state().items()
    },
    "names with many points": lambda: {
        "a." * 20_000 + k: v for k, v in _state().items()
    },
    "100,000 tensors": lambda: {f"w{k}": torch.zeros(1) for k in range(10_000)},
    "a tensor of other kind": lambda: {k: v.double() for k, v in _state().items()},
    "complex": lambda: {k: v.to(torch.complex64) for k, v in _state().items()},
    "not finite": lambda: {k: v * float("nan") for k, v in _state().items()},
    "infinite": lambda: {k: v.float() + float("inf") for k, v in _state().items()},
    "scalars": lambda: {k: v.reshape(-1)[0].clone() for k, v in _state().items()},
    "transposed": lambda: {
        k: v.transpose(0, -1) if v.ndim else v for k, v in _state().items()
    },
    "empty": lambda: {k: v.reshape(-1)[:0] for k, v in _state().items()},
    "a head of a billion": lambda: {
        **_state(), "fc.weight": torch.zeros(10**9, 0), "fc.bias": torch.zeros(0)
    },
    "within itself": lambda: (lambda d: d.update(model=d) or d)(dict(_state())),
    "deep": lambda: reduce(
        lambda d, _: {"m": d}, range(200), _state()
    ),
    "sparse": lambda: {"w": torch.eye(3).to_sparse()},
    "quantised": lambda: {
        "w": torch.quantize_per_tensor(torch.eye(3), 1, 0, torch.qint8)
    },
    "bytes": lambda: {"model": pickle.dumps(3)},
}  # fmt: skip


def _safe(metadata: dict[str, str], folder: Path) -> None:
    """Sound weights with other metadata; the writer checks nothing."""
    save_safetensors(folder / "bad.safetensors", _state(), {**METADATA, **metadata})


@cache
def _safe_bytes() -> bytes:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        _safe({}, Path(folder))
        return (Path(folder) / "bad.safetensors").read_bytes()


def _header(change: Callable[[dict[str, Any]], Any], folder: Path) -> None:
    content = _safe_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    found = change(header)
    text = found if isinstance(found, bytes) else json.dumps(found or header).encode()
    rest = content[8 + length :]
    made = len(text).to_bytes(8, "little") + text + rest
    (folder / "bad.safetensors").write_bytes(made)


def _raw(content: bytes, folder: Path) -> None:
    (folder / "bad.safetensors").write_bytes(content)


def _set(name: str, value: Any, header: dict[str, Any]) -> None:
    header["conv1.weight"][name] = value


HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no metadata": lambda h: h.pop("__metadata__") and None,
    "metadata a list": lambda h: h.update(__metadata__=[1]),
    "metadata of numbers": lambda h: h.update(__metadata__={"input_size": 32}),
    "no tensors": lambda h: {"__metadata__": h["__metadata__"]},
    "a list": lambda h: [h],
    "deep": lambda h: b"[" * 10**5,
    "a name of escapes": lambda h: h.update({ESCAPES: h.pop("conv1.weight")}),
    "a name of 1 MB": lambda h: h.update({"k" * 10**6: h.pop("conv1.weight")}),
    "metadata of 1 MB": lambda h: h["__metadata__"].update(notes="n" * 10**6),
    "metadata of a thousand": lambda h: h["__metadata__"].update(
        {f"note{k}": ESCAPES for k in range(1000)}
    ),
    "no JSON": lambda h: b"{\xff",
    "twice": lambda h: b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' * 2,
}


def _scored(write: Callable[[Path], None], name: str, folder: Path) -> Sequence[str]:
    (folder / "toy.nc").write_bytes(toy_recording())
    write(folder)
    return [*f"score --model {name} {SCORE}".split(), "--layer", "layer2"]


#: Scores of the sound file, which is the first that is tried.
_sound: list[float] = []


def _same(outcome: Outcome) -> str | None:
    """A refusal names the file; a number is that of the sound file."""
    if outcome.status:
        named = "bad." in outcome.err
        return None if named else f"the file is not named: {outcome.err[:300]}"
    value = json.loads(outcome.out)[0]["value"]
    _sound.append(value)
    return None if value == _sound[0] else f"{value} and not {_sound[0]}"


def _finite(outcome: Outcome) -> str | None:
    """A refusal names the file; a number, of other weights, is one."""
    if outcome.status:
        return _same(outcome)
    value = json.loads(outcome.out)[0]["value"]
    return None if abs(value) <= 1 else f"{value} is no correlation"


def _flipped(content: bytes, places: list[float], bits: list[int]) -> bytes:
    data = bytearray(content)
    for place, bit in zip(places, bits, strict=True):
        data[int(place * len(data))] ^= 1 << bit
    return bytes(data)


def _torch(rng: np.random.Generator) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Files of torch.save whose weights, where they are read, are the sound ones."""
    for share in range(10):
        content = _torch_bytes()
        yield f"cut {share}/10", partial(_write, content[: share * len(content) // 10])
    for k in range(60):
        n = int(rng.choice([1, 1, 4, 64]))
        places, bits = rng.random(n), rng.integers(8, size=n).tolist()
        # The pickle stands at the begin, the directory of the zip at the end.
        places = (places**6, 1 - places**6 * 0.999 - 1e-9, places)[k % 3]
        changed = _flipped(_torch_bytes(), places.tolist(), bits)
        yield f"flip {k}", partial(_write, changed)
    for name, beside in BESIDE.items():
        made = partial(_pickled, partial(lambda b: _beside(b()), beside))
        yield f"beside the weights, {name}", made
    n = len(_operations()[1])
    for k in range(60):
        kind, one, other = int(rng.integers(4)), *rng.integers(1, n - 1, 2).tolist()
        made = partial(_pickled, partial(_reordered, kind, one, other))
        yield f"instruction {k}", made


def _others(rng: np.random.Generator) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Files whose weights may be others than the sound ones."""
    for part in ("storage", "offset", "size", "stride", "grad", "hooks"):
        for place, odd in enumerate(PARTS):
            made = partial(_pickled, partial(_tensor, **{part: odd}))
            yield f"{part} {place}", made
    for name, make in CONTENTS.items():
        yield f"content, {name}", partial(_states, make=make)
    for wrapped in (False, True):
        content = _torch_bytes(legacy=True, wrapped=wrapped)
        for k in range(20):
            places, bits = rng.random(3) ** 4, rng.integers(8, size=3).tolist()
            changed = _flipped(content, places.tolist(), bits)
            yield f"legacy {wrapped}, flip {k}", partial(_write, changed)
            cut = content[: k * len(content) // 20]
            yield f"legacy {wrapped}, cut {k}/20", partial(_write, cut)


def _safetensors(
    rng: np.random.Generator,
) -> Iterator[tuple[str, Callable[[Path], None]]]:
    for name in METADATA:
        for place, odd in enumerate(ODD):
            yield f"{name} {place}", partial(_safe, {name: odd})
    for name, change in HEADERS.items():
        yield f"header, {name}", partial(_header, change)
    for name, values in {
        "dtype": ("F64", "F8_E4M3", "BOOL", "", 3, None, ESCAPES, "U64", "F4"),
        "shape": ([], [-1], [2**63], [2**32, 2**32], "x", [1.5], [0], None, [4] * 99),
        "data_offsets": ([0, 0], [4, 0], [0, 2**63], [-1, 4], [0], "x", None, [0, 1e9]),
    }.items():
        for place, value in enumerate(values):
            yield f"{name} {place}", partial(_header, partial(_set, name, value))
    content = _safe_bytes()
    for k in range(40):
        places, bits = rng.random(2) ** 5, rng.integers(8, size=2).tolist()
        yield f"flip {k}", partial(_raw, _flipped(content, places.tolist(), bits))
        yield f"cut {k}/40", partial(_raw, content[: k * len(content) // 40])
    for length in (0, 1, 2**20, 2**31, 2**63, 2**64 - 1):
        yield f"length {length}", partial(_raw, length.to_bytes(8, "little") + b"{}")


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Checkpoints to be scored."""
    name = "bad.pt:tiny"
    sound = partial(_write, _torch_bytes())
    yield Case("checkpoints/sound", partial(_scored, sound, name), _same, (0,))
    for what, write in _torch(rng):
        yield Case(f"checkpoints/{what}", partial(_scored, write, name), _same)
    for what, write in _others(rng):
        yield Case(f"checkpoints/{what}", partial(_scored, write, name), _finite)
    for what, write in _safetensors(rng):
        made = partial(_scored, write, "bad.safetensors")
        yield Case(f"checkpoints/safetensors, {what}", made, _finite)
