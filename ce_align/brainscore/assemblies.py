"""Recordings to Brain-Score's assemblies and stimulus sets, and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.brainscore.upstream import import_brainscore
from ce_align.checks import named_some
from ce_align.data.imagefiles import FolderSource
from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import Protocol, Recording
from ce_align.digests import combine_digests, digest_bytes
from ce_align.errors import DataError
from ce_align.files import atomic_path

__all__ = [
    *("IMAGE_FILES", "assembly_from_recording", "coordinate_names", "image_files"),
    *("recording_from_assembly", "stimulus_set"),
]

#: Window of the responses, ms after stimulus onset, of Brain-Score's IT benchmarks.
WINDOW = (70, 170)

#: Names that Brain-Score gives a meaning to; columns of images cannot take them.
RESERVED = {
    "filename", "neuroid", "neuroid_id", "presentation", "region", "repetition",
    "stimulus_id", "stimulus_order", "time_bin", "time_bin_end", "time_bin_start",
}  # fmt: skip

#: Images of stimulus sets are read in place.
IMAGE_FILES = FolderSource(Path("/"))


def image_files(stimuli: Any, ids: Sequence[str], identifier: str) -> list[str]:
    """Names below `IMAGE_FILES` of the images of a stimulus set.

    Parameters
    ----------
    stimuli : Brain-Score's ``StimulusSet``, with the path of every image
    ids : stimuli to take, in this order
    identifier : name of the recording, for messages

    Raises
    ------
    DataError
        If there is no stimulus set or images are missing.
    """
    if stimuli is None:
        raise DataError(
            f"the assembly of {identifier} has no stimulus_set, hence no images; "
            "attach one"
        )
    paths = {str(key): Path(path) for key, path in stimuli.stimulus_paths.items()}
    absent = [key for key in ids if key not in paths or not paths[key].is_file()]
    if absent:
        raise DataError(
            f"{len(absent)} of {len(ids)} stimuli of {identifier} have no image file: "
            f"{named_some(absent)}"
        )
    return [str(paths[key].resolve()) for key in ids]


def _images_of(
    stimuli: Any, ids: Sequence[str], identifier: str, coords: Mapping[str, Any]
) -> ImageSet:
    """Images with the columns of a stimulus set, after coordinates of its assembly."""
    files = image_files(stimuli, ids, identifier)
    table = stimuli.assign(stimulus_id=stimuli["stimulus_id"].astype(str))
    table = table.drop_duplicates("stimulus_id").set_index("stimulus_id").loc[ids]
    further = {str(name): table[name].to_numpy() for name in table.columns}
    columns = {
        name: _plain(values)
        for name, values in {**coords, **further, **coords}.items()
        if name not in RESERVED
    }
    name = str(getattr(stimuli, "identifier", identifier))
    return ImageSet.from_encoded(name, ids, IMAGE_FILES, files, columns)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers as they are, everything else as text."""
    return values if values.dtype.kind in "iufb" else values.astype(str)


def _stimulus_columns(images: ImageSet) -> dict[str, NDArray[Any]]:
    """Columns of a stimulus set: position, id, and what the images carry.

    Columns with NaN become text, as Brain-Score averages repetitions only where every
    coordinate equals itself.
    """
    columns = {
        "stimulus_order": np.arange(len(images)),
        "stimulus_id": np.array(images.ids),
    }
    for name, values in images.columns.items():
        if name not in RESERVED:
            plain = _plain(np.asarray(values))
            holed = plain.dtype.kind == "f" and bool(np.isnan(plain).any())
            columns[name] = plain.astype(str) if holed else plain
    return columns


def stimulus_set(images: ImageSet, folder: Path) -> Any:
    """Brain-Score ``StimulusSet`` of images, written to `folder` as PNG.

    Its identifier ends in a digest of images and folder: Brain-Score caches activations
    by that name alone, and refuses cached ones whose files lay elsewhere.
    """
    import_brainscore()
    from brainscore_core.supported_data_standards.brainio import stimuli

    result = stimuli.StimulusSet(_stimulus_columns(images))
    place = digest_bytes(str(folder.resolve()).encode())
    result.identifier = f"{images.identifier}-{combine_digests(images.digest, place)}"
    result.stimulus_paths = {}
    for index, key in enumerate(images.ids):
        # The position keeps equal images apart, as Brain-Score looks up ids by path.
        content = digest_bytes(images.image_digest(index).encode())
        path = folder / f"{index:06d}-{content}.png"
        result.stimulus_paths[key] = path
        if not path.exists():
            with atomic_path(path) as temporary:
                images.load(index).save(temporary, format="PNG")
    return result


