"""Stand-ins for Brain-Score's recordings, with its own classes and file formats."""

import hashlib
import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ce_align.brainscore.datasets import DATASETS

#: The four recordings of the paper, and the open one of the same kind.
OF_IT = (
    *("majajhong2015", "sanghavi2020", "sanghavijozwik2020", "sanghavimurty2020"),
    "majajhong2015-public",
)


class FixedFeatures:
    """A Brain-Score candidate whose features are given, in an order of its own."""

    identifier = "fixed-features"

    def __init__(self, ids, features, rng, degrees: float = 8) -> None:
        order = rng.permutation(len(ids))
        self.ids, self.features = np.asarray(ids)[order], features[order]
        self.degrees = degrees

    def visual_degrees(self) -> float:
        return self.degrees

    def start_recording(self, region: str, time_bins: Any) -> None:
        pass

    def look_at(self, stimuli: Any, number_of_trials: int = 1) -> Any:
        from brainscore_core.supported_data_standards.brainio.assemblies import (
            NeuroidAssembly,
        )

        table = stimuli.set_index("stimulus_id").loc[self.ids]
        coords = {name: ("presentation", table[name].values) for name in table}
        names = [f"feature.{i}" for i in range(self.features.shape[1])]
        return NeuroidAssembly(
            self.features,
            coords={
                "stimulus_id": ("presentation", self.ids),
                **coords,
                "neuroid_id": ("neuroid", names),
                "layer": ("neuroid", ["layer4"] * len(names)),
            },
            dims=["presentation", "neuroid"],
        )


