"""What a store of an earlier version holds of baselines and of toy data.

The documents in ``earlier/`` were written by the code of commit 0354047: those that
`measure_all` asks for, and scores of a network that was trained for no epoch.
"""

import numpy as np

from ce_align.data.imagesets import ImageSet
from ce_align.data.labelled import LabelledImages, LabelledSplits
from ce_align.data.recordings import Recording
from ce_align.runner import run
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.transfer import TransferConfig


def toy_images(n=24):
    array = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), np.uint8)
    return ImageSet.from_array("toys", array)


def toy_recording():
    images = toy_images()
    rates = np.random.default_rng(1).poisson(5.0, (len(images), 2, 6)).astype(float)
    return Recording("toy", images, rates, tuple("abcdef"), "IT")


def toy_splits():
    images, labels = toy_images(), np.arange(24) % 2
    train, test = range(16), range(16, 24)
    parts = [LabelledImages(images.select(r), labels[list(r)]) for r in (train, test)]
    return LabelledSplits("toys", ("a", "b"), parts[0], None, parts[1])


def measure_all(store):
    """Rows of every stage that measures, and how many configurations were stored."""
    names = {"model": "pixels", "recording": "toy", "layer": "pixels"}
    both = {"model_a": "pixels", "model_b": "gabor", "recording": "toy"}
    small = {"comparisons": 10, "views": 4, "crops": 4, "photometrics": 4, "size": 16}
    shapes = {"model": "pixels", "layer": "pixels", "baseline": "gabor"}
    configs = [
        ScoreConfig(**names, regression="ridge", alpha=1.0, splits=2),
        OverlapConfig(**both, layer_a="pixels", layer_b="complex", folds=2),
        AnalysisConfig(metric="bures", **shapes, images="toys", **small),
    ]
    given = {
        ("recording", "toy"): toy_recording(),
        ("images", "toys"): toy_images(),
    }
    views = store.folder / "views"
    measured = run(configs, store, given=given, responses=views)
    accuracy = TransferConfig(
        model="pixels", dataset="toys", layer="pixels", size=16, runs=1
    )
    read = run([accuracy], store, given={("dataset", "toys"): toy_splits()})
    assert not measured.failures + read.failures
    return measured.rows + read.rows, measured.n_stored + read.n_stored