def recording_from_assembly(
    assembly: Any,
    *,
    identifier: str,
    region: str,
    degrees: float,
    stratify: str | None,
    averaged: bool = False,
    protocol: Protocol | None = None,
) -> Recording:
    """Recording from an assembly that keeps its repetitions.

    Stimuli are in the order in which Brain-Score's ``average_repetition`` puts them,
    so that indices of its cross-validation splits mean the same stimuli here; the
    repetition axis holds the sorted unique values of the coordinate ``repetition``,
    over which its ceiling splits. Neuroids without a response, or with the same to
    every stimulus, are left out, as they are from Brain-Score's medians.

    Parameters
    ----------
    assembly : (presentation, neuroid[, time_bin]) with the coordinates
        ``stimulus_id``, ``neuroid_id``, ``region`` and, if stimuli were repeated,
        ``repetition``; the attribute ``stimulus_set`` leads to the images, which are
        read in place
    identifier : name of the recording
    region : area to select
    degrees : visual angle of the images
    stratify : coordinate over which splits are balanced, or None
    averaged : whether each stimulus has one presentation; their order is kept then
    protocol : how Brain-Score scores on it

    Raises
    ------
    DataError
        If a coordinate or an image is missing, the region is not there, there are
        several time bins, a coordinate holds NaN, or presentations of one stimulus
        differ in more than their repetition.
    """
    import pandas as pd

    assembly = _select(assembly, identifier, region)
    coords = _presentation_coords(assembly)
    holed = [name for name, values in coords.items() if pd.isna(values).any()]
    if holed and not averaged:
        # NaN differs from itself: every presentation would be a stimulus of its own,
        # and Brain-Score would go on without a word.
        raise DataError(
            f"coordinates of {identifier} hold NaN ({', '.join(holed)}), so that "
            "Brain-Score would not average repetitions; fill or drop them"
        )
    first = assembly.isel(neuroid=slice(0, 1))
    order = first if averaged else _averaged(first)
    ids = [str(key) for key in order["stimulus_id"].values]
    if len(set(ids)) < len(ids):
        table = pd.DataFrame(coords).drop(columns="repetition", errors="ignore")
        counts = table.groupby("stimulus_id").nunique().max()
        raise DataError(
            f"presentations of one stimulus of {identifier} differ in "
            f"{', '.join(counts.index[counts > 1])}, so that Brain-Score would not "
            "average them; drop these coordinates"
        )
    stimuli, coords = assembly.attrs.get("stimulus_set"), _presentation_coords(order)
    return Recording.without_silent(
        identifier=identifier,
        images=_images_of(stimuli, ids, identifier, coords),
        responses=_by_repetition(assembly, ids, identifier),
        neuroid_ids=tuple(map(str, assembly["neuroid_id"].values)),
        region=region,
        degrees=degrees,
        stratify=stratify,
        protocol=protocol,
    )


def _select(assembly: Any, identifier: str, region: str) -> Any:
    """Region and only time bin of an assembly, as (presentation, neuroid)."""
    absent = {"stimulus_id", "neuroid_id", "region"} - coordinate_names(assembly)
    if absent:
        raise DataError(
            f"the assembly of {identifier} lacks the coordinates {sorted(absent)}"
        )
    regions = assembly["region"].values.astype(str)
    if region not in regions:
        raise DataError(
            f"{identifier} has no neuroid in {region}, only in "
            f"{', '.join(sorted(set(regions)))}"
        )
    if "time_bin" in assembly.dims:
        if assembly.sizes["time_bin"] != 1:
            raise DataError(
                f"{identifier} has {assembly.sizes['time_bin']} time bins; select one, "
                f"such as {WINDOW[0]}–{WINDOW[1]} ms"
            )
        assembly = assembly.squeeze("time_bin")
    # A mask and not `sel`: that would drop the level and, of two, rename the axis.
    assembly = assembly.isel(neuroid=regions == region)
    return assembly.transpose("presentation", "neuroid")


def coordinate_names(assembly: Any) -> set[str]:
    """Names of all coordinates, levels of an index included."""
    from brainscore_core.supported_data_standards.brainio import assemblies

    return {name for name, _, _ in assemblies.walk_coords(assembly)}


