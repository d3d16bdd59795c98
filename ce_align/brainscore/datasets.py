"""The recordings that Brain-Score holds: what is known of them, and loading."""

import hashlib
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from ce_align.brainscore.upstream import (
    brainscore_home,
    explained_loading,
    has_credentials,
    import_brainscore,
)
from ce_align.data.named import Entry
from ce_align.data.recordings import Protocol, Recording
from ce_align.errors import AccessError, ConfigError, DataError
from ce_align.files import check_regular
from ce_align.progress import Progress, silent

__all__ = [
    *("BUCKET", "DATASETS", "Dataset", "StoredFile", "entries", "fetch", "is_cached"),
    *("load", "stated_sha1"),
]

#: Bucket of Brain-Score's storage that holds the recordings, and folders there.
BUCKET = "brainscore-storage"
BUCKET_FOLDER = "brainio-brainscore"

#: Address of the bucket, unless this variable names a mirror of it.
ADDRESS = f"https://{BUCKET}.s3.amazonaws.com"
MIRROR = "CE_ALIGN_RECORDINGS_URL"


@dataclass(frozen=True)
class StoredFile:
    """A file of Brain-Score's storage, and what it must be.

    folder, name : in the bucket
    sha1 : of its content, which names its folder on this machine
    version : of the storage, ``null`` where it keeps only one
    """

    folder: str
    name: str
    sha1: str
    version: str = "null"

    @property
    def path(self) -> Path:
        """Where Brain-Score expects it."""
        return brainscore_home("BRAINIO_HOME") / self.sha1 / self.name

    def address(self, base: str) -> str:
        """Where it is downloaded from."""
        asked = "" if self.version == "null" else f"?versionId={self.version}"
        return f"{base.rstrip('/')}/{self.folder}/{self.name}{asked}"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One recording in Brain-Score's data registry.

    Attributes
    ----------
    registry_id, benchmark_id : keys of recording and benchmark in its registries
    plugins : folders of Brain-Score that register the recording and its stimuli
    assembly_id, stimulus_set_id : names that the files carry
    prepared : whether the benchmark does more to the recording than to select a region
        and 70–170 ms, so that its own preparation is taken
    region : area of the benchmark
    degrees : visual angle of the images
    stratify : stimulus column over which Brain-Score balances its splits, or None
    private : whether the recording needs credentials
    access : the same in words, of its parts
    images, neuroids : numbers of stimuli and of sites; None where not stated
    repetitions : largest number of showings of a stimulus; None where not stated
    metric : of the benchmark
    stored : the files of an open recording
    licence, citation : of the recording; empty where not stated
    remark : on how to get it
    """

    registry_id: str
    benchmark_id: str
    plugins: tuple[str, ...]
    assembly_id: str
    stimulus_set_id: str
    images: int
    prepared: bool = False
    region: str = "IT"
    neuroids: int | None = None
    repetitions: int | None = None
    degrees: float = 8.0
    stratify: str | None = None
    private: bool = True
    access: str = "private: needs Brain-Score credentials"
    metric: str = "pls"
    stored: tuple[StoredFile, ...] = ()
    licence: str = ""
    citation: str = ""
    remark: str = ""

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
        folder = self.stored[0].folder if self.stored else BUCKET_FOLDER
        return f"{folder}/{self.files[0]}"


MAJAJ = (
    "Majaj, Hong, Solomon & DiCarlo (2015), Journal of Neuroscience 35, "
    "doi:10.1523/JNEUROSCI.5181-14.2015"
)
FREEMAN = (
    "Freeman, Ziemba, Heeger, Simoncelli & Movshon (2013), Nature Neuroscience 16, "
    "974–981"
)
LI = (
    "Li, Liu, Li, Yang, Gong, Jin, Gong, Wang, Luo, Zhao & Bao (2026), Nature "
    "Neuroscience, doi:10.1038/s41593-026-02322-z"
)
PAPALE = (
    "Papale, Wang, Self & Roelfsema (2025), Neuron 113, "
    "doi:10.1016/j.neuron.2024.12.003"
)


def _files(folder: str, *rows: tuple[str, ...]) -> tuple[StoredFile, ...]:
    """Files of a folder, of names, digests and versions."""
    return tuple(StoredFile(folder, *row) for row in rows)


HVM_PUBLIC = _files(
    BUCKET_FOLDER,
    ("stimulus_hvm-public.csv", "5ca7a3da00d8e9c694a9cd725df5ba0ad6d735af"),
    ("stimulus_hvm-public.zip", "8aa44e038d7b551efa8077467622f9d48d72e473"),
)
MAJAJ_PUBLIC = HVM_PUBLIC + _files(
    BUCKET_FOLDER,
    (
        "assy_dicarlo_MajajHong2015_public.nc",
        "13d28ca0ce88ee550b54db3004374ae19096e9b9",
    ),
)
MAJAJ_TEMPORAL = HVM_PUBLIC + _files(
    BUCKET_FOLDER,
    (
        "assy_dicarlo_MajajHong2015_temporal_public.nc",
        "093ac35b3e8464c676d24cf38238415d4d6a9448",
    ),
)
FREEMAN_PUBLIC = _files(
    BUCKET_FOLDER,
    (
        "assy_movshon_FreemanZiemba2013_public.nc",
        "761c08f796db4e342555cdb60eef23a4f19ead43",
        "W2vx7jdh9utZdVumHHarXa4L1zOrA8Fd",
    ),
    (
        "stimulus_FreemanZiemba2013_aperture-public.csv",
        "194c9b301a4e3e9cff02481d4c19b39331d52660",
    ),
    (
        "stimulus_FreemanZiemba2013_aperture-public.zip",
        "3a6fec1fc28c212882d6833e267ea8654d289611",
    ),
)
LI_STATIC = _files(
    "brainscore-vision/benchmarks/Li2026",
    (
        "assy_Li2026_Assembly.nc",
        "bb59217628132183a57ef10bb9017d857816ed53",
        "jJWOONfWTN3pbp6clmE3Ea8eQ9ZZb_D6",
    ),
    (
        "stimulus_Li2026_Stimuli.csv",
        "3e3603f9080dcc1c5519a3ac66895d55a3c486a1",
        "gRAM7LbVvIAgPeDCgvzX8sPuLsbsBbTN",
    ),
    (
        "stimulus_Li2026_Stimuli.zip",
        "76cef574cbb09e53cc18573690558a85f9470231",
        "jIe9AbMniKL7UXUJShW8ypdXwucfBg5N",
    ),
)
PAPALE_PARTS = _files(
    "brainscore-vision/benchmarks/Papale2025",
    (
        "assy_THINGS_TVSD_train_Assembly.nc",
        "97e3e9ed2280441a30fa5c33e8537db1b45a9da8",
        "q3sE0RZ5Fuq0C6vTVIiF48AsvG40.b7l",
    ),
    (
        "assy_THINGS_TVSD_test_Assembly.nc",
        "685025f67e90006e775ac153e8e0007e35b62bbc",
        "XK0CVCAzfHNOrKgmNrLqFfwvs_gSWKb.",
    ),
    (
        "stimulus_THINGS_TVSD_train_Stimuli.csv",
        "4a094a7e4c2408abc333ba610215a7c30277d904",
        "kCt7PZx9jxXDrRhyow9y8hDUUDFAAp._",
    ),
    (
        "stimulus_THINGS_TVSD_train_Stimuli.zip",
        "0a97a7952097800207a23fe73281c256dfc90902",
        "S.DCjiAaGQ6PjCUs4QugwsHaZa9YiEuV",
    ),
    (
        "stimulus_THINGS_TVSD_test_Stimuli.csv",
        "b08c1c560f008cf3fb2982c22c881ea8ffce0410",
        "gEGUgT7PJB8z3roRkTiJ6zriSuehd2DI",
    ),
    (
        "stimulus_THINGS_TVSD_test_Stimuli.zip",
        "dfd6e8769414505afbf51de3ab207cb7a3cf49d6",
        "AGNDfuS5nyIjTuXrM4hWFze.sWM9py2Z",
    ),
)

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
        access="open",
        images=3200,
        neuroids=168,
        stored=MAJAJ_PUBLIC,
        citation=MAJAJ,
    ),
}
DATASETS["majajhong2015-public-v4"] = replace(
    DATASETS["majajhong2015-public"],
    benchmark_id="MajajHong2015public.V4-pls",
    region="V4",
    neuroids=88,
)
for _region, _suffix in (("IT", ""), ("V4", "-v4")):
    DATASETS[f"majajhong2015-public-temporal{_suffix}"] = replace(
        DATASETS[f"majajhong2015-public{_suffix}"],
        registry_id="MajajHong2015.temporal.public",
        benchmark_id=f"MajajHong2015public.{_region}-temporal-pls",
        assembly_id="dicarlo.MajajHong2015.temporal.public",
        metric="spantime_pls",
        prepared=True,
        stored=MAJAJ_TEMPORAL,
    )
for _region, _n in (("V1", 102), ("V2", 103)):
    DATASETS[f"freemanziemba2013-public-{_region.lower()}"] = Dataset(
        registry_id="FreemanZiemba2013.public",
        benchmark_id=f"FreemanZiemba2013public.{_region}-pls",
        plugins=("freemanziemba2013",),
        assembly_id="movshon.FreemanZiemba2013.public",
        stimulus_set_id="FreemanZiemba2013.aperture-public",
        prepared=True,
        region=_region,
        degrees=4.0,
        stratify="texture_type",
        private=False,
        access="open",
        images=135,
        neuroids=_n,
        stored=FREEMAN_PUBLIC,
        citation=FREEMAN,
    )
for _region, _n in (("V1", 2305), ("V2", 2523), ("V4", 3414), ("IT", 21059)):
    DATASETS[f"li2026-{_region.lower()}"] = Dataset(
        registry_id="Li2026",
        benchmark_id=f"Li2026.{_region}-ridgecv",
        plugins=("li2026",),
        assembly_id="Li2026_Assembly",
        stimulus_set_id="Li2026_Stimuli",
        prepared=True,
        region=_region,
        degrees=11.0,
        private=False,
        access="open, but Brain-Score's copy may not be",
        images=1000,
        neuroids=_n,
        repetitions=1,
        metric="ridgecv",
        stored=LI_STATIC,
        citation=LI,
        remark="Brain-Score says that its copy asks for credentials; the authors' own "
        "files are public: ce-align import --format triplen",
    )
for _region, _n in (("V1", 742), ("V4", 315), ("IT", 298)):
    DATASETS[f"papale2025-{_region.lower()}"] = Dataset(
        registry_id="Papale2025_train",
        benchmark_id=f"Papale2025.{_region}-ridgecv",
        plugins=("papale2025",),
        assembly_id="THINGS_TVSD_train_Assembly",
        stimulus_set_id="THINGS_TVSD_train_Stimuli",
        prepared=True,
        region=_region,
        degrees=18.0,
        private=False,
        access="open responses, images by password",
        images=22348,
        neuroids=_n,
        repetitions=30,
        metric="ridgecv",
        stored=PAPALE_PARTS,
        licence="CC-BY",
        citation=PAPALE,
        remark="responses are open, images are not: with a THINGS folder of your own, "
        "ce-align import --format tvsd",
    )


def is_cached(dataset: Dataset) -> bool:
    """Whether recording and stimuli lie in Brain-Score's folder on this machine."""
    if dataset.stored:
        return all(file.path.is_file() for file in dataset.stored)
    folder = brainscore_home("BRAINIO_HOME")
    # Each file lies in a folder named by its SHA-1, which loading verifies.
    return all(any(folder.glob(f"*/{file}")) for file in dataset.files)


