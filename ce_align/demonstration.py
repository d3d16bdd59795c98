"""The whole way at toy size, on what the package itself holds."""

from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ce_align.config import StageConfig
from ce_align.data.importers import ImportSettings, import_recording
from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording
from ce_align.data.scenes import SIMULATED_IMAGES
from ce_align.data.simulation import SIMULATED, simulated_recording
from ce_align.progress import Notify, quiet
from ce_align.report.paper.files import FigureConfig, TableConfig
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.train import training_folder
from ce_align.trainer.presets import preset_config

__all__ = ["FIGURES", "demo_recipe", "session_score"]

OBJECTIVES = ("mmcr", "barlow", "simclr")
WEIGHTS = (0.0, 0.3)

#: So short that six networks are trained in a minute or two on two cores: enough to see
#: every step, far too little to learn what the paper is about.
EPOCHS = 2

#: What such rows can fill: no other networks, backbones or data sets are there.
TABLES = ("1", "3", "5")
FIGURES = (
    *("1", "2", "3", "5", "6", "7"),
    *("forest", "geometry", "lambda", "networks", "overlap", "training"),
)

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


#: Size of the session that is imported, and its window in ms after stimulus onset.
SESSION = {"n_images": 160, "n_repetitions": 4, "n_neuroids": 24, "image_size": 64}
WINDOW = (70.0, 170.0)
#: Seconds from one stimulus to the next.
INTERVAL = 0.3


def write_session(recording: Recording, path: Path) -> None:
    """Write a recording of spike counts as a session of NWB: trials, spikes, images.

    Each count becomes as many spikes within `WINDOW`. Trials are in random order.
    """
    shown = recording.presentations()
    order = np.random.default_rng(0).permutation(len(shown.stimulus))
    onsets = 1 + INTERVAL * np.arange(len(order))
    times = []
    for counts in shown.values[order].astype(int).T:
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        share = (place + 0.5) / np.repeat(counts, counts)
        within = WINDOW[0] + share * (WINDOW[1] - WINDOW[0])
        times.append(np.repeat(onsets, counts) + within / 1e3)
    n_units = len(times)
    with h5py.File(path, "w") as file:
        trials, units = (file.require_group(n) for n in ("intervals/trials", "units"))
        trials["start_time"], trials["stop_time"] = onsets, onsets + INTERVAL
        trials["stimulus_presented"] = shown.stimulus[order]
        units["id"] = np.arange(n_units)
        units["spike_times"] = np.concatenate(times)
        units["spike_times_index"] = np.cumsum([len(unit) for unit in times])
        units["electrodes"] = np.arange(n_units)
        areas = [recording.region] * n_units
        file["general/extracellular_ephys/electrodes/location"] = areas
        file["general/subject/subject_id"] = recording.origin
        group = file.require_group("stimulus/presentation/stimuli")
        references = np.empty(len(recording.images), dtype=h5py.ref_dtype)
        for i, name in enumerate(recording.images.ids):
            held = group.create_dataset(name, data=np.asarray(recording.images.load(i)))
            references[i] = held.ref
        group["order_of_images"] = references


def session_score(folder: Path, tell: Notify = quiet) -> ScoreConfig:
    """Write a simulated session as NWB, import it, and score a network on it.

    The recording is the file ``session.nc``; it is made once.
    """
    path = folder / "session.nc"
    if not path.exists():
        made, session = simulated_recording(**SESSION).recording, folder / "session.nwb"
        folder.mkdir(parents=True, exist_ok=True)
        write_session(made, session)
        settings = ImportSettings(
            file=str(session),
            window=WINDOW,
            degrees=made.degrees,
            origin="simulated",
        )
        read = import_recording(settings, "session (simulated)", tell=tell)
        write_recording(read, path)
    return ScoreConfig(model="gabor", recording=str(path), layer="complex")


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