def _presentation_coords(assembly: Any) -> dict[str, NDArray[Any]]:
    """Coordinates along presentations, in Brain-Score's order."""
    from brainscore_core.supported_data_standards.brainio import assemblies

    return {
        name: values
        for name, dims, values in assemblies.walk_coords(assembly)
        if tuple(dims) == ("presentation",)
    }


def _averaged(assembly: Any) -> Any:
    """One presentation a stimulus, by Brain-Score's own rule and in its order."""
    common = import_brainscore("benchmark_helpers.neural_common")
    if _presentation_coords(assembly).keys() - {"repetition"} == {"stimulus_id"}:
        # Brain-Score's grouping by a single coordinate sorts, but renames the axis.
        first = np.unique(assembly["stimulus_id"].values, return_index=True)[1]
        return assembly.isel(presentation=first)
    return common.average_repetition(assembly)


def _by_repetition(
    assembly: Any, ids: list[str], identifier: str
) -> NDArray[np.float64]:
    """Responses (stimulus, repetition, neuroid), NaN where there was no showing."""
    position = {key: i for i, key in enumerate(ids)}
    shown = assembly["stimulus_id"].values
    stimulus = np.array([position[str(key)] for key in shown])
    if "repetition" in coordinate_names(assembly):
        values = assembly["repetition"].values
        repetitions, repetition = np.unique(values, return_inverse=True)
    else:
        repetitions, repetition = np.zeros(1), np.zeros(len(shown), dtype=int)
    slots = stimulus * len(repetitions) + repetition
    n_twice = len(slots) - len(np.unique(slots))
    if n_twice:
        raise DataError(
            f"{n_twice} presentations of {identifier} repeat both stimulus_id and "
            "repetition of another; number the repetitions of each stimulus"
        )
    shape = (len(ids), len(repetitions), assembly.sizes["neuroid"])
    responses = np.full(shape, np.nan)
    responses[stimulus, repetition] = assembly.values
    return responses


def assembly_from_recording(
    recording: Recording, averaged: bool, image_folder: Path | None = None
) -> Any:
    """``NeuronRecordingAssembly`` as Brain-Score's loaders return it.

    The first presentation coordinate is the position of the stimulus, so that
    Brain-Score's averaging, which sorts by all coordinates, keeps the recording's
    order and splits fall on the same stimuli.

    Parameters
    ----------
    recording : what to convert
    averaged : average repetitions, else one presentation for each showing
    image_folder : where to write the images for the attribute ``stimulus_set``;
        without it the assembly has none

    Returns
    -------
    NeuronRecordingAssembly, (presentation, neuroid), with the scalar coordinate
    ``time_bin``
    """
    import_brainscore()
    from brainscore_core.supported_data_standards.brainio import assemblies

    if averaged:
        values = recording.averaged()
        stimulus = np.arange(len(values))
        coords: dict[str, Any] = {}
    else:
        shown = recording.presentations()
        stimulus, repetition, values = shown.stimulus, shown.repetition, shown.values
        coords = {"repetition": ("presentation", repetition)}
    for name, column in _stimulus_columns(recording.images).items():
        coords[name] = ("presentation", column[stimulus])
    n_neuroids = len(recording.neuroid_ids)
    coords["neuroid_id"] = ("neuroid", list(recording.neuroid_ids))
    coords["region"] = ("neuroid", [recording.region] * n_neuroids)
    # Of two coordinates, selecting a region would leave one and rename the axis.
    coords["neuroid_num"] = ("neuroid", np.arange(n_neuroids))
    coords["time_bin_start"] = ("time_bin", [WINDOW[0]])
    coords["time_bin_end"] = ("time_bin", [WINDOW[1]])
    assembly = assemblies.NeuronRecordingAssembly(
        values[:, :, np.newaxis],
        coords=coords,
        dims=["presentation", "neuroid", "time_bin"],
    ).squeeze("time_bin")
    assembly.attrs["identifier"] = recording.identifier
    assembly.attrs["image_size_degree"] = recording.degrees
    if image_folder is not None:
        stimuli = stimulus_set(recording.images, image_folder)
        assembly.attrs["stimulus_set"] = stimuli
        assembly.attrs["stimulus_set_identifier"] = stimuli.identifier
    return assembly
