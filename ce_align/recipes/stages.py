"""How configurations of each type are executed together: one line a stage."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from ce_align.config import StageConfig
from ce_align.data.finding import find_images
from ce_align.data.imagesets import ImageSet
from ce_align.data.labelled_sets import LabelledSplits
from ce_align.data.published_sets import load_splits
from ce_align.data.recordings import load_recording
from ce_align.files import cache_folder
from ce_align.models.catalogue import EXPORTED
from ce_align.models.load import load_network
from ce_align.recipes.running import Context, Report, Runner
from ce_align.report.paper.files import FigureConfig, TableConfig, write_all
from ce_align.results import ResultStore
from ce_align.stages.analyze import Job, analyze
from ce_align.stages.correlate import CorrelateConfig, correlate_rows
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.overlap import OverlapConfig, overlap
from ce_align.stages.responses import Responses, Subject
from ce_align.stages.same_network import load_rows
from ce_align.stages.score import ScoreConfig, score
from ce_align.stages.train import STAGE as TRAIN
from ce_align.stages.train import TrainRow, train
from ce_align.stages.transfer import TransferConfig, transfer
from ce_align.trainer.presets import TrainConfig
from ce_align.trainer.views import data_digest, open_images

__all__ = ["RUNNERS", "training_folder"]

Key = TypeVar("Key", bound=Hashable)
Config = TypeVar("Config", bound=StageConfig)
Loaded = TypeVar("Loaded")


def training_folder(config: TrainConfig, runs: Path = Path("runs")) -> Path:
    """Folder of a recipe's training, whose path names the network.

    Backbone, families of views and seed are part of it unless they are the paper's.

    >>> training_folder(TrainConfig(objective="mmcr", equivariance_weight=0.1,
    ...                             images="train", backbone="resnet34")).as_posix()
    'runs/mmcr_l0.1_resnet34'
    """
    name = f"{config.objective}_l{config.equivariance_weight:g}"
    usual = {k: f.default for k, f in TrainConfig.model_fields.items()}
    if config.backbone != usual["backbone"]:
        name += f"_{config.backbone}"
    views = config.families[0].partition("_")[0]
    if config.families != usual["families"] and views != config.backbone:
        name += f"_{views}"
    if config.seed != usual["seed"]:
        name += f"_seed{config.seed}"
    return runs / name


def _grouped(
    configs: Iterable[Config], key: Callable[[Config], Key]
) -> dict[Key, list[Config]]:
    groups: dict[Key, list[Config]] = {}
    for config in configs:
        groups.setdefault(key(config), []).append(config)
    return groups


def _load_each(
    names: Iterable[str], load: Callable[[str], Loaded], report: Report
) -> dict[str, Loaded]:
    """Load what can be loaded, each once; note the rest."""
    loaded = {}
    for name in dict.fromkeys(names):
        if report.has_failed(name):
            continue
        with report.attempt(name):
            loaded[name] = load(name)
    return loaded


def _train(configs: Sequence[TrainConfig], context: Context, report: Report) -> None:
    from ce_align.trainer.hardware import Hardware

    opened: dict[tuple[str, int, int], ImageSet] = {}
    for done, config in enumerate(configs):
        folder = training_folder(config, context.runs)
        context.progress("trainings", done, len(configs))
        with report.attempt(str(folder)):
            source = (config.images, config.view_size, config.seed)
            if source not in opened:
                # Those of one source follow each other; one is in memory at a time.
                opened = {source: open_images(*source)}
            images = opened[source]
            config_id = config.fingerprint(images=data_digest(images))
            rows = ResultStore(folder).get(TRAIN, config_id, TrainRow)
            stored = bool(rows) and (folder / EXPORTED).is_file() and not context.force
            if not stored:
                context.notify(f"training {folder}")
                rows = train(config, images, folder, Hardware(), notify=context.notify)
            report.count(rows or [], stored=stored)
            if rows and not (stored and context.store.get(TRAIN, config_id, TrainRow)):
                context.store.put(TRAIN, config_id, config, rows)
    context.progress("trainings", len(configs), len(configs))


def _score(configs: Sequence[ScoreConfig], context: Context, report: Report) -> None:
    recordings = _load_each((c.recording for c in configs), load_recording, report)
    possible = [config for config in configs if config.recording in recordings]
    networks = _grouped(possible, _network_of)
    for done, ((model, seed), group) in enumerate(networks.items()):
        context.progress("networks to score", done, len(networks))
        if report.has_failed(model):
            continue
        # One network in memory at a time; none if it could not be loaded.
        with report.attempt(model):
            network = load_network(model, seed=seed)
            known = []
            for config in group:
                with report.attempt(model):
                    network.check_layers([config.layer])
                    known.append(config)
            for same in _grouped(known, _but_layer).values():
                name = same[0].recording
                with report.attempt(f"{model} × {name}"):
                    outcome = score(
                        network,
                        recordings[name],
                        same,
                        context.store,
                        hardware=context.hardware,
                        force=context.force,
                        allow_unstable=context.allow_unstable,
                        progress=context.progress,
                        notify=context.notify,
                    )
                    report.rows += outcome.rows
                    report.n_stored += outcome.n_stored
                    report.n_done += len(outcome.rows) - outcome.n_stored
                    report.failures += [
                        (f"{layer} × {name}", error)
                        for layer, error in outcome.failures
                    ]
    context.progress("networks to score", len(networks), len(networks))


def _network_of(config: ScoreConfig | TransferConfig) -> tuple[str, int]:
    """Name of a network and seed of its weights, if they are random."""
    return config.model, config.seed


def _but_layer(config: ScoreConfig) -> ScoreConfig:
    return config.model_copy(update={"layer": ""})


def _analyze(
    configs: Sequence[AnalysisConfig], context: Context, report: Report
) -> None:
    for settings, group in _grouped(configs, _views_of).items():
        with report.attempt(f"analyses of {settings.images}"):
            _analyze_together(group, context, report)


def _views_of(config: AnalysisConfig) -> AnalysisConfig:
    """What configurations share whose networks look at the same views."""
    own = {"metric": "bures", "model": "", "layer": "", "baseline": None}
    return config.model_copy(update=own)


def _analyze_together(
    configs: Sequence[AnalysisConfig], context: Context, report: Report
) -> None:
    first = configs[0]
    names = [name for c in configs for name in (c.model, c.baseline) if name]
    networks = _load_each(
        names, lambda name: load_network(name, seed=first.seed), report
    )
    jobs = []
    subjects: dict[tuple[str, str | None], Subject] = {}

    def subject_of(name: str, layer: str | None) -> Subject:
        if (name, layer) not in subjects:
            subjects[name, layer] = Subject.of(
                networks[name], layer, allow_unstable=context.allow_unstable
            )
        return subjects[name, layer]

    for config in configs:
        baseline = config.baseline
        if config.model in networks and (baseline is None or baseline in networks):
            with report.attempt(f"{config.model}, {config.metric}"):
                network = networks[config.model]
                subject = subject_of(config.model, config.layer)
                # Each network's own layer, or one that was chosen for both.
                usual = config.layer == network.layer_for("IT")
                layer = None if usual else config.layer
                other = subject_of(baseline, layer) if baseline else None
                jobs.append(Job(config, subject, other))
    if not jobs:
        return
    images = find_images(first.images, first.comparisons)
    before = len(report.failures)
    found = analyze(
        jobs,
        images,
        context.store,
        Responses(cache_folder("responses")),
        hardware=context.hardware,
        force=context.force,
        progress=context.progress,
        notify=context.notify,
    )
    report.rows += found.rows
    report.notes += found.left_out
    report.failures += found.failures
    report.n_stored += found.n_stored
    failed = len(report.failures) - before
    report.n_done += len(jobs) - found.n_stored - failed


def _overlap(
    configs: Sequence[OverlapConfig], context: Context, report: Report
) -> None:
    recordings = _load_each((c.recording for c in configs), load_recording, report)
    for config in configs:
        if config.recording not in recordings:
            continue
        names = (config.model_a, config.model_b)
        with report.attempt(f"{' and '.join(names)} × {config.recording}"):
            first, second = (load_network(name, seed=config.seed) for name in names)
            rows, stored = overlap(
                (first, second),
                recordings[config.recording],
                config,
                context.store,
                device=context.hardware.device,
                force=context.force,
                allow_unstable=context.allow_unstable,
                notify=context.notify,
            )
            report.count(rows, stored=stored)


def _transfer(
    configs: Sequence[TransferConfig], context: Context, report: Report
) -> None:
    def load(name: str) -> LabelledSplits:
        return load_splits(name, context.root or cache_folder("datasets"))

    data = _load_each((c.dataset for c in configs), load, report)
    possible = [config for config in configs if config.dataset in data]
    for (model, seed), group in _grouped(possible, _network_of).items():
        if report.has_failed(model):
            continue
        with report.attempt(model):
            network = load_network(model, seed=seed)
            for config in group:
                with report.attempt(f"{model} × {config.dataset}"):
                    row, stored = transfer(
                        network,
                        data[config.dataset],
                        config,
                        context.store,
                        hardware=context.hardware,
                        force=context.force,
                        allow_unstable=context.allow_unstable,
                        progress=context.progress,
                        notify=context.notify,
                    )
                    report.count([row], stored=stored)


def _correlate(
    configs: Sequence[CorrelateConfig], context: Context, report: Report
) -> None:
    for config in configs:
        with report.attempt(f"correlation with {', '.join(config.recordings)}"):
            found = load_rows(context.store)
            rows, notes = correlate_rows(found, config, context.store)
            # Always computed: it is quick, and depends on all rows that there are.
            report.count(rows, stored=False)
            report.notes += notes


def _write(
    configs: Sequence[TableConfig | FigureConfig], context: Context, report: Report
) -> None:
    written = write_all(configs, context.store.folder, context.out)
    report.files += written.paths
    report.n_done += len(configs) - len(written.failures)
    report.failures += written.failures


#: What executes each type of configuration, in the order of execution.
RUNNERS: dict[type[StageConfig], Runner] = {
    TrainConfig: _train,
    ScoreConfig: _score,
    AnalysisConfig: _analyze,
    OverlapConfig: _overlap,
    TransferConfig: _transfer,
    CorrelateConfig: _correlate,
    TableConfig: _write,
    FigureConfig: _write,
}
