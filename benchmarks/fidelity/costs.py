"""Estimated against measured: what trainings, scores and analyses take on one thread.

    OMP_NUM_THREADS=1 python -m benchmarks.fidelity.costs IMAGES RECORDING.nc

IMAGES are photographs in a folder or archive, RECORDING an imported recording. Each row
is computed anew by a process of its own, in a folder of its own; measured are the
seconds that its processor was at it, which other processes change little. The rates are
measured first, on a machine that should do nothing else.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from ce_align.config import StageConfig
from ce_align.costs.rates import measure
from ce_align.costs.work import cost_of
from ce_align.files import scratch_folder
from ce_align.runner import config_type
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.trainer.presets import preset_config

RUN = """
import json, sys
from ce_align.runner import config_type, run
for stage, settings in json.loads(sys.argv[1]):
    outcome = run([config_type(stage)(**settings)], "results")
    for what, error in outcome.failures:
        raise SystemExit(f"{what}: {error}")
"""


def configs(images: str, recording: str) -> dict[str, StageConfig]:
    """What is compared, by a few words."""
    resnet50, resnet18 = "torchvision/resnet50:none", "torchvision/resnet18:none"

    def analysis(metric: str) -> StageConfig:
        return AnalysisConfig(
            metric=metric,
            model=resnet18,
            layer="layer4",
            images=images,
            comparisons=60,
            centroids="compared",
            crops=8,
            photometrics=8,
            size=112,
        )

    return {
        "train, tiny, 2 epochs": preset_config(
            "tiny", "mmcr", equivariance_weight=0.3, images=images, epochs=2
        ),
        "train, tiny, simclr": preset_config(
            "tiny", "simclr", equivariance_weight=0.3, images=images, epochs=2
        ),
        "score, ResNet-50, PLS": ScoreConfig(
            model=resnet50, recording=recording, layer="layer4"
        ),
        "score, ResNet-18, PLS": ScoreConfig(
            model=resnet18, recording=recording, layer="layer4"
        ),
        "score, ResNet-18, ridge": ScoreConfig(
            model=resnet18, recording=recording, layer="layer4", regression="ridge"
        ),
        "analyze, ResNet-18, Bures": analysis("bures"),
        "analyze, ResNet-18, decoding": analysis("decoding"),
    }


def seconds_of(config: StageConfig) -> float:
    """Seconds of the processor that a configuration takes, from nothing."""
    assert config_type(config.stage) is type(config)
    settings = json.dumps([[config.stage, config.model_dump(mode="json")]])
    with scratch_folder("costs") as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", RUN, settings],
            check=True,
            cwd=folder,
            env={**os.environ, "CE_ALIGN_HOME": str(folder / "caches")},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(images: str, recording: str) -> None:
    """Print estimated and measured seconds of each, and their ratio."""
    rates = measure()
    print(rates)
    print(f"{'':30}{'estimated s':>12}{'measured s':>12}{'ratio':>8}")
    paths = [str(Path(name).resolve()) for name in (images, recording)]
    for name, config in configs(*paths).items():
        cost, taken = cost_of(config, rates), seconds_of(config)
        most = max(cost.seconds, key=lambda part: cost.seconds[part])
        print(
            f"{name:30}{cost.total:12.1f}{taken:12.1f}{cost.total / taken:8.2f}"
            f"  mostly {most}",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
