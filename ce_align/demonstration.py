"""The whole way at toy size, on what the package itself holds."""

from itertools import combinations
from pathlib import Path
from typing import Any

from ce_align.config import StageConfig
from ce_align.data.scenes import SIMULATED_IMAGES
from ce_align.data.simulation import SIMULATED
from ce_align.report.paper.files import FigureConfig, TableConfig
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.score import ScoreConfig
from ce_align.stages.train import training_folder
from ce_align.trainer.presets import preset_config

__all__ = ["demo_recipe"]

OBJECTIVES = ("mmcr", "barlow", "simclr")
WEIGHTS = (0.0, 0.3)

#: So short that six networks are trained in a minute or two on two cores: enough to see
#: every step, far too little to learn what the paper is about.
EPOCHS = 2

#: What such rows can fill: no other networks, backbones or data sets are there.
TABLES = ("1", "3", "5")
FIGURES = ("1", "2", "3", "5", "6", "7", "forest", "overlap", "training")

#: Layer that stands for IT in the tiny network.
LAYER = "layer4"

#: Views of the analyses, of the size that the networks were trained on.
VIEWS: dict[str, Any] = {
    "comparisons": 40,
    "views": 16,
    "crops": 6,
    "photometrics": 6,
    "runs": 3,
    "size": 32,
}


def demo_recipe(runs: Path) -> list[StageConfig]:
    """Configurations of the demonstration.

    Parameters
    ----------
    runs : folder of the trainings, whose paths name the networks
    """
    trainings = {
        (objective, weight): preset_config(
            "tiny",
            objective,
            equivariance_weight=weight,
            images=SIMULATED_IMAGES,
            epochs=EPOCHS,
        )
        for objective in OBJECTIVES
        for weight in WEIGHTS
    }
    names = {key: str(training_folder(c, runs)) for key, c in trainings.items()}
    scores = [
        ScoreConfig(model=name, recording=SIMULATED.name, layer=LAYER)
        for name in names.values()
    ]
    analyses = [
        AnalysisConfig(
            metric=metric,
            model=name,
            layer=LAYER,
            baseline=names[objective, 0.0] if metric == "bures" and weight else None,
            images=SIMULATED_IMAGES,
            family="tiny",
            **VIEWS,
        )
        for metric in ("bures", "decoding")
        for (objective, weight), name in names.items()
    ]
    overlaps = [
        OverlapConfig(
            model_a=names[first, WEIGHTS[1]],
            model_b=names[second, WEIGHTS[1]],
            recording=SIMULATED.name,
            layer_a=LAYER,
            layer_b=LAYER,
        )
        for first, second in combinations(OBJECTIVES, 2)
    ]
    return [
        *trainings.values(),
        *scores,
        *analyses,
        *overlaps,
        CorrelateConfig(recordings=(SIMULATED.name,)),
        *(TableConfig(table=name) for name in TABLES),
        *(FigureConfig(figure=name) for name in FIGURES),
    ]