def stated_sha1() -> dict[str, str]:
    """SHA-1 of every file that Brain-Score stores openly, by its name."""
    files = (file for dataset in DATASETS.values() for file in dataset.stored)
    return {file.name: file.sha1 for file in files}


def entries() -> dict[str, Entry]:
    """Recordings as `ce_align.data.named` lists them."""
    return {name: _entry(name, dataset) for name, dataset in DATASETS.items()}


def _entry(name: str, dataset: Dataset) -> Entry:
    # A family goes by the name of its folder, unless a recording has it.
    family = dataset.plugins[0]
    groups = ("open",) if family in DATASETS else ("open", family)
    return Entry(
        name=name,
        region=dataset.region,
        load=partial(load, name),
        images=dataset.images,
        neuroids=dataset.neuroids,
        repetitions=dataset.repetitions,
        access="cached" if is_cached(dataset) else dataset.access,
        # The group stands for the four sets of the paper, all of them private.
        groups=("it",) if dataset.private else groups,
        metric=dataset.metric,
        licence=dataset.licence,
        citation=dataset.citation,
        remark=dataset.remark,
    )


def fetch(
    name: str, *, base: str | None = None, progress: Progress = silent
) -> list[Path]:
    """Files of an open recording, in Brain-Score's folder on this machine.

    Files that are there are only checked; a download that was interrupted is continued.

    Parameters
    ----------
    name : a key of `DATASETS`
    base : address of a mirror of the bucket; None for ``$CE_ALIGN_RECORDINGS_URL``, or
        the bucket itself
    progress : told of megabytes

    Raises
    ------
    ConfigError
        If the recording is private, so that its files have no address.
    AccessError
        If a file is not there, refused or out of reach.
    DataError
        If a file is not what Brain-Score says it is.
    """
    dataset = DATASETS[name]
    if not dataset.stored:
        raise ConfigError(
            f"{name} is private: with credentials of Brain-Score, what uses it "
            "downloads it"
        )
    base = base or os.environ.get(MIRROR) or ADDRESS
    for file in dataset.stored:
        _bring(name, file, base, progress)
    return [file.path for file in dataset.stored]


