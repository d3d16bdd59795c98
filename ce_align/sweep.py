"""Many networks against many recordings: what can be done is done, the rest named."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import Recording, load_recording
from ce_align.errors import CeAlignError, ConfigError, DataError, noted
from ce_align.models.catalogue import find_published
from ce_align.progress import Notify, Progress, quiet, silent
from ce_align.results import ResultStore
from ce_align.stages.analyze import AnalysisReport, Job, analyze
from ce_align.stages.hardware import Hardware
from ce_align.stages.measures import AnalysisConfig, Metric
from ce_align.stages.official import OfficialConfig, OfficialRow, score_officially
from ce_align.stages.responses import Responses, Subject
from ce_align.stages.score import ScoreConfig, ScoreRow, score

if TYPE_CHECKING:
    from ce_align.models.networks import Network

__all__ = ["ScoreReport", "analyze_all", "score_all"]

Loaded = TypeVar("Loaded")


@dataclass
class ScoreReport:
    """Rows of a sweep, and what could not be scored.

    Attributes
    ----------
    rows : in the order of networks, recordings and layers
    official : those of Brain-Score's own benchmark objects, in the same order
    n_stored : how many rows were in the store already
    failures : what was asked for, and why there is no row of it
    """

    rows: list[ScoreRow] = field(default_factory=list)
    official: list[OfficialRow] = field(default_factory=list)
    n_stored: int = 0
    failures: list[tuple[str, CeAlignError]] = field(default_factory=list)


def score_all(
    models: Sequence[str],
    recordings: Sequence[str],
    store: ResultStore,
    *,
    layers: Sequence[str] = (),
    settings: dict[str, Any],
    hardware: Hardware,
    ours: bool = True,
    official: bool = False,
    force: bool = False,
    allow_unstable: bool = False,
    progress: Progress = silent,
    notify: Notify = quiet,
) -> ScoreReport:
    """Score every network against every recording.

    A network or recording that fails is reported, and the others are still scored.

    Parameters
    ----------
    models, recordings : names, without groups or globs
    store : where rows go
    layers : layers to score; none for the one committed for the recording's region,
        ``("all",)`` for every block of the network
    settings : the remaining fields of `ScoreConfig`
    hardware : device and batch size
    ours, official : by this package, by Brain-Score's own benchmark object, or both
    force : compute stored rows again, with their features
    allow_unstable : measure layers, too, whose answers are random or depend on the
        batch; their rows say so
    progress : told of images and layers done
    notify : told of what is computed again because a network has changed
    """
    # A setting that is wrong is wrong for all.
    ScoreConfig(model="", recording="", layer="", **settings)
    if "all" in layers and len(layers) > 1:
        raise ConfigError("--layer all already stands for every layer")
    report = ScoreReport()
    loaded = _load_each(recordings, load_recording, report)
    for model in models:
        # One network in memory at a time; none if it could not be loaded.
        networks = _load_each([model], _network_loader(settings, progress), report)
        for network in networks.values():
            for name, recording in loaded.items():
                what = f"{model} × {name}"
                with noted(what, report.failures):
                    named: list[dict[str, Any]] = [
                        {"model": model, "recording": name, "layer": layer}
                        for layer in _layers(network, recording, layers, report)
                    ]
                    if ours and named:
                        outcome = score(
                            network,
                            recording,
                            [ScoreConfig(**names, **settings) for names in named],
                            store,
                            hardware=hardware,
                            force=force,
                            allow_unstable=allow_unstable,
                            progress=progress,
                            notify=notify,
                        )
                        report.rows += outcome.rows
                        report.n_stored += outcome.n_stored
                        report.failures += [
                            (f"{layer} × {name}", error)
                            for layer, error in outcome.failures
                        ]
                    if official and named:
                        rows, n_stored, failed = score_officially(
                            network,
                            recording,
                            [OfficialConfig(**names) for names in named],
                            store,
                            hardware=hardware,
                            force=force,
                            allow_unstable=allow_unstable,
                            progress=progress,
                            notify=notify,
                        )
                        report.official += rows
                        report.n_stored += n_stored
                        report.failures += [
                            (f"{model} {layer} × {name}", error)
                            for layer, error in failed
                        ]
    return report


def analyze_all(
    models: Sequence[str],
    metrics: Sequence[Metric],
    images: ImageSet,
    store: ResultStore,
    responses: Responses,
    *,
    layer: str | None = None,
    baseline: str | None = None,
    settings: dict[str, Any],
    hardware: Hardware,
    force: bool = False,
    allow_unstable: bool = False,
    progress: Progress = silent,
    notify: Notify = quiet,
) -> AnalysisReport:
    """Measure every network that is at hand, all on identical views.

    Parameters
    ----------
    models : names of networks
    metrics : kinds of measures
    images : to augment
    store, responses : where rows and the networks' answers go
    layer : layer to average over places; None for each network's last
    baseline : network that differences are taken from; None for the network of the
        same objective at equivariance weight 0
    settings : the remaining fields of `AnalysisConfig`
    hardware : device, batch size and rendering threads
    force : compute stored rows again, with the responses behind them
    allow_unstable : measure layers, too, whose answers are random or depend on the
        batch; their rows say so
    progress : told of images and measures done
    notify : told of what is computed again because a network has changed
    """
    failed = AnalysisReport()
    # Only distances are compared with a baseline.
    paired = "bures" in metrics
    baselines = {
        m: (baseline or invariant_sibling(m)) if paired else None for m in models
    }
    wanted = [*models, *(name for name in baselines.values() if name)]
    networks = _load_each(
        list(dict.fromkeys(wanted)), _network_loader(settings, progress), failed
    )
    subjects = _load_each(
        list(networks),
        lambda name: Subject.of(networks[name], layer, allow_unstable=allow_unstable),
        failed,
    )
    jobs = []
    for metric in metrics:
        for model in filter(subjects.__contains__, models):
            reference = baselines[model] if metric == "bures" else None
            config = AnalysisConfig(
                metric=metric,
                model=model,
                layer=subjects[model].layer,
                baseline=reference if reference in subjects else None,
                **settings,
            )
            other = subjects.get(reference or "")
            jobs.append(Job(config, subjects[model], other))
    if not jobs:
        return failed
    report = analyze(
        jobs,
        images,
        store,
        responses,
        hardware=hardware,
        force=force,
        progress=progress,
        notify=notify,
    )
    report.failures[:0] = failed.failures
    return report


def invariant_sibling(model: str) -> str | None:
    """Published network of the same objective at weight 0, if it is another one."""
    entry = find_published(model)
    if entry is None or entry.equivariance_weight == 0:
        return None
    return f"ce_{entry.objective}_l0"


def _network_loader(
    settings: dict[str, Any], progress: Progress
) -> "Callable[[str], Network]":
    from ce_align.models.load import load_network

    return lambda name: load_network(name, seed=settings["seed"], progress=progress)


def _load_each(
    names: Sequence[str],
    load: Callable[[str], Loaded],
    report: ScoreReport | AnalysisReport,
) -> dict[str, Loaded]:
    """Load what can be loaded; report the rest."""
    loaded: dict[str, Loaded] = {}
    for name in names:
        with noted(name, report.failures):
            loaded[name] = load(name)
    return loaded


def _layers(
    network: "Network",
    recording: Recording,
    layers: Sequence[str],
    report: ScoreReport,
) -> Sequence[str]:
    """Layers to score that the network has; the others are reported."""
    if not layers:
        return [network.layer_for(recording.region)]
    if "all" in layers:
        blocks = network.block_names()
        if not blocks:
            raise DataError(f"{network.name} has no layers: it is a single module")
        return blocks
    known = []
    for layer in dict.fromkeys(layers):
        with noted(network.name, report.failures):
            network.check_layers([layer])
            known.append(layer)
    return known
