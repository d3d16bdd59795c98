"""An archive that cannot be read to its end is refused in a line that names it."""

import io
import struct
import tarfile
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image

from ce_align.brainscore.plugin.archive import opened_plugins
from ce_align.data.imagesets import ImageSet
from ce_align.data.labelled import read_splits
from ce_align.data.netcdf import read_recording, write_recording
from ce_align.data.recordings import Recording
from ce_align.data.scenes import find_images
from ce_align.errors import DataError
from ce_align.files import reason
from ce_align.trainer.data import pack


def bmp(seed):
    """An image whose pixels have no checksum of their own, but can be compressed."""
    pixels = np.random.default_rng(seed).integers(0, 40, (12, 12, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="BMP")
    return stream.getvalue()


FILES = {
    f"{split}/{label}/{i}.bmp": bmp(i)
    for i, (split, label) in enumerate(
        (split, label) for split in ("train", "test") for label in ("cat", "dog")
    )
}

#: Bytes of a file in a tar: its header and its content, in blocks of 512.
TAR_ENTRY = 1024


def make_zip(path, method=zipfile.ZIP_DEFLATED, files=FILES):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path, mode="w", files=FILES):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def changed(path, place, content):
    raw = bytearray(path.read_bytes())
    raw[place : place + len(content)] = content
    path.write_bytes(raw)
    return path


def flipped(path, place):
    return changed(path, place, bytes([path.read_bytes()[place] ^ 0x55]))


def with_entry_field(path, *, local, central, value):
    """A field of two bytes of the last entry, in its header and in the directory."""
    raw = path.read_bytes()
    changed(path, raw.rindex(b"PK\x03\x04") + local, struct.pack("<H", value))
    return changed(path, raw.rindex(b"PK\x01\x02") + central, struct.pack("<H", value))


def middle_of_last_zip_entry(path):
    raw = path.read_bytes()
    return (raw.rindex(b"PK\x03\x04") + 60 + raw.index(b"PK\x01\x02")) // 2


def bad_zip(method):
    def make(folder):
        path = make_zip(folder / "bad.zip", method)
        return flipped(path, middle_of_last_zip_entry(path))

    return make


def bad_tar(suffix, mode, place):
    def make(folder):
        path = make_tar(folder / f"bad{suffix}", mode)
        return flipped(path, int(path.stat().st_size * place))

    return make


def cut(make, n_bytes):
    def shortened(folder):
        path = make(folder)
        path.write_bytes(path.read_bytes()[:n_bytes])
        return path

    return shortened


ZIPS = {
    "wrong checksum": bad_zip(zipfile.ZIP_STORED),
    "damaged deflate": bad_zip(zipfile.ZIP_DEFLATED),
    "damaged bzip2": bad_zip(zipfile.ZIP_BZIP2),
    "damaged lzma": bad_zip(zipfile.ZIP_LZMA),
    "encrypted": lambda folder: with_entry_field(
        make_zip(folder / "bad.zip"), local=6, central=8, value=1
    ),
    "deflate64": lambda folder: with_entry_field(
        make_zip(folder / "bad.zip"), local=8, central=10, value=9
    ),
    "cut short": cut(lambda folder: make_zip(folder / "bad.zip"), -30),
}
TARS = {
    # The fourth header: what reads a tar may take it for the end.
    "damaged header": lambda folder: flipped(
        make_tar(folder / "bad.tar"), 3 * TAR_ENTRY + 10
    ),
    "cut at a header": cut(lambda folder: make_tar(folder / "bad.tar"), 3 * TAR_ENTRY),
    "cut in a header": cut(
        lambda folder: make_tar(folder / "bad.tar"), 3 * TAR_ENTRY + 99
    ),
    "cut in a file": cut(
        lambda folder: make_tar(folder / "bad.tar"), 3 * TAR_ENTRY + 600
    ),
    "damaged gzip": bad_tar(".tgz", "w:gz", 0.5),
    # The checksum of the whole is the last of what gzip writes.
    "wrong checksum of gzip": bad_tar(".tgz", "w:gz", 0.9999),
    "damaged bzip2": bad_tar(".tbz2", "w:bz2", 0.5),
    "damaged lzma": bad_tar(".txz", "w:xz", 0.5),
    "two in one": lambda folder: changed(
        make_tar(folder / "bad.tar"), 10240, make_tar(folder / "b.tar").read_bytes()
    ),
    "no tar": lambda folder: changed(make_tar(folder / "bad.txz"), 0, bytes(range(99))),
}


