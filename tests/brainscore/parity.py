"""One network by our path and by Brain-Score's own benchmark object."""

import pytest
import torch

from ce_align.brainscore.official import official_scores
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.results import ResultStore
from ce_align.stages.running import Hardware, Run
from ce_align.stages.score import score
from ce_align.stages.scores import ScoreConfig

NUMBERS = ("value", "raw", "error", "ceiling")


def small_network() -> Network:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 5, stride=3), torch.nn.ReLU())
    return Network("net", module, Preprocessing(input_size=20), {"IT": "1"})


def check_equal(network, name, recording, folder, layer="1", **settings):
    config = ScoreConfig(model="net", recording=name, layer=layer, **settings)
    run = Run(ResultStore(folder / "results"), hardware=Hardware("cpu"))
    (ours,) = score(network, {config: recording}, run)
    (theirs,) = official_scores(network, name, recording, [layer], device="cpu")
    expected = {number: getattr(theirs, number) for number in NUMBERS}
    found = {number: getattr(ours, number) for number in NUMBERS}
    assert found == pytest.approx(expected, abs=1e-6, rel=0)
    assert None not in found.values()
    return theirs
