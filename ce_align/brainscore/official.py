"""Brain-Score's own benchmark objects, run on our networks."""

import copy
import functools
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.brainscore.benchmarks import benchmark_from_recording, load_benchmark
from ce_align.brainscore.datasets import DATASETS
from ce_align.brainscore.models import brain_model
from ce_align.brainscore.upstream import import_brainscore, without_result_caching
from ce_align.data.recordings import Recording
from ce_align.errors import CeAlignError, explained
from ce_align.files import cache_folder, scratch_folder
from ce_align.progress import Progress, silent

if TYPE_CHECKING:
    from ce_align.models.networks import Network

__all__ = ["OfficialScore", "official_id", "official_scores"]

#: Modules of Brain-Score that draw bars of progress.
MODULES_WITH_BARS = (
    "benchmark_helpers.screen",
    "metric_helpers.transformations",
    "model_helpers.activations.core",
)


@dataclass(frozen=True)
class OfficialScore:
    """What a benchmark of Brain-Score says of one layer.

    `raw`, `error` and `ceiling` are None where it does not state one number.
    """

    layer: str
    benchmark: str
    value: float
    raw: float | None
    error: float | None
    ceiling: float | None


def official_id(name: str) -> str | None:
    """Identifier in Brain-Score's registry of the benchmark of a recording, or None."""
    if name in DATASETS:
        return DATASETS[name].benchmark_id
    prefix, _, rest = name.partition("/")
    return rest if prefix == "brainscore" and rest else None


def official_scores(
    network: "Network",
    name: str,
    recording: Recording,
    layers: list[str],
    *,
    device: str = "auto",
    progress: Progress = silent,
    on_error: Callable[[str, CeAlignError], None] | None = None,
) -> Iterator[OfficialScore]:
    """Score layers of a network with Brain-Score's own benchmark object.

    A recording that is not Brain-Score's gets the benchmark object that Brain-Score
    builds for its recordings of IT. Results of Brain-Score's functions are neither
    kept nor taken from its cache.

    Parameters
    ----------
    network : the network
    name : of the recording
    recording : the recording itself
    layers : committed to the recording's region, one after another
    device : ``auto`` (a GPU if there is one), ``cpu``, ``cuda``
    progress : told of batches of images and of splits done
    on_error : told of a layer that fails, and why; the others go on. None raises.

    Raises
    ------
    ConfigError
        If a layer does not exist, or Brain-Score has no such benchmark.
    DataError
        If the recording has no repetitions.
    CeAlignError
        If the memory is too small, or Brain-Score fails.
    """
    from ce_align.models.devices import devices_of, full_precision, resolve_device

    identifier = official_id(name)
    device = devices_of(resolve_device(device))[0]
    with _own_place() as folder, full_precision(device), _bars_as(progress):
        if identifier is None:
            benchmark = benchmark_from_recording(recording, folder / "stimuli")
        else:
            benchmark = load_benchmark(identifier)
        _keep_ceiling(benchmark)
        for layer in layers:
            committed = {recording.region: layer}
            try:
                with network.running():
                    model = brain_model(network, layers=committed, device=device)
                    found = _run(benchmark, model, layer, identifier)
            except Exception as error:  # any code can run in a network
                if on_error is None:
                    raise
                on_error(layer, explained(error))
                continue
            yield found


@contextmanager
def _own_place() -> Iterator[Path]:
    """Temporary folder of ours where Brain-Score places stimuli on the screen."""
    screen: Any = import_brainscore("benchmark_helpers.screen")
    before = screen.root_path
    with scratch_folder("official", cache_folder("brainscore")) as place:
        screen.root_path = place / "screen"
        try:
            yield place
        finally:
            screen.root_path = before


@contextmanager
def _bars_as(progress: Progress) -> Iterator[None]:
    """Tell `progress` what Brain-Score would draw as bars of its own."""

    def told(steps: Any, *, total: int | None = None, desc: str = "", **_: Any) -> Any:
        n_steps = len(steps) if total is None else total
        for done, step in enumerate(steps):
            progress(f"Brain-Score's {desc}", done, n_steps)
            yield step
        progress(f"Brain-Score's {desc}", n_steps, n_steps)

    modules: list[Any] = [import_brainscore(name) for name in MODULES_WITH_BARS]
    before = [module.tqdm for module in modules]
    for module in modules:
        module.tqdm = told
    try:
        yield
    finally:
        for module, bar in zip(modules, before, strict=True):
            module.tqdm = bar


def _keep_ceiling(benchmark: Any) -> None:
    """Let the benchmark compute its ceiling once, not for every layer and animal."""
    compute = getattr(benchmark, "_ceiling_func", None)
    if compute is not None:
        kept = functools.cache(compute)
        benchmark._ceiling_func = lambda: copy.deepcopy(kept())


def _run(
    benchmark: Any, model: Any, layer: str, identifier: str | None
) -> OfficialScore:
    identifier = identifier or str(benchmark.identifier)
    try:
        # It reports its guess of the memory on standard output, which is for rows.
        with (
            without_result_caching(),
            redirect_stdout(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
        ):
            score = import_brainscore().score_benchmark(benchmark, model)
    except MemoryError as error:
        raise CeAlignError(
            f"Brain-Score expects {identifier} to need more memory than there is: "
            f"{' '.join(str(error).split())}; take a smaller layer, or set "
            "BRAINSCORE_SKIP_MEMORY_CHECK=1 to try all the same"
        ) from error
    except AssertionError as error:
        raise CeAlignError(
            f"Brain-Score's {identifier} failed on {model.identifier}: "
            f"{' '.join(str(error).split()) or 'an assertion without a message'}"
        ) from error
    value = float(score.values)
    further = (_number(score.attrs.get(key)) for key in ("raw", "error", "ceiling"))
    return OfficialScore(layer, identifier, value, *further)


def _number(value: Any) -> float | None:
    """One finite number, or None."""
    if value is None or np.size(value) != 1:
        return None
    number = float(np.asarray(value).item())
    return number if np.isfinite(number) else None