@pytest.mark.parametrize("fault", ZIPS)
def test_a_zip_that_cannot_be_read_is_refused_in_a_line_that_names_it(tmp_path, fault):
    path = ZIPS[fault](tmp_path)
    with pytest.raises(DataError, match=r"bad\.zip") as caught:
        images = find_images(str(path))
        for row in range(len(images)):
            images.load(row)
    assert len(str(caught.value).splitlines()) == 1
    if fault in ("encrypted", "deflate64"):
        assert fault in str(caught.value)


@pytest.mark.parametrize("fault", TARS)
def test_a_tar_that_is_not_whole_is_refused_in_a_line_that_names_it(tmp_path, fault):
    path = TARS[fault](tmp_path)
    with pytest.raises(DataError, match=r"bad\.t") as caught:
        find_images(str(path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("make", [*map(ZIPS.get, ZIPS), *map(TARS.get, TARS)])
def test_neither_labelled_sets_nor_packs_are_made_of_a_bad_archive(tmp_path, make):
    path = make(tmp_path)
    with pytest.raises(DataError, match=r"bad\."):
        pack(ImageSet.from_path(path), tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
    with pytest.raises(DataError, match=r"bad\."):
        print(read_splits(path).digest)


@pytest.mark.parametrize("fault", ZIPS)
def test_plugins_are_not_read_from_a_bad_zip(tmp_path, fault):
    with (
        pytest.raises(DataError, match=r"bad\.zip"),
        opened_plugins(ZIPS[fault](tmp_path)),
    ):
        pass


@pytest.mark.parametrize("fault", ZIPS)
def test_images_of_a_recording_are_not_read_from_a_bad_zip(
    tmp_path, fault, monkeypatch, rng
):
    images = ImageSet.from_path(make_zip(tmp_path / "good.zip"))
    responses = rng.normal(size=(4, 2, 3))
    recording = Recording("toy", images, responses, ("a", "b", "c"), "V4")
    write_recording(recording, tmp_path / "toy.nc", images="beside")
    beside = {f"{i:06d}.img": images.encoded(i) for i in range(4)}
    monkeypatch.setitem(globals(), "make_zip", partial(make_zip, files=beside))
    make_zip(tmp_path / "toy.images.zip")
    assert read_recording(tmp_path / "toy.nc").digest == recording.digest
    ZIPS[fault](tmp_path).replace(tmp_path / "toy.images.zip")
    with pytest.raises(DataError, match=r"toy\.images\.zip") as caught:
        read_recording(tmp_path / "toy.nc")
    assert len(str(caught.value).splitlines()) == 1


def test_the_many_lines_of_a_library_become_one():
    assert reason(tarfile.ReadError("could not be opened:\n- method gz: …")) == (
        "could not be opened"
    )
    assert reason(EOFError()) == "EOFError"


def test_links_of_a_tar_are_the_images_that_they_stand_for(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(make_tar(path), "a") as archive:
        for name, kind, target in (
            ("train/dog/a.bmp", tarfile.SYMTYPE, "../cat/0.bmp"),
            ("train/dog/b.bmp", tarfile.LNKTYPE, "train/dog/a.bmp"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
    images = ImageSet.from_path(path)
    rows = [images.ids.index(name) for name in ("train/cat/0", "train/dog/b")]
    assert len(images) == 6
    assert len({images.image_digest(row) for row in rows}) == 1
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("train/dog/c.bmp")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere.bmp"
        archive.addfile(link)
    with pytest.raises(DataError, match=r"a\.tar has links .*train/dog/c\.bmp"):
        ImageSet.from_path(path)


def test_linked_folders_and_files_of_a_folder_are_not_left_out(tmp_path):
    folder = tmp_path / "images"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "test").rename(tmp_path / "elsewhere")
    (folder / "test").symlink_to(tmp_path / "elsewhere")
    (folder / "train" / "round").symlink_to(folder)
    assert len(ImageSet.from_path(folder)) == 4
    (folder / "train" / "cat" / "9.bmp").symlink_to("nowhere")
    images = ImageSet.from_path(folder)
    with pytest.raises(DataError, match=r"9\.bmp cannot be read: No such file"):
        print(images.digest)


def test_an_archive_that_goes_away_is_named(tmp_path):
    path = make_zip(tmp_path / "a.zip")
    images = ImageSet.from_path(path)
    path.write_bytes(b"")
    images.pixels.source._handle = None
    with pytest.raises(DataError, match=r"train/cat/0\.bmp of .*a\.zip"):
        images.load(images.ids.index("train/cat/0"))
