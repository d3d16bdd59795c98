"""Other backbones, weak augmentations and longer training: Figures 7 and 8.

ResNet-34 with MMCR, ResNet-101 with Barlow Twins and the weak variants were not
published, so they are trained, on the images that ``$CE_ALIGN_IMAGENET_TRAIN`` names.
Each such training is a matter of many GPU hours. The network of 1000 epochs was.
"""

import os

from ce_align.data.scenes import default_images
from ce_align.models.catalogue import EQUIVARIANCE_WEIGHTS
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.train import training_folder
from ce_align.trainer.presets import preset_config

RECORDINGS = (
    *("majajhong2015", "sanghavi2020"),
    *("sanghavijozwik2020", "sanghavimurty2020"),
)
IMAGES = os.environ.get("CE_ALIGN_IMAGENET_TRAIN", "imagenet/train")

BACKBONES = [
    preset_config(
        "paper-in1k",
        objective,
        equivariance_weight=weight,
        images=IMAGES,
        backbone=backbone,
        precision="bf16",
    )
    for objective, backbone in (("mmcr", "resnet34"), ("barlow", "resnet101"))
    for weight in (0.0, 0.1, 0.2)
]
WEAK = [
    preset_config(
        "weak",
        "barlow",
        equivariance_weight=float(weight),
        images=IMAGES,
        precision="bf16",
    )
    for weight in EQUIVARIANCE_WEIGHTS
]
TRAINED = [str(training_folder(config)) for config in (*BACKBONES, *WEAK)]

SCORES = [
    ScoreConfig(model=name, recording=recording, layer="layer4")
    for name in (*TRAINED, "ce_barlow_l0.2_ep1000")
    for recording in RECORDINGS
]
DECODED = [
    AnalysisConfig(
        metric="decoding",
        model=name,
        layer="layer4",
        images=default_images(),
        family=family,
    )
    for name in TRAINED[len(BACKBONES) :]
    for family in ("strong", "weak")
]

RECIPE = [*BACKBONES, *WEAK, *SCORES, *DECODED]
