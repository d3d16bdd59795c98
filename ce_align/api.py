"""The functions of `import ce_align as ce`: names or objects in, an outcome out.

Each makes configurations and gives them to the one runner, as the commands do.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ce_align.config import StageConfig, takes_settings
from ce_align.data.imagesets import ImageSet
from ce_align.data.named import load_recording as _load_recording
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError
from ce_align.report.paper.files import FigureConfig, TableConfig
from ce_align.results import ResultStore
from ce_align.runner import register_brainscore
from ce_align.runner import run as _run_configs
from ce_align.stages.at_hand import AtHand
from ce_align.stages.beside import with_others
from ce_align.stages.compare import CompareConfig
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.earlier import stored_rows
from ce_align.stages.measures import (
    MEASURES,
    NO_BASELINE,
    AnalysisConfig,
    with_baselines,
)
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.running import Outcome
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.similarities import SimilarityConfig
from ce_align.stages.transfer import TransferConfig
from ce_align.stages.unique import UniqueConfig, beside_each_other
from ce_align.trainer.presets import TrainConfig, preset_config

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from ce_align.models.networks import Network
    from ce_align.stages.at_hand import (
        NetworkLike,
        Networks,
        RecordingLike,
        ResultsLike,
    )
    from ce_align.sweeps.start import Means, Where

__all__ = [
    *("analyze", "compare", "correlate", "export", "figure", "load_network"),
    "load_recording",
    *("open_results", "overlap", "score", "similarity", "table"),
    *("train", "transfer", "unique"),
]

#: Tells what a person should know.
_say = partial(print, file=sys.stderr)


class Results(ResultStore):
    """The folder that keeps the rows of all runs."""

    def frame(self, stage: str | None = None) -> "pd.DataFrame":
        """Rows of a stage, or of all, with all that is known of their networks."""
        import pandas as pd

        return pd.DataFrame(stored_rows(self, stage))


def load_network(
    network: "str | Path | nn.Module",
    *,
    name: str | None = None,
    seed: int = 0,
    **description: Any,
) -> "Network":
    """A network by its name, or a module of torch with its preprocessing.

    Parameters
    ----------
    network : a name as the commands take it (``torchvision/resnet50``, ``timm/NAME``,
        ``ce_mmcr_l0.1``, a checkpoint, the folder of a training, ``FILE.py:callable``),
        or a `torch.nn.Module`, which is put into evaluation mode
    name : of the module, as rows show it; None for its class's name
    seed : of random weights
    **description : of a module: ``input_size``, ``mean`` and ``std`` of RGB in [0, 1],
        ``interpolation``, and ``layers``, the layer committed to each region; what is
        left out is ImageNet's

    Raises
    ------
    ConfigError, DataError, AccessError
        See `ce_align.models.load.load_network`.
    """
    from torch import nn

    from ce_align.models.load import described_network
    from ce_align.models.load import load_network as load

    if isinstance(network, nn.Module):
        network.eval()
        return described_network(name or type(network).__name__, network, description)
    if name is not None or description:
        raise ConfigError(
            "name and preprocessing are those of a torch.nn.Module; a network that is "
            f"called {network} has its own"
        )
    register_brainscore()
    return load(str(network), seed=seed)


def load_recording(name: str | Path) -> Recording:
    """A recording by its name, or from a ``.nc`` file.

    Raises
    ------
    ConfigError, DataError, AccessError
        If there is none, it cannot be read, or it is private.
    """
    register_brainscore()
    return _load_recording(str(name))


def open_results(folder: str | Path = "results") -> Results:
    """The rows that a folder keeps.

    ``.frame(stage)`` are rows, ``.arrays(stage, config_id)`` what is behind them, and
    ``.failures()`` why there are none of what failed.

    Raises
    ------
    ConfigError
        If there is no such folder.
    """
    if not Path(folder).is_dir():
        raise ConfigError(f"there is no folder {folder}; results are kept in one")
    return Results(Path(folder))


@takes_settings(ScoreConfig)
def score(
    networks: "Networks",
    recordings: "RecordingLike | Sequence[RecordingLike]",
    *,
    layer: str | Sequence[str] = "committed",
    nulls: int = 0,
    brain: bool = False,
    results: str | Path = "results",
    run_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Outcome:
    """Predict recordings from networks: raw r, ceiling, and raw² / ceiling.

    Parameters
    ----------
    networks : names, `Network` objects, or arrays of features (n_stimuli, n_features)
        in the order of the recording's stimuli; in a dict, by their labels
    recordings : names, ``.nc`` files, or `Recording` objects
    layer : of each network; ``committed`` for the one of the region, ``all``, ``best``
    nulls : untrained networks of each architecture to score beside it, with references
    brain : score each animal of the recordings by all others, too
    results : folder that keeps the rows; what is in it is not computed again
    run_options : such as ``force`` or ``hardware``, see `ce_align.stages.running.Run`
    **settings : of `ScoreConfig`, such as ``regression`` or ``splits``

    Raises
    ------
    CeAlignError
        If nothing could be scored; else what failed is among ``.failures``.
    """
    given = AtHand()
    layers = [layer] if isinstance(layer, str) else layer
    configs = [
        ScoreConfig(model=model, recording=recording, layer=name, **settings)
        for model in given.networks(networks)
        for recording in given.recordings(recordings)
        for name in layers
    ]

    def load(name: str) -> Recording:
        known = given.objects.get(("recording", name))
        return load_recording(name) if known is None else known

    configs = with_others(configs, nulls, brain, load)
    return _run(configs, results, given, run_options)


@takes_settings(SimilarityConfig)
def similarity(
    networks: "Networks",
    recordings: "RecordingLike | Sequence[RecordingLike]",
    metric: str | Sequence[str] = "rsa",
    *,
    layer: str | Sequence[str] = "committed",
    results: str | Path = "results",
    run_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Outcome:
    """Compare layers with recordings, neither fitted to the other.

    Parameters
    ----------
    networks, recordings, layer, results, run_options : as in `score`
    metric : of `ce_align.stages.similarities.SIMILARITIES`: ``rsa``, ``cka``,
        ``shape``, ``soft_matching``, ``one_to_one``, ``expected_r2``, ..., or several
    **settings : of `SimilarityConfig`, such as ``distance`` or ``comparator``

    Raises
    ------
    CeAlignError
        If nothing could be compared; else what failed is among ``.failures``.
    """
    given = AtHand()
    metrics, layers = (
        [one] if isinstance(one, str) else one for one in (metric, layer)
    )
    configs = [
        SimilarityConfig(
            metric=how,
            model=model,
            recording=recording,
            layer=name,
            **settings,
        )
        for model in given.networks(networks)
        for recording in given.recordings(recordings)
        for how in metrics
        for name in layers
    ]
    return _run(configs, results, given, run_options)


@takes_settings(AnalysisConfig)
def analyze(
    networks: "Networks",
    metric: str | Sequence[str] = "bures",
    *,
    images: "str | Path | ImageSet" = "simulated",
    baseline: "NetworkLike | None" = None,
    layer: str = "committed",
    results: str | Path = "results",
    run_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Outcome:
    """Measure how networks organise the variability that augmentations cause.

    Parameters
    ----------
    networks : names or `Network` objects, which all look at the same views
    metric : of `ce_align.stages.measures.MEASURES`: ``bures``, ``decoding``,
        ``factorization``, ``dimensionality``, ``steerability``, or several of them
    images : folder, zip or tar, ``simulated``, or an `ImageSet`
    baseline : network that differences of Bures distances are taken from; None for the
        one at λ = 0 that was trained alike, of `networks` or published; ``none``
    layer, results, run_options : as in `score`
    **settings : of `AnalysisConfig`, such as ``comparisons`` or ``views``

    Raises
    ------
    CeAlignError
        If nothing could be measured; else what failed is among ``.failures``.
    """
    metrics = [metric] if isinstance(metric, str) else list(metric)
    compared = {name for name, one in MEASURES.items() if one.against is not None}
    if baseline not in (None, NO_BASELINE) and not compared & set(metrics):
        raise ConfigError(
            "a baseline is for differences from it; leave it out, or add the metric "
            f"{' or '.join(map(repr, sorted(compared)))}"
        )
    given = AtHand()
    (source,) = given.named([images], ImageSet, "images")
    (other,) = given.networks(baseline) if baseline is not None else (None,)
    fixed = {"layer": layer, "images": source, **settings}
    models = given.networks(networks)
    configs, notes = with_baselines(
        [
            AnalysisConfig(metric=m, model=one, **fixed)
            for m in metrics
            for one in models
        ],
        other,
        given.facts,
    )
    outcome = _run(configs, results, given, run_options)
    outcome.notes += notes
    return outcome


@takes_settings(CompareConfig)
def compare(
    networks: "Networks",
    recording: "RecordingLike",
    *,
    layers: str | Sequence[str] = "committed",
    over: Literal["stimuli", "neuroids", "animals", "both"] = "both",
    results: str | Path = "results",
    run_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Outcome:
    """Tell which of several networks predicts a recording better.

    `networks` are two or more, `layers` one for all or one of each, and `over` is what
    else might have been recorded. Other arguments are those of `score`, settings those
    of `CompareConfig`. CeAlignError if nothing could be compared.
    """
    given = AtHand()
    (target,) = given.recordings(recording)
    config = CompareConfig(
        models=tuple(given.networks(networks)),
        recording=target,
        layers=(layers,) if isinstance(layers, str) else tuple(layers),
        over=over,
        **settings,
    )
    return _run([config], results, given, run_options)


@takes_settings(OverlapConfig)
def overlap(
    first: "NetworkLike",
    second: "NetworkLike",
    recording: "RecordingLike",
    *,
    layers: tuple[str, str] = ("committed", "committed"),
    results: str | Path = "results",
    run_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Outcome:
    """Partition the explained variance of a recording between two networks.

    Arguments are those of `score`; settings those of `OverlapConfig`.
    """
    given = AtHand()
    (target,) = given.recordings(recording)
    (a,), (b,) = given.networks(first), given.networks(second)
    config = OverlapConfig(
        model_a=a,
        model_b=b,
        recording=target,
        layer_a=layers[0],
        layer_b=layers[1],
        **settings,
    )
    return _run([config], results, given, run_options)


@takes_settings(UniqueConfig)
def unique(
    networks: "Networks",
    recording: "RecordingLike",
    *,
    layers: str | Sequence[str] = "committed",
    results: str | Path = "results",
    run_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Outcome:
    """What each of several networks explains of a recording that the others do not.

    `networks` are two or more, and `layers` one for all or one of each; other arguments
    are those of `score`, settings those of `UniqueConfig`.
    """
    given = AtHand()
    (target,) = given.recordings(recording)
    names = given.networks(networks)
    each = [layers] * len(names) if isinstance(layers, str) else list(layers)
    pairs = list(zip(names, each, strict=True))
    configs = beside_each_other(pairs, recording=target, **settings)
    return _run(configs, results, given, run_options)


@takes_settings(TransferConfig)
def transfer(
    networks: "Networks",
    datasets: str | Path | Sequence[str | Path],
    *,
    layer: str = "committed",
    results: str | Path = "results",
    run_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Outcome:
    """Accuracy of a linear probe of frozen features on other data sets.

    `datasets` are names such as ``cifar10``, or folders with ``train/CLASS`` and
    ``test/CLASS``; other arguments are those of `score`, settings those of
    `TransferConfig`.
    """
    given = AtHand()
    configs = [
        TransferConfig(model=model, dataset=str(name), layer=layer, **settings)
        for model in given.networks(networks)
        for name in ([datasets] if isinstance(datasets, str | Path) else datasets)
    ]
    return _run(configs, results, given, run_options)


@takes_settings(CorrelateConfig)
def correlate(
    recordings: str | Sequence[str] = (),
    *,
    results: str | Path = "results",
    run_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Outcome:
    """Correlate every stored measure with predictivity, across networks.

    Parameters
    ----------
    recordings : names; none for all that have scores
    results : folder of the rows
    run_options : as in `score`
    **settings : of `CorrelateConfig`: ``permutations``, and ``seed`` of the resampling

    Raises
    ------
    DataError
        If fewer than five networks have both a score and a measure.
    """
    names = (recordings,) if isinstance(recordings, str) else tuple(recordings)
    config = CorrelateConfig(recordings=names, **settings)
    return _run([config], results, options=run_options)


@takes_settings(TrainConfig)
def train(
    objective: str,
    weight: float,
    images: str | Path,
    *,
    preset: str = "paper-in1k",
    out: str | Path | None = None,
    validation: str | None = None,
    recording: str | None = None,
    run_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Train a contrastive-equivariant network, or go on training it.

    Parameters
    ----------
    objective : ``mmcr``, ``barlow``, ``simclr``, or one that was registered
    weight : equivariance weight λ, from 0 (invariant) to 1
    images : folder, archive, packed folder, or ``simulated``
    preset : a key of `ce_align.trainer.presets.PRESETS`, such as ``tiny`` or ``cifar``
    out : folder of the run; None for one below ``runs`` that is named by the settings
    validation : labelled images for the accuracy of probe and neighbours
    recording : that the network is scored on while it learns
    run_options : see `ce_align.stages.running.Run`
    **settings : of `TrainConfig`, such as ``epochs`` or ``backbone``

    Returns
    -------
    The folder, which is a network's name now.
    """
    from ce_align.stages.train import TrainOptions, training_folder

    named = {"equivariance_weight": weight, "images": str(images), **settings}
    config = preset_config(preset, objective, **named)
    folder = Path(out) if out is not None else training_folder(config)
    how = TrainOptions(folder=folder, validation=validation, recording=recording)
    _run([config], folder, options={"training": how, **(run_options or {})})
    return folder


