"""The paper in miniature: Figures 2, 3, 5–7, Tables 1, 3, 5 for networks trained here.

``make mini-paper IMAGES=DIR RECORDINGS=FILE.nc`` trains all objectives at several λ on
``DIR/train``, one folder a class, measures them on ``DIR/val`` and compares them with
recordings, if there are any. ``PRESET=cpu`` is 18 small networks at 32 px, ``gpu`` 21
ResNet-18 at 64 px. The variables come as ``$CE_ALIGN_MINI_IMAGES`` and so on.
"""

from functools import partial
from itertools import product
from os import environ
from pathlib import Path

from ce_align.data.scenes import SIMULATED_IMAGES
from ce_align.errors import ConfigError
from ce_align.models.catalogue import EQUIVARIANCE_WEIGHTS
from ce_align.report.paper.files import FigureConfig, TableConfig
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.similarities import SimilarityConfig
from ce_align.stages.train import training_folder
from ce_align.trainer.presets import preset_config

OBJECTIVES, LAYER = ("simclr", "barlow", "mmcr"), "layer4"
GPU = {"backbone": "resnet18", "view_size": 64, "epochs": 40, "warmup_epochs": 2}
GPU |= {"pairs_per_step": 256, "precision": "bf16"}
COMPARED = [ScoreConfig, *(partial(SimilarityConfig, metric=m) for m in ("rsa", "cka"))]
#: Weights, seeds, and what differs from the preset `tiny` of trainings.
PRESETS = {
    "cpu": ((0.0, 0.3, 0.5), (0, 1), {}),
    "gpu": (tuple(map(float, EQUIVARIANCE_WEIGHTS)), (0,), GPU),
}

preset = environ.get("CE_ALIGN_MINI_PRESET") or "cpu"
if preset not in PRESETS:
    raise ConfigError(f"PRESET is {preset!r}; choose from {', '.join(PRESETS)}")
weights, seeds, changes = PRESETS[preset]
recordings = environ.get("CE_ALIGN_MINI_RECORDINGS", "").split()
train_images = test_images = environ.get("CE_ALIGN_MINI_IMAGES") or SIMULATED_IMAGES
if train_images != SIMULATED_IMAGES:
    train_images, test_images = (str(Path(train_images) / x) for x in ("train", "val"))

changes = {**changes, "images": train_images}
views = {"images": test_images, "comparisons": 400, "centroids": "compared"}

trainings = {
    (objective, weight, seed): preset_config(
        "tiny", objective, equivariance_weight=weight, seed=seed, **changes
    )
    for seed, objective, weight in product(seeds, OBJECTIVES, weights)
}
names = {key: str(training_folder(config)) for key, config in trainings.items()}
comparisons = [
    compare(model=name, recording=recording, layer=LAYER)
    for compare, recording, name in product(COMPARED, recordings, names.values())
]
measures = [
    AnalysisConfig(
        metric=metric,
        model=name,
        layer=LAYER,
        baseline=names[key[0], 0.0, key[2]] if metric == "bures" and key[1] else None,
        size=trainings[key].view_size,
        family="tiny",
        **views,
    )
    for metric in ("bures", "decoding", "dimensionality")
    for key, name in names.items()
]
figures, tables = ["2", "5", "6", "7", "lambda", "training"], ["3", "5"]
correlations = [CorrelateConfig(recordings=tuple(recordings))] if recordings else []
if recordings:
    figures, tables = [*figures, "3", "forest", "networks"], [*tables, "1"]

RECIPE = [
    *(*trainings.values(), *comparisons, *measures, *correlations),
    *(TableConfig(table=name) for name in tables),
    *(FigureConfig(figure=name) for name in figures),
]
