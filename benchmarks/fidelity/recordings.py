"""Do scores equal those of Brain-Score's own benchmarks of open recordings?

    python -m benchmarks.fidelity.recordings

The recordings are not at hand, so small simulated ones stand for them, in the files
that Brain-Score's storage has: their identifiers, axes, coordinates and traps. They are
read by Brain-Score's own loaders, and scored by its own benchmark objects and by
`ce_align`. What is printed are both routes' raw scores, ceilings and scores, and the
largest difference.
"""

import hashlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BRAINIO = "brainscore_core.supported_data_standards.brainio"
BENCHMARKS = "brainscore_vision.benchmarks"
Array = NDArray[np.float64]

#: Benchmarks, the recording and settings that give their number, and what makes those
#: that Brain-Score does not register: its own maker with another metric.
COMPARED: dict[str, tuple[str, dict[str, Any], str | None]] = {
    **{
        f"Li2026.{region}-ridgecv": (f"li2026-{region.lower()}", {}, None)
        for region in ("V1", "V2", "V4", "IT")
    },
    **{
        f"Papale2025.{region}-ridgecv": (f"papale2025-{region.lower()}", {}, None)
        for region in ("V1", "V4", "IT")
    },
}
for _region, _name in (
    ("IT", "majajhong2015-public"),
    ("V4", "majajhong2015-public-v4"),
    ("V1", "freemanziemba2013-public-v1"),
    ("V2", "freemanziemba2013-public-v2"),
):
    _family = "MajajHong2015" if "majaj" in _name else "FreemanZiemba2013"
    _ridge = {"regression": "ridge", "alpha": 1.0}
    COMPARED[f"{_family}public.{_region}-pls"] = (_name, {}, None)
    COMPARED[f"{_family}public.{_region}-ridge"] = (_name, _ridge, "ridge")
    if "majaj" in _name:
        _reverse = {"regression": "reverse_pls"}
        COMPARED[f"{_family}public.{_region}-reverse_pls"] = (_name, _reverse, None)


