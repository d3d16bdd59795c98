"""The plan of a training against the training itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_engine import noise_images, small_config

from ce_align.trainer import engine as estimates
from ce_align.trainer.engine import estimate
from ce_align.trainer.presets import Hardware


def test_a_small_training_is_measured_whole():
    found = estimate(small_config(pairs_per_step=4), noise_images(), Hardware())
    assert (found.steps_per_epoch, found.steps) == (8, 24)
    assert (found.share, found.measured_pairs) == (4, 4)
    assert found.seconds(0) == pytest.approx(
        24 * (found.step_seconds + found.render_seconds)
    )
    assert found.seconds(2) == pytest.approx(
        24 * max(found.step_seconds, found.render_seconds / 2)
    )


def test_a_large_step_is_extrapolated(monkeypatch):
    """A step of 8 pairs takes 140 bytes, one of 16 takes 220, and so 32 take 380."""
    peaks = iter([110, 140, 220])
    monkeypatch.setattr(estimates, "_peak_bytes", lambda kind: next(peaks))
    monkeypatch.setattr(estimates, "SECONDS", 0.0)
    found = estimate(small_config(pairs_per_step=32), noise_images(), Hardware())
    assert (found.share, found.measured_pairs) == (32, 16)
    assert found.memory_bytes == 380


SCRIPT = """
import json, sys, tempfile
import numpy as np
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_engine import small_config
from ce_align.data.imagesets import ImageSet
from ce_align.trainer.presets import Hardware
config = small_config(epochs=1, **json.loads(sys.argv[3]))
pixels = np.random.default_rng(0).integers(0, 256, (128, 72, 72, 3), dtype=np.uint8)
images = ImageSet.from_array("noise", pixels)
if sys.argv[2] == "plan":
    from ce_align.trainer import engine as estimates
    from ce_align.trainer.engine import estimate
    estimates.SECONDS = 0.0  # the plan of a slow machine, from its smallest steps
    print(estimate(config, images, Hardware(workers=0)).memory_bytes)
else:
    from ce_align.trainer.engine import fit
    with tempfile.TemporaryDirectory() as folder:
        fit(config, images, Path(folder), Hardware(workers=0), notify=lambda text: None)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            print(int(line.split()[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_the_memory_of_a_training_is_within_a_quarter_of_the_plan():
    changes = {"pairs_per_step": 64, "view_size": 64, "backbone": "resnet18"}

    def measured(what):
        command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), what]
        command.append(json.dumps(changes))
        return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    assert measured("plan") == pytest.approx(measured("training"), rel=0.25)
