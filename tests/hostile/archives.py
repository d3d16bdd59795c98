"""Folders, zips and tars of images, damaged, hostile, or no images at all."""

import bz2
import io
import lzma
import os
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from ce_align.data.imagesets import ImageSet

from .harness import Case, Outcome

NAMES = tuple(f"im{k}.png" for k in range(4))
#: What an entry may be called.
ODD_NAMES = (
    *("../out.png", "/etc/out.png", "a/../../b.png", "[/bold].png", "[red]x.png"),
    *("\x1b[31m.png", "a\nb.png", "n" * 300 + ".png", "d/" * 400 + "x.png", " .png"),
    *("CON.png", "é" * 130 + ".png", "-rf.png", "~.png", "C:\\x.png", "💡.png"),
)
KINDS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")


@cache
def _encoded(kind: str = "PNG", size: int = 32) -> bytes:
    pixels = np.random.default_rng(size).integers(256, size=(size, size, 3))
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, kind)
    return stream.getvalue()


def _zip(names: tuple[str, ...] = NAMES, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    warnings.simplefilter("ignore", UserWarning)  # a name twice is meant
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), _encoded(), method)
    return stream.getvalue()


def _tar(names: tuple[str, ...] = NAMES, format_: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format_) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(_encoded())
            archive.addfile(info, io.BytesIO(_encoded()))
    return stream.getvalue()