def export(
    network: "str | Path | Network",
    hub: str | Path,
    *,
    licence: str | None = None,
    results: str | Path = "results",
) -> Path:
    """Write a network as a folder that timm loads and the hub shows.

    Parameters
    ----------
    network : a name, or what `load_network` gave
    hub : folder for ``config.json``, ``model.safetensors`` and ``README.md``, a card
        with λ, objective, epochs, data, and its scores
    licence : of the weights, as the hub spells it, such as ``cc-by-4.0``
    results : folder of the scores

    Raises
    ------
    ConfigError
        If nobody could build the network again, or timm is not installed.
    """
    from ce_align.stages.export import export as write

    found = load_network(network) if isinstance(network, str | Path) else network
    store = ResultStore(Path(results))
    return write(found, Path(hub), store, licence=licence, notify=_say)


@takes_settings(FigureConfig)
def figure(
    name: str, results: "ResultsLike" = "results", columns: Literal[1, 2] = 2
) -> "Figure":
    """A figure of stored rows, which a notebook shows, to ``savefig``.

    Parameters
    ----------
    name : ``1`` to ``8``, or a name that ``ce-align figures --help`` lists, such as
        ``forest`` or ``geometry``
    results : folder of the rows, or the outcome of a run, whose folder it is
    columns : width in columns of a page

    Raises
    ------
    ConfigError
        If there is no such figure.
    DataError
        If there are no rows of what it shows.
    """
    from ce_align.report.inputs import Inputs
    from ce_align.report.paper import draw

    config = FigureConfig(figure=name, columns=columns)
    return draw(config.figure, Inputs.load(_folder(results)), config.columns).figure


