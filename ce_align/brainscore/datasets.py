"""The recordings of IT that Brain-Score holds: what is known of them, and loading."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from ce_align.brainscore.upstream import (
    brainscore_home,
    explained_loading,
    import_brainscore,
)
from ce_align.data.recordings import Entry, Protocol, Recording
from ce_align.errors import DataError

__all__ = ["BUCKET", "DATASETS", "Dataset", "entries", "is_cached", "load"]

#: Bucket of Brain-Score's storage that holds the recordings, and the folder there.
BUCKET = "brainscore-storage"
BUCKET_FOLDER = "brainio-brainscore"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One recording in Brain-Score's data registry.

    Attributes
    ----------
    registry_id, benchmark_id : keys of recording and benchmark of IT in its registries
    plugins : folders of Brain-Score that register the recording and its stimuli
    assembly_id, stimulus_set_id : names that the files carry
    degrees : visual angle of the images
    stratify : stimulus column over which Brain-Score balances its splits, or None
    private : whether the download needs credentials
    images, neuroids : numbers of stimuli and of IT sites; None where not stated
    repetitions : largest number of showings of a stimulus; None where not stated
    """

    registry_id: str
    benchmark_id: str
    plugins: tuple[str, ...]
    assembly_id: str
    stimulus_set_id: str
    images: int
    neuroids: int | None = None
    repetitions: int | None = None
    degrees: float = 8.0
    stratify: str | None = None
    private: bool = True

    @property
    def files(self) -> tuple[str, str, str]:
        """Names of the files of responses, stimuli and images."""
        assembly, stimuli = (
            name.replace(".", "_") for name in (self.assembly_id, self.stimulus_set_id)
        )
        kinds = (f"assy_{assembly}.nc", f"stimulus_{stimuli}.csv")
        return (*kinds, f"stimulus_{stimuli}.zip")

    @property
    def storage_key(self) -> str:
        """Where the responses lie in Brain-Score's storage."""
        return f"{BUCKET_FOLDER}/{self.files[0]}"


#: By the names that users type. The counts of repetitions are those that
#: Brain-Score's own loaders insist on; they insist on none for MajajHong2015.
DATASETS = {
    "majajhong2015": Dataset(
        registry_id="MajajHong2015.private",
        benchmark_id="MajajHong2015.IT-pls",
        plugins=("majajhong2015",),
        assembly_id="dicarlo.MajajHong2015.private",
        stimulus_set_id="hvm-private",
        stratify="object_name",
        images=2560,
        neuroids=168,
    ),
    "sanghavi2020": Dataset(
        registry_id="Sanghavi2020",
        benchmark_id="Sanghavi2020.IT-pls",
        plugins=("sanghavi2020", "majajhong2015"),
        assembly_id="dicarlo.Sanghavi2020",
        stimulus_set_id="hvm",
        stratify="object_name",
        images=5760,
        repetitions=28,
    ),
    "sanghavijozwik2020": Dataset(
        registry_id="SanghaviJozwik2020",
        benchmark_id="SanghaviJozwik2020.IT-pls",
        plugins=("sanghavi2020",),
        assembly_id="dicarlo.SanghaviJozwik2020",
        stimulus_set_id="BOLD5000",
        images=4916,
        repetitions=37,
    ),
    "sanghavimurty2020": Dataset(
        registry_id="SanghaviMurty2020",
        benchmark_id="SanghaviMurty2020.IT-pls",
        plugins=("sanghavi2020", "rust2012"),
        assembly_id="dicarlo.SanghaviMurty2020",
        stimulus_set_id="Rust2012",
        degrees=5.0,
        images=300,
        repetitions=50,
    ),
    "majajhong2015-public": Dataset(
        registry_id="MajajHong2015.public",
        benchmark_id="MajajHong2015public.IT-pls",
        plugins=("majajhong2015",),
        assembly_id="dicarlo.MajajHong2015.public",
        stimulus_set_id="hvm-public",
        stratify="object_name",
        private=False,
        images=3200,
    ),
}


def is_cached(dataset: Dataset) -> bool:
    """Whether recording and stimuli lie in Brain-Score's folder on this machine."""
    folder = brainscore_home("BRAINIO_HOME")
    # Each file lies in a folder named by its SHA-1, which loading verifies.
    return all(any(folder.glob(f"*/{file}")) for file in dataset.files)


def entries() -> dict[str, Entry]:
    """Recordings as `ce_align.data.recordings` lists them."""
    return {name: _entry(name, dataset) for name, dataset in DATASETS.items()}


def _entry(name: str, dataset: Dataset) -> Entry:
    access = "private: needs Brain-Score credentials" if dataset.private else "open"
    return Entry(
        name=name,
        region="IT",
        load=partial(load, name),
        images=dataset.images,
        neuroids=dataset.neuroids,
        repetitions=dataset.repetitions,
        access="cached" if is_cached(dataset) else access,
        # The group stands for the four sets of the paper, all of them private.
        groups=("it",) if dataset.private else (),
    )


def load(name: str) -> Recording:
    """IT recording `name` of `DATASETS`, through Brain-Score's own data registry.

    Files are downloaded into Brain-Score's folder unless they are there.

    Raises
    ------
    AccessError
        If the recording is private and no credentials open it, or without network.
    DataError
        If a file is damaged or does not hold what Brain-Score's loader expects.
    """
    from ce_align.brainscore.assemblies import coordinate_names, recording_from_assembly

    dataset = DATASETS[name]
    brainscore = import_brainscore()
    for plugin in dataset.plugins:
        import_brainscore(f"data.{plugin}")
    key, files = dataset.registry_id, (dataset.assembly_id, dataset.stimulus_set_id)
    with explained_loading(name, key, dataset.private, files):
        assembly = brainscore.data_registry[key]()
    if "time_bin_id" in coordinate_names(assembly):
        # The Sanghavi recordings have several bins; number 0 is 70–170 ms.
        assembly = assembly.isel(time_bin=assembly["time_bin_id"].values == 0)
    recording = recording_from_assembly(
        assembly,
        identifier=name,
        region="IT",
        degrees=dataset.degrees,
        stratify=dataset.stratify,
        protocol=Protocol(dataset.benchmark_id),
    )
    # Brain-Score's benchmarks assert the same.
    fault = None
    if dataset.repetitions not in (None, recording.n_repetitions):
        fault = (
            f"have {dataset.repetitions} repetitions but its file has "
            f"{recording.n_repetitions}"
        )
    stated = assembly.attrs.get("image_size_degree")
    if stated is not None and not np.isclose(float(stated), dataset.degrees):
        fault = f"show images at {dataset.degrees:g}° but its file says {stated}°"
    if fault:
        raise DataError(
            f"{name} should {fault}; delete its folder in "
            f"{brainscore_home('BRAINIO_HOME')} to download it again"
        )
    return recording
