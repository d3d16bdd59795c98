"""Every logger holds, when it is read back, what the training recorded."""

import csv
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from test_engine import EPOCHS, STEPS, small_config, train
from waiting import LIMIT

from ce_align.errors import ConfigError

pytestmark = pytest.mark.slow

NAMES = {"loss", "loss_invariant", "gradient_equivariant", "effective_rank", "knn_top1"}


def written_csv(folder):
    """(step, value) of every number, by name, as the CSV logger wrote them."""
    (path,) = folder.glob("log/version_0/metrics.csv")
    found: dict[str, list[tuple[int, float]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if text and name != "step":
                    found.setdefault(name, []).append((int(row["step"]), float(text)))
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("csv")
    train(folder, log_every=1)
    found = written_csv(folder)
    assert set(found) >= NAMES
    assert [len(found[name]) for name in ("loss", "knn_top1")] == [
        EPOCHS * STEPS,
        EPOCHS,
    ]
    return {name: found[name] for name in found if name != "images_per_second"}


def test_tensorboard_reads_what_was_recorded(tmp_path, expected):
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    train(tmp_path, logger="tensorboard", log_every=1)
    (path,) = tmp_path.glob("log/version_0/events.out.tfevents.*")
    events = accumulators.EventAccumulator(str(path)).Reload()
    for name, pairs in expected.items():
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in pairs]
        values = [value for _, value in pairs]
        assert [value for _, value in found] == pytest.approx(values, rel=1e-6)
    assert "equivariance_weight: 0.3" in (path.parent / "hparams.yaml").read_text()


OFFLINE = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_engine import train
for name in ("first", "second"):
    train(Path(sys.argv[2]) / name, logger="wandb", log_every=1)
"""


def records(path):
    """Records of the file that wandb writes where there is no network.

    It is a log as LevelDB writes it: blocks of 32 KiB, after a header of 7 bytes, with
    chunks of checksum, length and kind (1 whole, 2 first, 3 middle, 4 last).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    place, parts = 7, b""
    while place + 7 <= len(content):
        if place % 32768 > 32768 - 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def test_wandb_without_a_network_keeps_what_was_recorded(tmp_path, expected):
    pytest.importorskip("wandb")
    here = str(Path(__file__).parent)
    subprocess.run(
        [sys.executable, "-c", OFFLINE, here, str(tmp_path)],
        env={**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=LIMIT,
        capture_output=True,
    )
    for name in ("first", "second"):  # a run of its own each
        (path,) = tmp_path.glob(f"{name}/wandb/offline-run-*/*.wandb")
        rows = []
        for record in records(path):
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append(
                    {i.key or i.nested_key[0]: json.loads(i.value_json) for i in items}
                )
        for key, pairs in expected.items():
            found = [(r["trainer/global_step"], r[key]) for r in rows if key in r]
            assert [step for step, _ in found] == [step for step, _ in pairs]
            values = [value for _, value in pairs]
            assert [value for _, value in found] == pytest.approx(values, rel=1e-6)


def test_wandb_that_does_not_start_says_what_to_do(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def refused(**settings):
        raise wandb.errors.UsageError("No API key configured.\nLog in.")

    monkeypatch.setattr(wandb, "init", refused)
    with pytest.raises(ConfigError, match=r"^wandb does not start \(No API.*offline$"):
        train(tmp_path, logger="wandb")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_logger_names_its_package(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=f"needs its package: pip install {name}"):
        train(tmp_path, logger=name)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_logger_lists_those_that_there_are(tmp_path):
    with pytest.raises(ConfigError, match="choose from csv, tensorboard, wandb"):
        train(tmp_path, logger="stdout", config=small_config(epochs=1))