def make_stimuli(rng, n: int, folder: Path, identifier: str, extra=None) -> Any:
    from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet

    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"{token:08x}" for token in rng.choice(2**31, n, replace=False)]
    objects = np.array(["bear", "car", "face", "plane"])[np.arange(n) % 4]
    table = {
        "stimulus_id": ids,
        "object_name": rng.permutation(objects),
        "size": rng.normal(size=n).round(3),
        "background_id": [f"bg{k}" for k in rng.integers(5, size=n)],
        **(extra or {}),
    }
    stimuli = StimulusSet(table)
    stimuli.identifier = identifier
    stimuli.stimulus_paths = {}
    # Images show what drives the sites, so that a network can predict them.
    down = np.linspace(-1, 1, 8)[:, None, None]
    for key, causes in zip(ids, latents(stimuli), strict=True):
        colours = 128 + 40 * causes[:3] + 30 * down * causes[3:]
        pixels = colours + rng.integers(-12, 13, size=(8, 8, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            folder / f"{key}.png"
        )
        stimuli.stimulus_paths[key] = folder / f"{key}.png"
    return stimuli


def make_presentations(
    rng, stimuli, n_repetitions: int, n_it: int, *, missing=0.1, n_bins=1, n_v4=3
) -> Any:
    """Shuffled presentations, some missing, of IT and V4 sites driven by latents."""
    from brainscore_core.supported_data_standards.brainio.assemblies import (
        NeuronRecordingAssembly,
    )

    n = len(stimuli)
    stimulus, repetition = np.divmod(np.arange(n * n_repetitions), n_repetitions)
    # The first repetitions are kept, so that no half of the repetitions lacks a
    # stimulus, which Brain-Score's ceiling does not survive.
    kept = (repetition < n_repetitions - 2) | (rng.random(len(stimulus)) > missing)
    shuffled = rng.permutation(np.flatnonzero(kept))
    stimulus, repetition = stimulus[shuffled], repetition[shuffled]
    n_sites = n_it + n_v4
    signal = latents(stimuli) @ rng.normal(size=(6, n_sites))
    noise = rng.normal(size=(len(stimulus), n_sites, n_bins))
    regions = rng.permutation(["IT"] * n_it + ["V4"] * n_v4)
    starts = 70 + 100 * np.arange(n_bins)
    # As in the Sanghavi recordings, the only ones with several bins.
    numbered = {"time_bin_id": ("time_bin", np.arange(n_bins))} if n_bins > 1 else {}
    return NeuronRecordingAssembly(
        signal[stimulus][:, :, None] + 1.5 * noise,
        coords={
            "stimulus_id": ("presentation", stimuli["stimulus_id"].values[stimulus]),
            "repetition": ("presentation", repetition),
            "neuroid_id": ("neuroid", [f"site_{i}" for i in range(n_sites)]),
            "region": ("neuroid", regions),
            "animal": ("neuroid", ["Chabo"] * n_sites),
            "time_bin_start": ("time_bin", starts),
            "time_bin_end": ("time_bin", starts + 100),
            **numbered,
        },
        dims=["presentation", "neuroid", "time_bin"],
    )


def latents(stimuli: Any) -> np.ndarray:
    """Six numbers a stimulus that depend on its id alone."""
    seeds = [int(key, 16) for key in stimuli["stimulus_id"]]
    return np.stack([np.random.default_rng(seed).normal(size=6) for seed in seeds])


def merged(assembly: Any, stimuli: Any) -> Any:
    """Assembly with the stimulus set's columns, by Brain-Score's own loader."""
    from brainscore_core.supported_data_standards.brainio.assemblies import (
        NeuronRecordingAssembly,
        StimulusMergeAssemblyLoader,
    )

    loader = StimulusMergeAssemblyLoader(
        NeuronRecordingAssembly, None, stimuli.identifier, stimuli
    )
    result = loader.merge_stimulus_set_meta(assembly, stimuli)
    result.attrs["stimulus_set"] = stimuli
    result.attrs["stimulus_set_identifier"] = stimuli.identifier
    return result


def write_files(stimuli, assembly, stimulus_set_id, assembly_id, folder) -> dict:
    """Recording and stimuli in the files of Brain-Score's storage: name to path."""
    packaging = importlib.import_module(
        "brainscore_core.supported_data_standards.brainio.packaging"
    )
    folder.mkdir(parents=True, exist_ok=True)
    responses = folder / f"assy_{assembly_id.replace('.', '_')}.nc"
    packaging.write_netcdf(assembly, responses)
    table = folder / f"stimulus_{stimulus_set_id.replace('.', '_')}.csv"
    archive = table.with_suffix(".zip")
    listed = stimuli.copy()
    listed["filename"] = [f"{key}.png" for key in stimuli["stimulus_id"]]
    listed.to_csv(table, index=False)
    packaging.create_stimulus_zip(stimuli, str(archive))
    return {path.name: path for path in (responses, table, archive)}


def sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def register_files(monkeypatch, dataset, files, *, digests=None) -> None:
    """Let Brain-Score's registries expect these files, by its own loaders.

    `digests` replaces the SHA-1 of some of them, by the end of their names.
    """
    package = importlib.import_module("brainscore_vision")
    for plugin in dataset.plugins:
        importlib.import_module(f"brainscore_vision.data.{plugin}")
    s3 = importlib.import_module("brainscore_core.supported_data_standards.brainio.s3")
    assemblies = importlib.import_module(
        "brainscore_core.supported_data_standards.brainio.assemblies"
    )
    found = {path.suffix: sha1(path) for path in files.values()} | (digests or {})
    if dataset.stored:
        stored = [
            replace(file, sha1=found[Path(file.name).suffix]) for file in dataset.stored
        ]
        (name,) = (name for name, known in DATASETS.items() if known == dataset)
        monkeypatch.setitem(DATASETS, name, replace(dataset, stored=tuple(stored)))
    bucket = "brainscore-storage/brainio-brainscore"

    def load_stimuli():
        return s3.load_stimulus_set_from_s3(
            identifier=dataset.stimulus_set_id,
            bucket=bucket,
            csv_sha1=found[".csv"],
            zip_sha1=found[".zip"],
            csv_version_id="null",
            zip_version_id="null",
        )

    def load_responses():
        return s3.load_assembly_from_s3(
            identifier=dataset.assembly_id,
            version_id="null",
            sha1=found[".nc"],
            bucket=bucket,
            cls=assemblies.NeuronRecordingAssembly,
            stimulus_set_loader=load_stimuli,
        )

    monkeypatch.setitem(package.data_registry, dataset.registry_id, load_responses)
    monkeypatch.setitem(
        package.stimulus_set_registry, dataset.stimulus_set_id, load_stimuli
    )


def pre_place(files, brainio: Path) -> None:
    """Put files where Brain-Score looks before it asks its storage."""
    for name, path in files.items():
        place = brainio / sha1(path) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())


def make_files(rng, dataset, folder, *, stimuli=None, n=60, n_it=4, **kwargs) -> dict:
    """Small files with the axes, coordinates and attributes of a real recording."""
    if stimuli is None:
        images = folder / f"images-{dataset.stimulus_set_id}"
        stimuli = make_stimuli(rng, n, images, dataset.stimulus_set_id)
    # The Sanghavi recordings have further time bins, of which the first is used.
    n_bins = 1 if dataset.registry_id.startswith("Majaj") else 2
    settings = {"missing": 0.2, "n_bins": n_bins, **kwargs}
    assembly = make_presentations(
        rng, stimuli, dataset.repetitions or 6, n_it, **settings
    )
    assembly.attrs["image_size_degree"] = dataset.degrees
    return write_files(
        stimuli, assembly, dataset.stimulus_set_id, dataset.assembly_id, folder
    )
