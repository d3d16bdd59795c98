"""Counted work of a configuration: operations, pixels, views, bytes.

Nothing is loaded that has to be fetched or computed. What a name does not tell is
assumed, and said.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from math import log, prod
from pathlib import Path
from typing import Any

import torch

from ce_align.config import StageConfig, read_settings
from ce_align.costs.operations import (
    activations_of,
    backbone,
    counted,
    operations_of,
    width_of,
)
from ce_align.costs.rates import Rates
from ce_align.data.named import RECORDINGS
from ce_align.data.netcdf import describe_file
from ce_align.data.scenes import MIN_SCENES, SIMULATED_IMAGES, find_images
from ce_align.errors import CeAlignError
from ce_align.models.catalogue import facts_of
from ce_align.models.networks import Network, asked_layers
from ce_align.models.preprocessing import Preprocessing
from ce_align.names import REFERENCES, split_name
from ce_align.stages.compare import CompareConfig
from ce_align.stages.measures import MEASURES, AnalysisConfig
from ce_align.stages.official import OfficialConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.scores import BEST, ScoreConfig
from ce_align.stages.similarities import SimilarityConfig
from ce_align.stages.transfer import TransferConfig
from ce_align.stages.unique import UniqueConfig
from ce_align.stages.variability import units_in_pairs
from ce_align.stages.views import CLASS_SIZES
from ce_align.trainer.engine import SETTINGS
from ce_align.trainer.objectives import OBJECTIVES
from ce_align.trainer.presets import TrainConfig

__all__ = ["IMAGENET", "VALIDATION", "Cost", "Work", "cost_of", "total", "work_of"]

#: What the paper trains on, and the images that it analyses: validation images of a
#: hundred classes. They stand for themselves: nothing of that name need be there.
IMAGENET, VALIDATION = "ImageNet-1k", "ImageNet-100 validation"
IMAGES = {IMAGENET: 1_281_167, VALIDATION: 5000, SIMULATED_IMAGES: MIN_SCENES}
#: Images of a set, a data set and a recording that nobody can tell the size of.
USUAL_IMAGES = 50_000
USUAL_STIMULI = 3000
USUAL_NEUROIDS = 200
#: Pixels of an image that is decoded: that of ImageNet at its usual size.
USUAL_PIXELS = 500 * 375
#: Operations of a ResNet-50 for an image of the usual size, and its features in layer4.
USUAL_SIZE, TINY_SIZE = 224, 32
USUAL_OPERATIONS, USUAL_FEATURES = 8.2e9, (2048, 7, 7)
#: Images of published data sets, of all their parts.
DATASETS = {
    "cifar10": 60_000,
    "cifar100": 60_000,
    "pets": 7_349,
    "dtd": 5_640,
    "flowers": 8_189,
    "food": 101_000,
}
#: Operations for an image that a network of each kind needs, between which its speed
#: is interpolated.
FEW, MANY = 1e7, 4e9
#: Seconds of what only reads rows and draws.
DRAWING = 4.0
#: Strengths that ridge chooses from, in passes over the eigenvectors.
PASSES = 3
#: Comparisons of clouds within one distance: itself, and splits for floor and excess.
SPLITS = 17


@dataclass
class Work:
    """What is to be done, by the rates that it takes (see `Rates`).

    Attributes
    ----------
    amounts : by the name of the rate, in its unit
    operations : of the network, for one image
    memory : bytes at once, about
    written : bytes that stay on the disk
    assumed : what was not known
    """

    amounts: dict[str, float] = field(default_factory=dict)
    operations: float = 0.0
    memory: float = 1e9
    written: float = 0.0
    assumed: list[str] = field(default_factory=list)

    def add(self, rate: str, amount: float) -> None:
        """Add work of one kind."""
        self.amounts[rate] = self.amounts.get(rate, 0.0) + amount


@dataclass(frozen=True)
class Cost:
    """What work takes on a machine.

    Attributes
    ----------
    seconds : by part
    memory, written : bytes
    assumed : what was not known
    """

    seconds: dict[str, float]
    memory: float
    written: float
    assumed: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())


#: What a person calls each kind of work.
PARTS = {
    "decoded": "images decoded",
    "views": "views rendered",
    "rendered": "views rendered",
    "forward": "networks",
    "trained": "training",
    "products": "regressions and distances",
    "decomposed": "regressions and distances",
    "written": "disk",
    "starts": "start",
    "drawn": "drawing",
}


def cost_of(config: StageConfig, rates: Rates, met: set[Any] | None = None) -> Cost:
    """What a configuration takes on a machine, if nothing of it is stored.

    `met` are views that networks have met already; those of this one are added.
    """
    work = work_of(config, met)
    seconds: dict[str, float] = {}
    for name, amount in work.amounts.items():
        if name == "drawn":
            taken = amount
        elif name == "forward":
            taken = amount / _speed(work.operations, rates)
        else:
            taken = amount / getattr(rates, name)
        part = PARTS[name]
        seconds[part] = seconds.get(part, 0.0) + taken
    return Cost(seconds, work.memory, work.written, tuple(work.assumed))


def total(configs: Iterable[StageConfig], rates: Rates) -> Cost:
    """What configurations take one after another: the sum of seconds, most memory."""
    seconds: dict[str, float] = {}
    memory = written = 0.0
    assumed: dict[str, None] = {}
    met = set[Any]()
    for config in configs:
        cost = cost_of(config, rates, met)
        for part, taken in cost.seconds.items():
            seconds[part] = seconds.get(part, 0.0) + taken
        memory, written = max(memory, cost.memory), written + cost.written
        assumed |= dict.fromkeys(cost.assumed)
    return Cost(seconds, memory, written, tuple(assumed))


def work_of(config: StageConfig, met: set[Any] | None = None) -> Work:
    """Counted work of a configuration, but for views that networks have `met`."""
    work = Work()
    if isinstance(config, TrainConfig):
        _train(config, work)
    elif isinstance(config, ScoreConfig | OfficialConfig | SimilarityConfig):
        _score(config, [config.model], [config.layer], work)
    elif isinstance(config, CompareConfig):
        _score(config, config.models, config.each_layer, work)
        work.add("products", work.amounts["products"])
    elif isinstance(config, OverlapConfig):
        names = [config.model_a, config.model_b]
        _score(config, names, [config.layer_a, config.layer_b], work)
        work.add("products", work.amounts["products"])
    elif isinstance(config, UniqueConfig):
        names = [name for name, _ in config.networks]
        _score(config, names, [layer for _, layer in config.networks], work)
        work.add("products", work.amounts["products"])
    elif isinstance(config, AnalysisConfig):
        _analyze(config, work, set() if met is None else met)
    elif isinstance(config, TransferConfig):
        _transfer(config, work)
    else:
        work.add("drawn", DRAWING)
    return work


def _train(config: TrainConfig, work: Work) -> None:
    n, pixels = _images(config.images, work)
    steps = config.epochs * (n // 2 // config.pairs_per_step)
    views = 4 * config.pairs_per_step * steps
    network = backbone(config.backbone)
    work.operations = operations_of(network, config.view_size)
    widths = OBJECTIVES[config.objective].configured(**config.options).head_widths
    heads = 4 * sum(a * b for a, b in pairwise([width_of(network), *widths]))
    work.add("trained", 3 * views * (work.operations + heads) / 1e9)
    _render(work, views, config.view_size)
    work.add("decoded", views / 2 * pixels)
    weights = 4 * sum(parameter.numel() for parameter in network.parameters())
    n_bytes = 4 if config.precision == "32" else 2
    kept = n_bytes * activations_of(network, config.view_size)
    # Weights, gradients, moments; and what one step keeps of its views.
    work.memory += 4 * weights + 4 * config.pairs_per_step * kept
    work.written = weights


def _score(
    config: Any, models: Sequence[str], layers: Sequence[str], work: Work
) -> None:
    n, n_neuroids = _recording(config.recording, work)
    splits = getattr(config, "splits", 10)
    fits = 0.0
    for model, layer in zip(models, layers, strict=True):
        operations, shapes = _network(model, layer, work)
        n_features = sum(map(prod, shapes))
        fits += len(shapes)
        work.operations = max(work.operations, operations)
        work.add("forward", n * operations / 1e9)
        work.add("decoded", n * USUAL_PIXELS / 1e6)
        work.add("products", 2 * n**2 * n_features / 1e9)
        work.written += 4 * n * n_features
        work.add("written", 4 * n * n_features / 1e6)
    work.memory += 4 * n * n_features + 8 * splits * n * n_neuroids
    fits /= len(models)
    components = getattr(config, "components", 25)
    metric = getattr(config, "regression", None) or "pls"
    if "ridge" in str(metric):
        work.add("decomposed", fits * splits * n**3 / 1e9)
        work.add("products", fits * 2 * PASSES * splits * n**2 * n_neuroids / 1e9)
    else:
        products = 2 * splits * components * n * (n + n_neuroids)
        work.add("products", fits * products / 1e9)


def _analyze(config: AnalysisConfig, work: Work, met: set[Any]) -> None:
    n_all, pixels = _images(config.images, work)
    n = min(config.comparisons, n_all)
    classes = config.classes or units_in_pairs(config.comparisons)
    n_views = {
        "clean": n,
        "classes": min(n_all, CLASS_SIZES[1] * classes),
        "centroids": (n_all - n) * config.views if config.centroids == "all" else 0,
        "crossed": n * config.crops * config.photometrics,
    }
    names = [config.model, *([config.baseline] if config.baseline else [])]
    own = {"metric": "", "model": "", "layer": "", "baseline": None}
    setting = config.model_copy(update=own)
    width = 0
    for view in MEASURES[config.metric].views:
        views = n_views.get(view, n * config.views)
        if (view, setting) not in met:
            met.add((view, setting))
            _render(work, views, config.size)
            work.add("decoded", min(views, n_all) * pixels)
        for name in names:
            operations, ((width, *_), *_) = _network(name, config.layer, work)
            work.operations = max(work.operations, operations)
            if (view, setting, name, config.layer) not in met:
                met.add((view, setting, name, config.layer))
                work.add("forward", views * operations / 1e9)
                work.written += 4 * views * width
    work.add("written", work.written / 1e6)
    work.memory += work.written
    if config.metric == "decoding":
        rows = n * config.views
        work.add("products", 2 * config.runs * rows * (2 * width) ** 2 / 1e9)
        work.add("decomposed", config.runs * (2 * width) ** 3 / 1e9)
    else:
        clouds = n * SPLITS * len(names)
        work.add("products", 4 * clouds * config.views**2 * width / 1e9)
        work.add("decomposed", clouds * config.views**3 / 1e9)


def _transfer(config: TransferConfig, work: Work) -> None:
    n = DATASETS.get(config.dataset) or _images(config.dataset, work)[0]
    operations, _ = _network(config.model, "", work)
    work.operations = operations
    work.add("forward", n * operations / 1e9)
    work.add("decoded", n * USUAL_PIXELS / 1e6)
    # A multinomial regression by L-BFGS for each strength and repetition.
    work.add("products", 6 * 300 * 10 * n * 2048 * 100 / 1e9 / 10)


def _render(work: Work, views: float, size: int) -> None:
    work.add("views", views)
    work.add("rendered", views * size**2 / 1e6)


def _speed(operations: float, rates: Rates) -> float:
    """10⁹ operations in a second of a network that needs so many for an image."""
    if operations <= FEW or rates.small == rates.large:
        return rates.small
    share = min(1.0, log(operations / FEW) / log(MANY / FEW))
    return float(rates.small ** (1 - share) * rates.large**share)


@cache
def _known(name: str, size: int) -> tuple[float, dict[str, torch.Size]] | None:
    try:
        return counted(backbone(name), size)
    except (RuntimeError, ValueError):  # no such architecture, or not of that size
        return None


@cache
def _layers(name: str, layer: str) -> list[str]:
    """Layers of an architecture that a setting stands for, if it says so itself."""
    if layer not in (BEST, "all") and not set("*?[") & set(layer):
        return [layer]
    network = Network(name, backbone(name), Preprocessing())
    try:
        return asked_layers(network, "all" if layer == BEST else layer, "")
    except CeAlignError:
        return [layer]


def _network(model: str, layer: str, work: Work) -> tuple[float, list[tuple[int, ...]]]:
    """Operations of a network for an image, and shapes (channels, places) of layers.

    Images and views are resized to the network's own size, whatever theirs is.
    """
    if model in REFERENCES:
        return 3e7, [(3, 32, 32)]
    source = split_name(model).source
    built, size = facts_of(source).backbone, USUAL_SIZE
    settings = Path(source) / SETTINGS
    if settings.is_file():
        trained = read_settings(settings, TrainConfig)
        built = str(trained.get("backbone", built))
        size = int(trained.get("view_size", size))
    elif built is None and Path(source).name.partition("_seed")[0].endswith("_tiny"):
        built = "tiny"
    if built == "tiny" and not settings.is_file():
        size = TINY_SIZE
    if built is None and source.startswith("torchvision/"):
        built = source.removeprefix("torchvision/").partition(":")[0]
    found = _known(built, size) if built else None
    if found is None:
        work.assumed.append(f"{model} costs as much as a ResNet-50")
        return USUAL_OPERATIONS, [USUAL_FEATURES]
    operations, shapes = found
    asked = [shapes.get(name) or shapes.get("layer4") for name in _layers(built, layer)]
    return operations, [USUAL_FEATURES if s is None else tuple(s[1:]) for s in asked]


def _recording(name: str, work: Work) -> tuple[int, int]:
    """Stimuli and neuroids of a recording."""
    entry = RECORDINGS.get(name)
    if entry is None and Path(name).suffix == ".nc" and Path(name).is_file():
        with suppress(CeAlignError):
            entry = describe_file(Path(name))
    if entry is None or entry.images is None:
        work.assumed.append(f"{name} has {USUAL_STIMULI} stimuli")
        return USUAL_STIMULI, USUAL_NEUROIDS
    return entry.images, entry.neuroids or USUAL_NEUROIDS


@cache
def _counted_images(name: str) -> tuple[int, int] | None:
    if name in IMAGES:
        return IMAGES[name], USUAL_PIXELS
    if not Path(name).exists():
        return None
    try:
        found = find_images(name)
        width, height = found.load(0).size
    except CeAlignError:
        return None
    return len(found), width * height


def _images(name: str, work: Work) -> tuple[int, float]:
    """Images of a set, and millions of pixels of one: of the first, if it is there."""
    found = _counted_images(name)
    if found is None:
        work.assumed.append(f"{name} has {USUAL_IMAGES} images")
    n, pixels = found or (USUAL_IMAGES, USUAL_PIXELS)
    return n, pixels / 1e6
