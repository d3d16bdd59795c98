"""Folders of train, val and test, and torchvision's data sets in miniature."""

import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from ce_align.data.imagesets import ImageSet
from ce_align.data.labelled import DATASETS, LabelledImages, LabelledSplits, load_splits
from ce_align.errors import AccessError, ConfigError, DataError


def paint(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (value % 256, value // 256, 0)).save(path)


def folder_of(root, splits, n=2, classes=("cat", "dog")):
    value = 0
    for split in splits:
        for name in classes:
            for k in range(n):
                paint(root / split / name / f"{k}.png", value := value + 1)
    return root


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.xz", "zip below a folder"])
def test_a_folder_or_archive_of_splits(tmp_path, kind):
    path = root = folder_of(tmp_path / "pets", ("train", "val", "test"))
    if kind.startswith("zip"):
        path = tmp_path / "pets.zip"
        base = tmp_path if "below" in kind else root
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(root.rglob("*.png")):
                archive.write(file, file.relative_to(base))
    elif kind == "tar.xz":
        path = tmp_path / "pets.tar.xz"
        with tarfile.open(path, "w:xz") as archive:
            archive.add(root, ".")
    found = load_splits(str(path), tmp_path)
    assert found.classes == ("cat", "dog")
    assert {name: len(part) for name, part in found.parts.items()} == dict.fromkeys(
        ("train", "validation", "test"), 4
    )
    np.testing.assert_array_equal(found.train.labels, [0, 0, 1, 1])
    assert found.train.images.ids[2] == "train/dog/0"
    assert found.convention == "top1"
    assert found.digest == load_splits(str(root), tmp_path).digest


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_without_a_test_folder_validation_images_are_the_test(tmp_path, name):
    found = load_splits(str(folder_of(tmp_path / "x", ("train", name))), tmp_path)
    assert found.validation is None
    assert found.test.images.ids[0] == f"{name}/cat/0"


def test_classes_are_folders_at_any_depth(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            paint(tmp_path / "x" / split / name / "images" / "1.png", len(split))
    found = load_splits(str(tmp_path / "x"), tmp_path)
    assert found.classes == ("a", "b")


def test_exchanged_classes_are_another_data_set(tmp_path):
    one = folder_of(tmp_path / "one", ("train", "test"))
    other = folder_of(tmp_path / "other", ("train", "test"), classes=("dog", "cat"))
    digests = {load_splits(str(path), tmp_path).digest for path in (one, other)}
    assert len(digests) == 2


@pytest.mark.parametrize("splits", [("train",), ("test", "val"), ("cats", "dogs")])
def test_a_folder_without_splits_is_refused(tmp_path, splits):
    folder_of(tmp_path / "x", splits)
    with pytest.raises(DataError, match="expected train/CLASS"):
        load_splits(str(tmp_path / "x"), tmp_path)


def test_a_class_that_cannot_be_learnt_is_named(tmp_path):
    folder_of(tmp_path / "x", ("train", "test"))
    paint(tmp_path / "x" / "test" / "emu" / "0.png", 9)
    with pytest.raises(DataError, match="no image to learn from: emu"):
        load_splits(str(tmp_path / "x"), tmp_path)


def test_one_class_is_no_data_set(rng):
    pixels = rng.integers(0, 256, (2, 4, 4, 3), np.uint8)
    part = LabelledImages(ImageSet.from_array("x", pixels), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="1 classes"):
        LabelledSplits("x", ("a",), part, None, part)


def pets(root):
    for split in ("trainval", "test"):
        lines = []
        for label, name in enumerate(("Abyssinian", "great_pyrenees"), 1):
            image = f"{name}_{len(split)}"
            path = root / "oxford-iiit-pet/images" / f"{image}.jpg"
            paint(path, 30 * label + len(split))
            lines.append(f"{image} {label} 1 1\n")
        path = root / "oxford-iiit-pet/annotations" / f"{split}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines))


def dtd(root):
    for k, split in enumerate(("train", "val", "test")):
        names = [f"{name}/{name}_{k}.jpg" for name in ("banded", "woven")]
        for label, name in enumerate(names):
            paint(root / "dtd/dtd/images" / name, 10 * k + label)
        path = root / "dtd/dtd/labels" / f"{split}1.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(names))


def food101(root):
    for split in ("train", "test"):
        names = {name: [f"{name}/{split}"] for name in ("pho", "ramen")}
        for label, (name,) in enumerate(names.values()):
            path = root / "food-101/images" / f"{name}.jpg"
            paint(path, 30 * label + 9 * len(split))
        path = root / "food-101/meta" / f"{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(names).replace("'", '"'))


def flowers102(root):
    labels = np.repeat(np.arange(1, 103), 3)
    base = root / "flowers-102"
    for image in range(1, len(labels) + 1):
        paint(base / "jpg" / f"image_{image:05d}.jpg", image)
    savemat(base / "imagelabels.mat", {"labels": labels})
    ids = np.arange(1, len(labels) + 1)
    official = {"trnid": ids[::3], "valid": ids[1::3], "tstid": ids[2::3]}
    savemat(base / "setid.mat", official)


def cifar(root, folder, files, meta, key, n_classes):
    base = root / folder
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in files:
        data = rng.integers(0, 256, (n_classes, 3072), np.uint8)
        labels = {"labels": [*range(n_classes)], "fine_labels": [*range(n_classes)]}
        (base / name).write_bytes(pickle.dumps({"data": data, **labels}))
    names = [f"class {k}" for k in range(n_classes)]
    (base / meta).write_bytes(pickle.dumps({key: names}))


def cifar10(root):
    files = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    cifar(root, "cifar-10-batches-py", files, "batches.meta", "label_names", 10)


def cifar100(root):
    files = ["train", "test"]
    cifar(root, "cifar-100-python", files, "meta", "fine_label_names", 100)


#: What writes each data set in miniature, its classes and the sizes of its splits.
MINIATURES = {
    "cifar10": (cifar10, 10, {"train": 50, "test": 10}),
    "cifar100": (cifar100, 100, {"train": 100, "test": 100}),
    "pets": (pets, 2, {"train": 2, "test": 2}),
    "dtd": (dtd, 2, {"train": 2, "validation": 2, "test": 2}),
    "flowers102": (flowers102, 102, {"train": 102, "validation": 102, "test": 102}),
    "food101": (food101, 2, {"train": 2, "test": 2}),
}


@pytest.fixture
def unchecked(monkeypatch):
    """Miniatures do not have the checksums of the originals."""
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)


@pytest.mark.parametrize("name", DATASETS)
def test_torchvisions_data_sets_with_their_official_splits(tmp_path, unchecked, name):
    write, n_classes, sizes = MINIATURES[name]
    write(tmp_path)
    found = load_splits(name, tmp_path)
    assert len(found.classes) == n_classes
    assert {split: len(part) for split, part in found.parts.items()} == sizes
    per_class = found.convention == "mean_per_class"
    assert per_class == (name in ("pets", "flowers102"))
    known = DATASETS[name]
    reader = getattr(datasets, known.reader)(tmp_path, **known.arguments["test"])
    for row in (0, 1):
        image, label = reader[row]
        np.testing.assert_array_equal(found.test.images.load(row), image)
        assert found.test.labels[row] == label
    assert len({part.digest for part in found.parts.values()}) == len(sizes)


@pytest.mark.parametrize("name", DATASETS)
def test_what_is_not_there_is_told_where_to_get(tmp_path, name, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", None)
    with pytest.raises(AccessError) as caught:
        load_splits(name, tmp_path)
    text = str(caught.value)
    assert DATASETS[name].url in text
    assert str(tmp_path / DATASETS[name].folder) in text
    assert "--download" in text
    assert "\n" not in text
    assert not list(tmp_path.iterdir())


def test_half_of_a_data_set_is_refused(tmp_path):
    (tmp_path / "dtd" / "dtd").mkdir(parents=True)
    with pytest.raises(DataError, match="not the whole dtd"):
        load_splits("dtd", tmp_path)


def test_an_image_that_is_gone_is_named(tmp_path):
    pets(tmp_path)
    next((tmp_path / "oxford-iiit-pet/images").glob("great*_4.jpg")).unlink()
    found = load_splits("pets", tmp_path)
    with pytest.raises(DataError, match=r"great_pyrenees_4.* cannot be read"):
        found.test.digest  # noqa: B018


def test_a_download_arrives_whole(tmp_path, monkeypatch, capsys):
    def fetch(*args, download_root, **_):
        print("from far away")
        dtd(Path(download_root).parent)

    monkeypatch.setattr("torchvision.datasets.dtd.download_and_extract_archive", fetch)
    found = load_splits("dtd", tmp_path / "root", download=True)
    assert len(found.train) == 2
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["dtd"]
    assert capsys.readouterr().out == ""


def test_a_broken_download_leaves_nothing(tmp_path, monkeypatch):
    def fetch(*args, download_root, **_):
        paint(tmp_path / download_root / "dtd" / "images" / "1.jpg", 1)
        raise OSError("connection lost")

    monkeypatch.setattr("torchvision.datasets.dtd.download_and_extract_archive", fetch)
    with pytest.raises(AccessError, match="connection lost"):
        load_splits("dtd", tmp_path, download=True)
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_lists_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="cifar10"):
        load_splits("cifar-10", tmp_path)