@takes_settings(TableConfig)
def table(name: str, results: "ResultsLike" = "results") -> "pd.DataFrame":
    """A table of the paper, ``1`` to ``5``, from stored rows; see `figure`."""
    from ce_align.report.inputs import Inputs
    from ce_align.report.paper import build_table

    asked = TableConfig(table=name).table
    return build_table(asked, Inputs.load(_folder(results))).shown


def run(
    configs: Iterable[StageConfig],
    results: "ResultStore | Path | str" = "results",
    *,
    where: "Executor | Means | Where | None" = None,
    **settings: Any,
) -> Outcome:
    """Execute configurations of any stages, whatever their order.

    Parameters
    ----------
    configs : each is executed once
    results : folder where rows go, and are looked up
    where : ``"processes"`` or ``"slurm"``, or `ce_align.sweeps.start.Means` with their
        options: a sweep, which is waited for; its jobs go on after any stop. Or an
        executor of processes of `concurrent.futures`, such as dask's, that is given
        groups of configurations. None for this process
    **settings : other attributes of `ce_align.stages.running.Run`, such as ``force``,
        ``hardware`` or ``progress``

    Returns
    -------
    Rows in the order of stages and configurations, and what could not be done.

    Raises
    ------
    ConfigError
        If no stage executes a type of configuration, there is no such place, or it
        cannot be given what is in this process alone.
    """
    from ce_align.sweeps.start import Means, run_sweep

    if isinstance(where, str):
        where = Means(where)
    if isinstance(where, Means):
        return run_sweep(configs, results, where, **settings)
    return _run_configs(configs, results, where=where, **settings)


def _folder(results: "ResultsLike") -> Path:
    if isinstance(results, Outcome):
        if results.store is None:
            raise ConfigError("the outcome is of no folder of results")
        results = results.store
    return results.folder if isinstance(results, ResultStore) else Path(results)


def _run(
    configs: Sequence[StageConfig],
    results: str | Path,
    given: AtHand | None = None,
    options: Mapping[str, Any] | None = None,
) -> Outcome:
    """Run, and raise the first failure if there are no rows."""
    given = given or AtHand()
    settings = {"given": given.objects, "labels": given.labels, "notify": _say}
    outcome = _run_configs(configs, results, **{**settings, **(options or {})})
    if outcome.failures and not outcome.rows:
        raise outcome.failures[0][1]
    return outcome
