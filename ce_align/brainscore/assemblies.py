"""Recordings to Brain-Score's assemblies and stimulus sets, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.brainscore.upstream import import_brainscore
from ce_align.checks import named_some
from ce_align.data.imagefiles import FolderSource
from ce_align.data.imagesets import ImageSet
from ce_align.data.presentations import Presentations
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
    reliability: NDArray[Any] | None = None,
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
    protocol : how Brain-Score scores on it; it takes the order of the stimulus set
    reliability : (n_neuroids,), stated, in place of a coordinate of that name

    Raises
    ------
    DataError
        If a coordinate or an image is missing, the region is not there, a coordinate
        holds NaN, or presentations of one stimulus differ in more than repetition.
    """
    import pandas as pd

    assembly = _select(assembly, identifier, region)
    coords = _coords_along("presentation", assembly)
    holed = [name for name, values in coords.items() if pd.isna(values).any()]
    if holed and not averaged:
        # NaN differs from itself: every presentation would be a stimulus of its own,
        # and Brain-Score would go on without a word.
        raise DataError(
            f"coordinates of {identifier} hold NaN ({', '.join(holed)}), so that "
            "Brain-Score would not average repetitions; fill or drop them"
        )
    first = assembly.isel(neuroid=slice(0, 1))
    bins = _time_bins(assembly)
    if "time_bin" in first.dims:
        first = first.isel(time_bin=0)
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
    stimuli = assembly.attrs.get("stimulus_set")
    images = _images_of(stimuli, ids, identifier, _coords_along("presentation", order))
    if protocol is not None:
        seen = tuple(map(str, stimuli["stimulus_id"]))
        protocol = replace(protocol, order=seen if set(seen) == set(ids) else None)
    names, neuroids = _neuroids_of(assembly)
    if reliability is not None:
        neuroids["reliability"] = reliability
    return Recording.without_silent(
        identifier=identifier,
        images=images,
        responses=_responses(assembly, ids),
        neuroid_ids=names,
        neuroids=neuroids,
        time_bins=bins if "time_bin" in assembly.dims else None,
        window=None if bins is None or len(bins) > 1 else tuple(bins[0]),
        region=region,
        degrees=degrees,
        stratify=stratify,
        protocol=protocol,
    )


def _select(assembly: Any, identifier: str, region: str) -> Any:
    """Region of an assembly, as (presentation, neuroid[, time_bin])."""
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
    if assembly.sizes.get("time_bin") == 1:
        assembly = assembly.squeeze("time_bin")
    # A mask and not `sel`: that would drop the level and, of two, rename the axis.
    assembly = assembly.isel(neuroid=regions == region)
    return assembly.transpose("presentation", "neuroid", ...)


def coordinate_names(assembly: Any) -> set[str]:
    """Names of all coordinates, levels of an index included."""
    from brainscore_core.supported_data_standards.brainio import assemblies

    return {name for name, _, _ in assemblies.walk_coords(assembly)}


def _coords_along(dim: str, assembly: Any) -> dict[str, NDArray[Any]]:
    """Coordinates along presentations or neuroids, in Brain-Score's order."""
    from brainscore_core.supported_data_standards.brainio import assemblies

    return {
        name: values
        for name, dims, values in assemblies.walk_coords(assembly)
        if tuple(dims) == (dim,)
    }


def _neuroids_of(assembly: Any) -> tuple[tuple[str, ...], dict[str, NDArray[Any]]]:
    """Unique names of neuroids, and what else is known of them."""
    columns = _coords_along("neuroid", assembly)
    ids = columns.pop("neuroid_id").astype(str)
    if "subject" in columns:
        columns.setdefault("animal", columns.pop("subject"))
    if len(set(ids)) < len(ids) and "animal" in columns:
        animals = columns["animal"].astype(str)
        ids = np.char.add(np.char.add(animals, "/"), ids)
    kept = {name: _plain(v) for name, v in columns.items() if name not in RESERVED}
    return tuple(map(str, ids)), kept


def _time_bins(assembly: Any) -> NDArray[np.float64] | None:
    """Start and end of each time bin in ms, (n_bins, 2), or None."""
    edges = ("time_bin_start", "time_bin_end")
    if "time_bin" in assembly.coords and not assembly["time_bin"].dims:
        levels = assembly["time_bin"].item()  # of a bin that was selected
        return np.array([levels[:2]], float) if isinstance(levels, tuple) else None
    if not set(edges) <= coordinate_names(assembly):
        return None
    columns = [np.atleast_1d(assembly[name].values).astype(float) for name in edges]
    bins: NDArray[np.float64] = np.stack(columns, axis=1)
    return bins


def _averaged(assembly: Any) -> Any:
    """One presentation a stimulus, by Brain-Score's own rule and in its order."""
    common = import_brainscore("benchmark_helpers.neural_common")
    if _coords_along("presentation", assembly).keys() - {"repetition"} == {
        "stimulus_id"
    }:
        # Brain-Score's grouping by a single coordinate sorts, but renames the axis.
        first = np.unique(assembly["stimulus_id"].values, return_index=True)[1]
        return assembly.isel(presentation=first)
    return common.average_repetition(assembly)


def _responses(assembly: Any, ids: list[str]) -> NDArray[np.float64] | Presentations:
    """Responses to the stimuli `ids`: a rectangle, unless most of it would be empty."""
    position = {key: i for i, key in enumerate(ids)}
    stimulus = [position[str(key)] for key in assembly["stimulus_id"].values]
    repetition = np.zeros(len(stimulus), dtype=int)
    if "repetition" in coordinate_names(assembly):
        repetition = np.unique(assembly["repetition"].values, return_inverse=True)[1]
    shown = Presentations(assembly.values, np.array(stimulus), repetition)
    if shown.values.ndim == 3 or 2 * len(stimulus) < len(ids) * shown.n_repetitions:
        return shown
    return shown.rectangle(np.arange(len(ids)))


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