def _tar_of(*members: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member in members:
            archive.addfile(member)  # its head alone
    return stream.getvalue()


def _member(name: str, **known: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in known.items():
        setattr(info, key, value)
    return info


def _patched(content: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """The content with other bytes after each mark."""
    data, place = bytearray(content), content.find(mark)
    while place >= 0:
        data[place + offset : place + offset + len(value)] = value
        place = content.find(mark, place + 1)
    return bytes(data)


def _png_of(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG that declares a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(body or bytes(1000))
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _bomb() -> bytes:
    """A zip entry of 300 MB of zeros."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("im0.png", bytes(300 * 2**20))
    return stream.getvalue()


def _damaged(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    for place in rng.integers(len(data), size=int(rng.integers(1, 6))):
        data[place] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _archives(rng: np.random.Generator) -> Iterator[tuple[str, str, bytes]]:
    """Name of each input, and of its file, with the content."""
    sound = _zip()
    local, central = b"PK\x03\x04", b"PK\x01\x02"
    yield "bad CRC", "x.zip", _patched(sound, central, 16, b"\1\2\3\4")
    yield "encrypted", "x.zip", _patched(sound, central, 8, b"\x01")
    yield "encrypted local", "x.zip", _patched(sound, local, 6, b"\x01")
    for method in (1, 6, 9, 93, 95, 97, 98, 99, 65535):
        code = struct.pack("<H", method)
        yield f"method {method}", "x.zip", _patched(sound, central, 10, code)
        yield f"local method {method}", "x.zip", _patched(sound, local, 8, code)
    for at, what in ((18, "stored"), (22, "real"), (26, "name"), (28, "extra")):
        for value in (b"\xff\xff", b"\0\0", b"\xff\x7f"):
            lying = _patched(sound, local, at, value)
            yield f"local {what} {value!r}", "x.zip", lying
    for at in (20, 24, 42):
        for value in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"):
            lying = _patched(sound, central, at, value)
            yield f"central {at} {value!r}", "x.zip", lying
    yield "bomb", "x.zip", _bomb()
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        whole = _zip(method=method)
        for k in range(12):
            yield f"method {method}, damaged {k}", "x.zip", _damaged(whole, rng)
    tars = {
        "x.tar": _tar(),
        "x.tar.gz": zlib.compress(_tar(), wbits=31),
        "x.tar.bz2": bz2.compress(_tar()),
        "x.tar.xz": lzma.compress(_tar()),
        "x.zip": sound,
    }
    for file, whole in tars.items():
        for k in range(24):
            yield f"damaged {k} {file}", file, _damaged(whole, rng)
        for share in range(10):
            yield f"cut {share} {file}", file, whole[: len(whole) * share // 10]
        yield f"and more {file}", file, whole + b"more"
        yield f"twice {file}", file, whole + whole
        yield f"bytes {file}", file, rng.bytes(2000)
    for name in ODD_NAMES:
        for file, make in (("x.zip", _zip), ("x.tar", _tar)):
            yield f"{name[:12]!r} in {file}", file, make((*NAMES, name))
    latin = _zip(("im\xe9.png", "im\xe9.png"))
    yield "twice one name", "x.zip", latin
    yield "not UTF-8", "x.zip", latin.replace("é".encode(), b"\xff\xfe")
    latin = _tar(("im\xe9.png",), tarfile.USTAR_FORMAT)
    yield "not UTF-8", "x.tar", latin.replace("é".encode(), b"\xff\xfe")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        for target in ("/etc/passwd", "../../x.png", "im0.png", "a.png", ""):
            odd = _member("a.png", type=kind, linkname=target)
            yield f"tar {kind!r} to {target}", "x.tar", _tar_of(odd)
    for size in (2**28 + 1, 2**33, 2**60):
        yield f"tar of {size}", "x.tar", _tar_of(_member("a.png", size=size))
    for suffix in (".rar", ".7z", ".png", ""):
        yield f"called {suffix}", f"x{suffix}", sound
    yield "a text as zip", "x.zip", b"hello"
    yield "nothing", "x.zip", b""
    for name in ("[bold].zip", "\x1b[2J.zip", "a" * 240 + ".zip"):
        yield f"archive {name[:9]!r}", name, sound[:-30]


def _images(rng: np.random.Generator) -> Iterator[tuple[str, str, bytes]]:
    for kind in KINDS:
        whole, file = _encoded(kind), f"im1.{kind.lower()}"
        file = file.replace("jpeg", "jpg")
        for share in range(10):
            yield f"cut {share} {kind}", file, whole[: len(whole) * share // 10]
        for k in range(20):
            yield f"damaged {k} {kind}", file, _damaged(whole, rng)
        yield f"{kind} called gif", "im1.gif", whole
    for width, height in ((2**31 - 1, 1), (60000, 60000), (0, 0), (1, 1), (9999, 9999)):
        yield f"declares {width}×{height}", "im1.png", _png_of(width, height)
    yield "PNG bomb", "im1.png", _png_of(20000, 20000, bytes(3 * 10**7))
    for what, content in {
        "text": b"stimulus_id\n",
        "nothing": b"",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9999 9999\n",
        "PDF": b"%PDF-1.4\n",
        "ICO": b"\0\0\1\0\1\0\0\0" + bytes(60),
    }.items():
        yield f"content {what}", "im1.png", content


def _decoded(folder: Path, file: str) -> None:
    held = ImageSet.from_path(folder / file)
    for k in range(len(held)):
        held.load(k)


def _with_bytes(
    file: str, content: bytes, inside: bool, folder: Path
) -> Callable[[], object]:
    place = folder / "images" if inside else folder
    place.mkdir(exist_ok=True)
    if inside:
        (place / "im0.png").write_bytes(_encoded())
    (place / file).write_bytes(content)
    return partial(_decoded, folder, "images" if inside else file)


def _special(make: Callable[[Path], None], folder: Path) -> Callable[[], object]:
    (folder / "images").mkdir()
    (folder / "images" / "im0.png").write_bytes(_encoded())
    make(folder / "images" / "im1.png")
    return partial(_decoded, folder, "images")


def _archive(target: str | None, folder: Path) -> Callable[[], object]:
    if target is None:
        os.mkfifo(folder / "x.zip")
    else:
        (folder / "x.zip").symlink_to(target)
    return partial(_decoded, folder, "x.zip")


def _link(target: str, path: Path) -> None:
    path.symlink_to(target)


def _named(file: str, outcome: Outcome) -> str | None:
    """A refusal names the archive or image."""
    start = file.partition(".")[0][:3]
    told = start in outcome.err or "image im" in outcome.err
    if outcome.status and start.isalnum() and not told:
        return f"the file is not named: {outcome.err[:300]}"
    return None


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Image sets that are opened, and every image decoded."""
    sound = partial(_with_bytes, "x.zip", _zip(), False)
    yield Case("archives/sound", sound, statuses=(0,))
    for inside, found in ((False, _archives(rng)), (True, _images(rng))):
        for name, file, content in found:
            made = partial(_with_bytes, file, content, inside)
            yield Case(f"archives/{name}", made, partial(_named, file), (0, 2))
    for target in ("/dev/zero", "/dev/full", "/proc/self/mem", "/proc/self/fd/0"):
        made = partial(_special, partial(_link, target))
        yield Case(f"archives/image {target}", made, statuses=(0, 2))
        yield Case(f"archives/zip {target}", partial(_archive, target), statuses=(2,))
    yield Case("archives/image FIFO", partial(_special, os.mkfifo), statuses=(0, 2))
    yield Case("archives/zip FIFO", partial(_archive, None), statuses=(2,))
    folder = partial(_special, Path.mkdir)
    yield Case("archives/image folder", folder, statuses=(0, 2))
