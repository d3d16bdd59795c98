"""IT predictivity: how well a network's features predict a recording."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ce_align.checks import named_some
from ce_align.config import ConfigId
from ce_align.data.recordings import Recording
from ce_align.errors import CeAlignError, ConfigError
from ce_align.files import read_text
from ce_align.metrics.gram import centred_gram
from ce_align.results import joined_notes
from ce_align.stages.comparable import CHOOSING
from ce_align.stages.running import NetworkLayer, Run
from ce_align.stages.scores import (
    BEST,
    ComparisonConfig,
    RecordingConfig,
    ScoreConfig,
    ScoreRow,
)
from ce_align.stages.targets import Target, best_of, predict

if TYPE_CHECKING:
    from ce_align.models.features import Features
    from ce_align.models.networks import Network, Probe
    from ce_align.stages.official import OfficialConfig

__all__ = [
    *("VISUAL_DEGREES", "depth_of", "execute", "execute_parts", "features_of"),
    *("parts_of", "score"),
    *("shared", "with_layers"),
]

#: What is selected in time: a bin, a window, or nothing.
Time = int | tuple[float, float] | None

#: A configuration that names one layer of one network, for one recording.
LayerConfig = TypeVar("LayerConfig", bound="ComparisonConfig | OfficialConfig")
PartConfig = TypeVar("PartConfig", bound=ComparisonConfig)

#: Changes whenever the same settings and data would give another number.
ALGORITHM = "predictivity 2"

#: Responses that are predicted in one go: a gigabyte of them.
MOST_VALUES = 2**27

#: Visual angle of every network's input, as Brain-Score assumes for its models.
VISUAL_DEGREES = 8.0

#: Changes whenever a layer would be chosen in another way.
CHOICE = f"{CHOOSING} 1"


def shared(config: ScoreConfig) -> Hashable:
    """What configurations have in common that share a network in memory."""
    return config.model, config.seed


def execute(configs: Sequence[ScoreConfig], run: Run) -> None:
    """Score layers of one network against recordings; all of one in a pass."""
    named = [config for config in configs if config.layer != BEST]
    if named:
        execute_parts(named, score, run)
    if chosen := [config for config in configs if config.layer == BEST]:
        execute_parts(chosen, score_best, run)


def execute_parts(
    configs: Sequence[PartConfig],
    compare: "Callable[[Network, Mapping[PartConfig, Recording], Run], list[Any]]",
    run: Run,
) -> None:
    """Compare layers of one network with what is asked for of recordings.

    `compare` takes all layers and parts of one recording, and returns their rows.
    """
    model, seed = configs[0].model, configs[0].seed
    groups: dict[PartConfig, list[PartConfig]] = {}
    for config in configs:
        but_layer = config.model_copy(update={"layer": ""})
        groups.setdefault(but_layer, []).append(config)
    ready = []
    for first, group in groups.items():
        with run.attempt(f"{model} × {first.recording}", *group):
            recording = run.recording(first.recording)
            parts = []
            for narrowed, part, time in parts_of(recording, first):
                of_part = [config.model_copy(update=narrowed) for config in group]
                # A bin without a response keeps no other from its score.
                with run.attempt(f"{model} × {first.recording}", *of_part):
                    selected = part if time is None else part.select(time=time)
                    parts.append((of_part, selected))
            ready.append((parts, first, group))
    if not any(parts for parts, *_ in ready):  # the network need not be loaded
        return
    network = run.network(model, seed)
    for parts, first, group in ready:
        with run.attempt(f"{model} × {first.recording}", *group):
            asked = {
                found: part
                for of_part, part in parts
                for found in with_layers(of_part, network, part, run)
            }
            if asked:  # a layer that there is
                run.outcome.rows += compare(network, asked, run)


def parts_of(
    recording: Recording, config: RecordingConfig
) -> Iterator[tuple[dict[str, str], Recording, Time]]:
    """What is scored of a recording: regions, each with what to select in time.

    Comes with the settings that ask for just this part.
    """
    ids = None if config.neuroids is None else _listed(Path(config.neuroids))
    chosen = recording.select(
        region=config.region,
        animal=config.animal,
        reliability=config.reliability,
        neuroids=ids,
    )
    if config.reliability is not None:
        note = f"neuroids with a stated reliability above {config.reliability:g}"
        chosen = replace(chosen, notes=(*chosen.notes, note))
    for region in chosen.regions:
        narrowed = {"region": region} if len(chosen.regions) > 1 else {}
        part = chosen.select(region=region)
        for settings, time in _times(part, config.time):
            yield narrowed | settings, part, time


def _listed(path: Path) -> list[str]:
    """Ids in a file, one a line."""
    try:
        lines = read_text(path, encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read the ids of neuroids in {path}: {error}; give a text file "
            "with one a line"
        ) from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _times(
    recording: Recording, time: str | None
) -> Iterator[tuple[dict[str, str], Time]]:
    """Bins, or the bin or window, that are asked for; None if there is no time."""
    bins = recording.time_bins
    if bins is None and time is None:
        yield {}, None
        return
    if bins is None:
        raise ConfigError(f"{recording.identifier} has no time bins; leave out --time")
    if time is None:
        raise ConfigError(
            f"{recording.identifier} has {len(bins)} time bins from {bins.min():g} to "
            f"{bins.max():g} ms; give --time all, the number of one, or START:END"
        )
    if time == "all":
        yield from (({"time": str(place)}, place) for place in range(len(bins)))
        return
    try:
        start, colon, end = time.partition(":")
        yield {}, (float(start), float(end)) if colon else int(start)
    except ValueError:
        raise ConfigError(
            f"--time must be all, the number of a bin, or START:END in ms; found {time}"
        ) from None


def with_layers(
    configs: Sequence[LayerConfig],
    network: "Network",
    recording: Recording,
    run: Run,
) -> list[LayerConfig]:
    """Configurations with the layers that they stand for, each once.

    A layer that does not exist is a failure of its configuration.
    """
    from ce_align.models.networks import asked_layers

    found: dict[LayerConfig, None] = {}
    for config in configs:
        if config.stage == ScoreConfig.stage and config.layer == BEST:
            found[config] = None
            continue
        with run.attempt(network.name, config):
            for layer in asked_layers(network, config.layer, recording.region):
                named: Any = config.model_copy(update={"layer": layer})
                found[named] = None
            if config not in found:
                run.store.clear_failure(config.stage, config)
    return list(found)


def score(
    network: "Network", asked: Mapping[ScoreConfig, Recording], run: Run
) -> list[ScoreRow]:
    """Score layers of one network against a recording, or against parts of one.

    Features of all layers come from one pass over the images. A configuration that is
    in the store comes from there, as long as the network has not changed; each
    layer is stored as soon as it is computed, so that an interrupted run loses at most
    one. A layer that fails does not keep the others from their rows.

    Parameters
    ----------
    network : network whose layers the configurations name
    asked : for each configuration the part of the recording that it is about. They
        differ only in the layer and the part; the parts have the same images
    run : where rows, and r of every split and neuroid, go

    Raises
    ------
    ConfigError
        If a layer, or the column to stratify by, does not exist.
    DataError
        If the recording cannot be scored with these settings.
    """
    from ce_align.models.features import ALGORITHM_VERSION

    if not asked:
        return []
    resolved = {config.for_recording(part): part for config, part in asked.items()}
    for config in asked.keys() - resolved.keys():
        run.store.clear_failure(config.stage, config)
    asked = resolved
    layers = list(dict.fromkeys(config.layer for config in asked))
    probe = network.probe(layers, allow_unstable=run.allow_unstable)
    ids = {
        config: config.fingerprint(
            weights=probe.digest,
            recording=recording.digest,
            algorithm=f"{ALGORITHM}, features {ALGORITHM_VERSION}",
        )
        for config, recording in asked.items()
    }
    known = {name: [NetworkLayer(network, name, probe)] for name in layers}
    rows: dict[ScoreConfig, list[ScoreRow]] = {}
    for config, recording in asked.items():
        stored = run.recall(
            config,
            ids[config],
            ScoreRow,
            known[config.layer],
            origin=recording.origin,
        )
        if stored:
            rows[config] = stored
    missing = {config: part for config, part in asked.items() if config not in rows}
    if missing:
        rows |= _computed(network, missing, ids, probe, known, run)
    return [row for config in asked for row in rows.get(config, ())]


def _computed(
    network: "Network",
    missing: Mapping[ScoreConfig, Recording],
    ids: Mapping[ScoreConfig, ConfigId],
    probe: "Probe",
    known: Mapping[str, Sequence[NetworkLayer]],
    run: Run,
) -> dict[ScoreConfig, list[ScoreRow]]:
    """Rows that are not stored yet; each is stored as soon as it is computed."""
    # Everything that can be refused is refused before hours of extraction.
    targets: dict[str, Target] = {}
    fitting: dict[ScoreConfig, Recording] = {}
    for config, part in missing.items():
        if part.digest not in targets:
            targets[part.digest] = Target.of(part, config)
        with run.attempt(f"{network.name} {config.layer} × {config.recording}", config):
            if config.layer in probe.behaviours:
                width = probe.behaviours[config.layer].width
                targets[part.digest].check_memory(width, config)
            fitting[config] = part
    if not fitting:
        return {}
    missing = fitting
    first, recording = next(iter(missing.items()))
    failed: dict[str, CeAlignError] = {}
    wanted = list(dict.fromkeys(config.layer for config in missing))
    features = features_of(network, recording, wanted, run, probe, failures=failed)
    rows: dict[ScoreConfig, list[ScoreRow]] = {}
    what, done = f"{network.name} × {recording.identifier}", 0
    for layer, known_layer in known.items():
        of_layer = [config for config in missing if config.layer == layer]
        form = None
        depth = {"layer_depth": depth_of(network, layer)}
        parts_of = [targets[missing[config].digest] for config in of_layer]
        for some, parts in _together(of_layer, parts_of):
            run.progress(what, done, len(missing))
            done += len(some)
            name = f"{network.name} {layer} × {first.recording}"
            with run.attempt(name, *some):
                if layer in failed:
                    raise failed[layer]
                values = features[layer].values
                if form is None:  # all parts of the recording share it
                    form = cache(partial(centred_gram, values, dtype=first.gram_dtype))
                found = predict(parts, values, first, form)
                for config, target, r in zip(some, parts, found, strict=True):
                    with run.attempt(name, config):
                        found_rows = target.rows(r, probe, config, ids[config])
                        rows[config] = run.keep(
                            config,
                            ids[config],
                            [row.model_copy(update=depth) for row in found_rows],
                            known_layer,
                            target.arrays(r, config),
                            origin=target.recording.origin,
                        )
    run.progress(what, 1, 1)
    return rows


def score_best(
    network: "Network", asked: Mapping[ScoreConfig, Recording], run: Run
) -> list[ScoreRow]:
    """Score a network at the block that is best within the training images of a split.

    Blocks that fail are named, and the others are chosen among.

    The images that a split tests have no say in its layer, so that the choice among
    many gains nothing by chance.

    Parameters
    ----------
    network : network all of whose blocks are candidates
    asked, run : as of `score`

    Raises
    ------
    ConfigError
        If units are predicted, of which every layer has others.
    DataError
        If the recording cannot be scored, or the network has no block that can.
    """
    from ce_align.models.features import ALGORITHM_VERSION
    from ce_align.models.networks import asked_layers

    rows = []
    for given, part in asked.items():
        run.store.clear_failure(given.stage, given)
        config = given.for_recording(part)
        with run.attempt(f"{network.name} {BEST} × {config.recording}", config):
            if config.regression == "reverse_pls":
                raise ConfigError(
                    "--layer best compares how neuroids are predicted; reverse_pls "
                    "predicts units, so name a layer"
                )
            blocks = asked_layers(network, "all", part.region)
            probe = network.probe(blocks, allow_unstable=run.allow_unstable)
            failed: dict[str, CeAlignError] = {**probe.failures}
            known = [NetworkLayer(network, n, probe) for n in blocks if n not in failed]
            _tell_failed(failed, network, config, run)
            config_id = config.fingerprint(
                weights=probe.digest,
                recording=part.digest,
                algorithm=f"{ALGORITHM}, features {ALGORITHM_VERSION}, {CHOICE}",
            )
            stored = run.recall(config, config_id, ScoreRow, known, origin=part.origin)
            if stored:
                rows += stored
                continue
            target = Target.of(part, config)
            for one in known:
                try:
                    target.check_memory(probe.behaviours[one.layer].width, config)
                except CeAlignError as error:
                    failed[one.layer] = error
            fitting = [name for name in blocks if name not in failed]
            features = features_of(network, part, fitting, run, probe, failures=failed)
            _tell_failed(failed, network, config, run)
            known = [one for one in known if one.layer not in failed]
            if not known:
                raise failed[blocks[0]]
            values = {one.layer: features[one.layer].values for one in known}
            r, chosen = best_of(
                target, values, config, partial(run.progress, f"{network.name} {BEST}")
            )
            times = Counter(chosen).most_common()
            told = ", ".join(f"{name} {n}" for name, n in times)
            note = joined_notes(
                f"layers by the training images of {len(chosen)} splits: {told}",
                f"without {named_some(list(failed))}, which failed" if failed else None,
                *(probe.note(name) for name, _ in times),
            )
            names = np.array(chosen, dtype=object)
            scored = target.scored(r, config, probe.digest, config_id)
            rows += run.keep(
                config,
                config_id,
                [
                    row.model_copy(update={"note": joined_notes(row.note, note)})
                    for row in scored
                ],
                known,
                target.arrays(r, config).assign(layer=("split", names)),
                origin=part.origin,
            )
    return rows


def _tell_failed(
    failed: Mapping[str, CeAlignError],
    network: "Network",
    config: ScoreConfig,
    run: Run,
) -> None:
    """Name layers that cannot be chosen, each once."""
    for layer, error in failed.items():
        run.failed(f"{network.name} {layer} × {config.recording}", error)


def features_of(
    network: "Network",
    recording: Recording,
    layers: Sequence[str],
    run: Run,
    probe: "Probe | None" = None,
    *,
    again: bool = True,
    failures: "dict[str, CeAlignError] | None" = None,
) -> "dict[str, Features]":
    """Features of layers for the images of a recording, as large as they were seen.

    Parameters
    ----------
    probe : of the network, if it is there
    again : whether they are computed anew where the run is to compute all anew
    failures : takes what fails, by layer; without it the first is raised
    """
    from ce_align.models.features import extract

    return extract(
        network,
        recording.images.on_screen(recording.degrees, VISUAL_DEGREES),
        layers,
        device=run.hardware.device,
        batch_size=run.hardware.batch_size,
        compile=run.hardware.compiled,
        overwrite=run.force and again,
        probe=probe,
        failures=failures,
        progress=lambda done, total: run.progress(
            f"{network.name} images", done, total
        ),
        notify=run.notify,
    )


def depth_of(network: "Network", layer: str) -> int | None:
    """Place of a layer's last part among all modules; None of given features."""
    module = getattr(network, "module", None)
    names = [] if module is None else [name for name, _ in module.named_modules()]
    places = [k for k, name in enumerate(names) if f"{name}.".startswith(f"{layer}.")]
    return places[-1] if places else None


def _together(
    configs: Sequence[ScoreConfig], targets: Sequence[Target]
) -> Iterator[tuple[list[ScoreConfig], list[Target]]]:
    """Configurations whose parts are predicted in one go, as many as memory allows."""
    some: list[ScoreConfig] = []
    parts: list[Target] = []
    n_values = 0
    for config, target in zip(configs, targets, strict=True):
        n_values += target.n_values
        if some and (n_values > MOST_VALUES or config.regression == "reverse_pls"):
            yield some, parts
            some, parts, n_values = [], [], target.n_values
        some.append(config)
        parts.append(target)
    if some:
        yield some, parts
