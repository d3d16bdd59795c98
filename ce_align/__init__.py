"""Contrastive-equivariant networks and their alignment with visual cortex.

    import ce_align as ce

    recording = ce.load_recording("simulated")
    result = ce.score("torchvision/resnet18", recording, layer="layer4")
    result.frame

Names or objects everywhere: a network is a name, a `torch.nn.Module` that
`load_network` was given, or an array of features; a recording is a name, a file, or
responses and images that `make_recording` was given.

Importing the package is cheap: what a name needs is imported when the name is used.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("ce-align")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+source"

#: Where each public name is. `__init__.pyi` says the same to editors.
_FACE = {
    **dict.fromkeys(
        (
            *("analyze", "compare", "correlate", "export", "figure", "load_network"),
            *("load_recording",),
            *("open_results", "overlap", "score", "similarity"),
            *("table", "train", "transfer", "unique"),
        ),
        "ce_align.api",
    ),
    "run": "ce_align.api",
    "Outcome": "ce_align.stages.running",
    "Hardware": "ce_align.stages.running",
    "ResultStore": "ce_align.results",
    "make_recording": "ce_align.data.made",
    "ImageSet": "ce_align.data.imagesets",
    "Recording": "ce_align.data.recordings",
    "Network": "ce_align.models.networks",
    "FeatureArray": "ce_align.models.given",
    "AnalysisConfig": "ce_align.stages.measures",
    "CompareConfig": "ce_align.stages.compare",
    "CorrelateConfig": "ce_align.stages.correlate",
    "FigureConfig": "ce_align.report.paper.files",
    "OfficialConfig": "ce_align.stages.official",
    "OverlapConfig": "ce_align.stages.overlap",
    "ReportConfig": "ce_align.report.page.stage",
    "ScoreConfig": "ce_align.stages.score",
    "SimilarityConfig": "ce_align.stages.similarities",
    "TableConfig": "ce_align.report.paper.files",
    "TrainConfig": "ce_align.trainer.presets",
    "TransferConfig": "ce_align.stages.transfer",
    "UniqueConfig": "ce_align.stages.unique",
    "CeAlignError": "ce_align.errors",
    "ConfigError": "ce_align.errors",
    "DataError": "ce_align.errors",
    "AccessError": "ce_align.errors",
}
#: Rooms of arrays in, arrays out, for whoever wants the mathematics alone.
_ROOMS = ("metrics", "augment")

__all__ = ["__version__", *_FACE, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"ce_align.{name}")
    if name not in _FACE:
        raise AttributeError(f"module 'ce_align' has no attribute {name!r}")
    found = getattr(import_module(_FACE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
