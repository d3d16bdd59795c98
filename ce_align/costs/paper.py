"""What the whole paper would take, on machines that few have."""

from ce_align.config import StageConfig
from ce_align.costs.work import IMAGENET, VALIDATION
from ce_align.models.catalogue import GROUPS, PUBLISHED, invariant_sibling
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.trainer.presets import preset_config

__all__ = ["paper_configs"]

#: The four macaque sets of the paper.
RECORDINGS = (
    *("majajhong2015", "sanghavi2020", "sanghavijozwik2020", "sanghavimurty2020"),
)


def paper_configs() -> list[StageConfig]:
    """Its 21 networks: trained, scored on four recordings, and analysed."""
    found: list[StageConfig] = []
    for name in GROUPS["paper"]:
        entry = PUBLISHED[name]
        layer = entry.layers["IT"]
        found.append(
            preset_config(
                "paper-in1k",
                entry.objective,
                equivariance_weight=entry.equivariance_weight,
                images=IMAGENET,
                precision="bf16",
            )
        )
        found += [
            ScoreConfig(model=name, recording=recording, layer=layer)
            for recording in RECORDINGS
        ]
        found += [
            AnalysisConfig(
                metric=metric,
                model=name,
                layer=layer,
                baseline=invariant_sibling(name) if metric == "bures" else None,
                images=VALIDATION,
            )
            for metric in ("bures", "decoding")
        ]
    return found