class StandIns:
    """Files of simulated recordings in the layout of Brain-Score's storage.

    `files` has each by its name. `folder` is where they are made.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.files = folder, dict[str, Path]()
        self.rng = np.random.default_rng(seed)
        self._li2026()
        self._majajhong2015()
        self._freemanziemba2013()
        self._papale2025()

    def _li2026(self) -> None:
        ids = [f"nsd_{i:05d}" for i in self.rng.permutation(7000)[:70]]
        numbers = [int(key[4:]) for key in ids]
        causes = self._stimuli("Li2026_Stimuli", ids, {"nsd_id": numbers})
        regions = np.repeat(["V1", "V2", "V4", "IT"], [14, 14, 14, 90])
        n = len(regions)
        animals = np.where(
            regions == "IT",
            self.rng.choice(["M1", "M2", "M3", "M4", "M5"], n),
            self.rng.choice(["M1", "M3"], n),
        )
        window = self.rng.uniform(0.2, 0.95, n)
        self._assembly(
            "Li2026_Assembly",
            "Li2026_Stimuli",
            self._responses(causes, n)[:, :, None].astype(np.float32),
            presentation={"stimulus_id": ids, "nsd_id": numbers},
            neuroid={
                "neuroid_id": [f"{a}_ses01_unit{i:04d}" for i, a in enumerate(animals)],
                "region": regions,
                "animal": animals,
                "unittype": self.rng.integers(1, 4, n),
                "reliability": np.minimum(window + 0.1, 1),
                "reliability_window": window,
                "arealabel": np.where(regions == "IT", "IT-other", regions),
                "snr": self.rng.uniform(1, 9, n),
            },
            bins=[(70, 170)],
        )

    def _majajhong2015(self) -> None:
        ids = [f"{i:08x}" for i in self.rng.choice(2**31, 72, replace=False)]
        causes = self._stimuli(
            "hvm-public",
            ids,
            {
                "object_name": self.rng.permutation(["bear", "car", "face"] * 24),
                "image_id": self.rng.permutation(ids),
                "rxy": self.rng.normal(size=72).round(3),
            },
        )
        regions = np.repeat(["IT", "V4"], [34, 28])
        n = len(regions)
        stimulus, repetition = self._shown(72, 6, missing=0.1)
        signal = self._responses(causes, n)[stimulus]
        coordinates: dict[str, Any] = {
            "presentation": {
                "stimulus_id": np.array(ids)[stimulus],
                "repetition": repetition,
            },
            "neuroid": {
                "neuroid_id": [f"site_{i}" for i in self.rng.permutation(n)],
                "region": self.rng.permutation(regions),
                "animal": self.rng.choice(["Chabo", "Tito"], n),
            },
        }
        for identifier, bins in (
            ("dicarlo.MajajHong2015.public", [(70, 170)]),
            (
                "dicarlo.MajajHong2015.temporal.public",
                [(t, t + 10) for t in range(0, 40, 10)],
            ),
        ):
            noise = self.rng.normal(size=(*signal.shape, len(bins)))
            values = signal[:, :, None] + 1.5 * noise
            self._assembly(identifier, "hvm-public", values, **coordinates, bins=bins)

    def _freemanziemba2013(self) -> None:
        ids = [f"{i:08x}" for i in self.rng.choice(2**31, 60, replace=False)]
        identifier = "FreemanZiemba2013.aperture-public"
        causes = self._stimuli(
            identifier,
            ids,
            {
                "texture_type": self.rng.permutation(["noise", "texture"] * 30),
                "texture_family": self.rng.integers(1, 6, 60),
                "sample": self.rng.integers(1, 9, 60),
            },
        )
        stimulus, repetition = self._shown(60, 5)
        # One bin a millisecond, of which the benchmark averages 50 to 200.
        bins = [(t, t + 1) for t in range(40, 210)]
        signal = self._responses(causes, 14)[stimulus, :, None]
        noise = self.rng.normal(size=(len(stimulus), 14, len(bins)))
        self._assembly(
            "movshon.FreemanZiemba2013.public",
            identifier,
            (signal + 12 * noise).astype(np.float32),
            presentation={
                "stimulus_id": np.array(ids)[stimulus],
                "repetition": repetition,
            },
            neuroid={
                "neuroid_id": [f"n{i:03d}" for i in range(14)],
                "region": np.repeat(["V1", "V2"], 7),
            },
            bins=bins,
        )

    def _papale2025(self) -> None:
        n_sites = 24
        sites = {
            "region": np.repeat(["V1", "V4", "IT"] * 2, n_sites // 6),
            "subject": np.repeat(["monkeyF", "monkeyN"], n_sites // 2),
            # As in the real files, they repeat from animal to animal.
            "neuroid_id": np.tile(np.arange(n_sites // 2), 2),
            "SNR": self.rng.uniform(0, 5, n_sites),
            "SNR_max": self.rng.uniform(0, 5, n_sites),
            "reliability": self.rng.uniform(0.1, 0.9, n_sites),
            "oracle": self.rng.uniform(0, 1, n_sites),
        }
        # Some of each region and animal are reliable, and one is not.
        sites["reliability"][::4] = 0.2
        sites["reliability"][1::4] = 0.7
        weights = self.rng.normal(size=(6, n_sites))
        for part, n, n_repetitions in (("train", 60, 1), ("test", 24, 6)):
            ids = [f"{part}_{i:03d}" for i in self.rng.permutation(n)]
            identifier = f"THINGS_TVSD_{part}_Stimuli"
            labels = {"label": [f"thing {i % 7}" for i in range(n)]}
            causes = self._stimuli(identifier, ids, labels)
            stimulus, repetition = self._shown(n, n_repetitions)
            signal = (causes @ weights)[stimulus]
            values = signal + self.rng.normal(size=signal.shape)
            self._assembly(
                f"THINGS_TVSD_{part}_Assembly",
                identifier,
                values[:, :, None],
                presentation={
                    "stimulus_id": np.array(ids)[stimulus],
                    "stimulus_label": np.array(ids)[stimulus],
                    "object_name": np.array(labels["label"])[stimulus],
                    "stimulus_label_idx": stimulus,
                    "repetition": repetition,
                },
                neuroid=sites,
                bins=[(25, 125)],
            )

    def _responses(self, causes: Array, n: int) -> Array:
        signal: Array = causes @ self.rng.normal(size=(6, n))
        return signal + self.rng.normal(size=signal.shape)

    def _shown(
        self, n: int, n_repetitions: int, missing: float = 0.0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stimulus and repetition of shuffled presentations, some of them missing."""
        stimulus, repetition = np.divmod(np.arange(n * n_repetitions), n_repetitions)
        # No half of the repetitions may lack a stimulus, which Brain-Score's ceiling
        # does not survive.
        kept = (repetition < n_repetitions - 2) | (
            self.rng.random(len(stimulus)) >= missing
        )
        order = self.rng.permutation(np.flatnonzero(kept))
        return stimulus[order], repetition[order]

    def _stimuli(
        self, identifier: str, ids: list[str], columns: Mapping[str, Any]
    ) -> Array:
        """Write images that show six causes each, (n_stimuli, 6), which are returned.

        They are noise about a colour that runs from top to bottom.
        """
        packaging = importlib.import_module(f"{BRAINIO}.packaging")
        stimuli = importlib.import_module(f"{BRAINIO}.stimuli")
        causes = self.rng.normal(size=(len(ids), 6))
        table = stimuli.StimulusSet({"stimulus_id": ids, **columns})
        table.stimulus_paths = {}
        folder = self.folder / "images" / identifier
        folder.mkdir(parents=True)
        down = np.linspace(-1, 1, 20)[:, None, None]
        for key, cause in zip(ids, causes, strict=True):
            colours = 128 + 30 * cause[:3] + 25 * down * cause[3:]
            pixels = colours + self.rng.integers(-12, 13, size=(20, 20, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            table.stimulus_paths[key] = folder / f"{key}.png"
            image.save(table.stimulus_paths[key])
        made = packaging.package_stimulus_set_locally(table, identifier, self.folder)
        self._keep(made["csv_path"], made["zip_path"])
        return causes

    def _assembly(
        self,
        identifier: str,
        stimulus_set: str,
        values: NDArray[Any],
        *,
        presentation: Mapping[str, Any],
        neuroid: Mapping[str, Any],
        bins: list[tuple[int, int]],
    ) -> None:
        packaging = importlib.import_module(f"{BRAINIO}.packaging")
        assemblies = importlib.import_module(f"{BRAINIO}.assemblies")
        starts, ends = zip(*bins, strict=True)
        axes = {
            "presentation": presentation,
            "neuroid": neuroid,
            "time_bin": {"time_bin_start": list(starts), "time_bin_end": list(ends)},
        }
        assembly = assemblies.NeuroidAssembly(
            values,
            coords={
                name: (axis, column)
                for axis, columns in axes.items()
                for name, column in columns.items()
            },
            dims=list(axes),
        )
        made = packaging.package_data_assembly_locally(
            assembly, identifier, stimulus_set, downloads_path=self.folder
        )
        self._keep(made["path"])

    def _keep(self, *paths: str) -> None:
        self.files |= {Path(path).name: Path(path) for path in paths}

    def sha1(self, name: str) -> str:
        """SHA-1 of a file."""
        return hashlib.sha1(self.files[name].read_bytes()).hexdigest()

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Let Brain-Score's loaders, and ours, expect these files and no others."""
        from ce_align.brainscore.datasets import DATASETS

        s3 = importlib.import_module(f"{BRAINIO}.s3")
        genuine = s3.fetch_file

        def fetch_file(
            location_type: str,
            location: str,
            sha1: str | None = None,
            version_id: str | None = None,
        ) -> Any:
            name = location.rsplit("/", 1)[1]
            return genuine(location_type, location, self.sha1(name), version_id)

        here = {
            name: replace(
                dataset,
                stored=tuple(
                    replace(file, sha1=self.sha1(file.name)) for file in dataset.stored
                ),
            )
            for name, dataset in DATASETS.items()
            if all(file.name in self.files for file in dataset.stored)
        }
        with ExitStack() as patched:
            patched.enter_context(patch.object(s3, "fetch_file", fetch_file))
            patched.enter_context(patch.dict(DATASETS, here))
            yield

    def place(self, brainio: Path) -> None:
        """Put all files where Brain-Score looks before it downloads any."""
        for name, path in self.files.items():
            target = brainio / self.sha1(name) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def with_metric(identifier: str, metric: str) -> Any:
    """Brain-Score's own benchmark of MajajHong or FreemanZiemba, of another metric."""
    package = importlib.import_module("brainscore_vision")
    region = identifier.partition(".")[2].partition("-")[0]
    column = "object_name" if "Majaj" in identifier else "texture_type"
    settings = {"crossvalidation_kwargs": {"stratification_coord": column}}
    if "Majaj" in identifier:
        module = importlib.import_module(f"{BENCHMARKS}.majajhong2015.benchmark")
        return module._DicarloMajajHong2015Region(
            region=region,
            access="public",
            identifier_metric_suffix=metric,
            similarity_metric=package.load_metric(metric, **settings),
            ceiler=package.load_ceiling("internal_consistency"),
        )
    folder = f"{BENCHMARKS}.freemanziemba2013.benchmarks"
    module = importlib.import_module(f"{folder}.public_benchmarks")

    def load_metric(name: str, **kwargs: Any) -> Any:
        return package.load_metric(metric, **kwargs)

    with patch.object(module, "load_metric", load_metric):
        return module._freemanziemba2013_public_benchmark(region)


def compare(identifier: str, network: Any, folder: Path) -> tuple[Array, Array]:
    """Raw score, ceiling and score by `ce_align` and by Brain-Score's benchmark."""
    from ce_align.api import score
    from ce_align.brainscore.official import official_scores
    from ce_align.data.named import load_recording

    name, settings, metric = COMPARED[identifier]
    registry = importlib.import_module("brainscore_vision").benchmark_registry
    layer = next(iter(network.layers.values()))
    recording = load_recording(name)
    ours = score(network, recording, layer=layer, results=folder, **settings).rows[0]
    if metric:
        registry.setdefault(identifier, lambda: with_metric(identifier, metric))
    (theirs,) = official_scores(
        network,
        f"brainscore/{identifier}",
        recording,
        [layer],
        device="cpu",
    )
    numbers = ("raw", "ceiling", "value")
    found, expected = (
        np.array([getattr(one, number) for number in numbers], dtype=np.float64)
        for one in (ours, theirs)
    )
    return found, expected


def small_network() -> Any:
    """A convolution of fixed random weights."""
    import torch

    from ce_align.models.networks import Network
    from ce_align.models.preprocessing import Preprocessing

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 5, stride=5), torch.nn.ReLU())
    regions = dict.fromkeys(("V1", "V2", "V4", "IT"), "1")
    return Network("net", module, Preprocessing(input_size=20), regions)


def main() -> None:
    """Print the table."""
    from ce_align.brainscore import register
    from ce_align.brainscore.upstream import HOMES, import_brainscore

    network = small_network()
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ):
        # Nothing of this comes near the user's own files.
        places = {variable: str(Path(folder) / variable) for variable in HOMES}
        os.environ |= places
        import_brainscore()
        standins = StandIns(Path(folder) / "made")
        standins.place(Path(places["BRAINIO_HOME"]))
        print("simulated stand-ins        raw     ceiling  score    largest difference")
        with standins.expected():
            register()
            for identifier in COMPARED:
                ours, theirs = compare(identifier, network, Path(folder) / "results")
                shown = " ".join(f"{number:8.5f}" for number in ours)
                print(f"{identifier:34} {shown}   {np.abs(ours - theirs).max():.1e}")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