def _bring(name: str, file: StoredFile, base: str, progress: Progress) -> None:
    """Download one file unless it is there, and check it."""
    from ce_align.models.downloads import download

    file.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.path.parent / ".lock"):
        if file.path.is_file():
            _check(file, file.path, str(file.path), "delete it to fetch it again")
            return
        arrived, url = file.path.with_name(f".{file.name}"), file.address(base)
        try:
            if not arrived.is_file():
                download(url, arrived, what=file.name, progress=progress)
        except AccessError as error:
            remedies = [f"put the file at {file.path}, or name a mirror in {MIRROR}"]
            remedies += filter(None, [DATASETS[name].remark])
            raise AccessError(
                f"{name} is not on this machine: {error}; {'; '.join(remedies)}"
            ) from None
        try:
            _check(file, arrived, url, "it was not kept")
            arrived.replace(file.path)
        finally:
            arrived.unlink(missing_ok=True)


def _check(file: StoredFile, path: Path, what: str, remedy: str) -> None:
    with check_regular(path).open("rb") as content:
        found = hashlib.file_digest(content, "sha1").hexdigest()
    if found != file.sha1:
        raise DataError(
            f"{what} has SHA-1 {found}, but Brain-Score expects {file.sha1}; {remedy}"
        )


def load(name: str) -> Recording:
    """Recording `name` of `DATASETS`, through Brain-Score's own registries.

    Files are downloaded into Brain-Score's folder unless they are there.

    Raises
    ------
    AccessError
        If the recording is private and no credentials open it, or without network.
    DataError
        If a file is damaged or does not hold what Brain-Score's loader expects.
    """
    dataset = DATASETS[name]
    if dataset.stored and not is_cached(dataset):  # loading checks what is there
        try:
            fetch(name)
        except AccessError:
            if not has_credentials():  # with them, Brain-Score itself may succeed
                raise
    found = _prepared(name) if dataset.prepared else _selected(name)
    return replace(found, licence=dataset.licence, citation=dataset.citation)


def _prepared(name: str) -> Recording:
    """Recording that Brain-Score's benchmark scores on."""
    from ce_align.brainscore.benchmarks import load_benchmark_recording

    recording = load_benchmark_recording(DATASETS[name].benchmark_id)
    return replace(recording, identifier=name)


def _selected(name: str) -> Recording:
    """Region and 70–170 ms of a recording of the registry."""
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
        region=dataset.region,
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
