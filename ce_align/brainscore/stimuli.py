"""Image sets from Brain-Score's stimulus sets, and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.brainscore.upstream import import_brainscore
from ce_align.checks import named_some
from ce_align.data.imagefiles import FolderSource
from ce_align.data.imagesets import ImageSet
from ce_align.digests import combine_digests, digest_bytes
from ce_align.errors import DataError
from ce_align.files import atomic_path

__all__ = ["RESERVED", "images_of", "stimulus_columns", "stimulus_set"]

#: Names that Brain-Score gives a meaning to; columns of images cannot take them.
RESERVED = {
    "filename", "neuroid", "neuroid_id", "presentation", "region", "repetition",
    "stimulus_id", "stimulus_order", "time_bin", "time_bin_end", "time_bin_start",
}  # fmt: skip


def images_of(
    stimuli: Any,
    ids: Sequence[str],
    identifier: str,
    columns: Mapping[str, NDArray[Any]],
) -> ImageSet:
    """Images of a stimulus set, read in place.

    Parameters
    ----------
    stimuli : Brain-Score's ``StimulusSet``, with the path of every image
    ids : stimuli to take, in this order
    identifier : name of the recording, for messages
    columns : values an image each, which come before equally named columns of
        `stimuli`

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
    table = stimuli.assign(stimulus_id=stimuli["stimulus_id"].astype(str))
    table = table.drop_duplicates("stimulus_id").set_index("stimulus_id").loc[ids]
    further = {
        str(name): table[name].to_numpy()
        for name in table.columns
        if name not in RESERVED and name not in columns
    }
    return ImageSet.from_encoded(
        str(getattr(stimuli, "identifier", identifier)),
        ids,
        FolderSource(Path("/")),
        [str(paths[key].resolve()) for key in ids],
        {name: _plain(values) for name, values in {**columns, **further}.items()},
    )


def stimulus_columns(images: ImageSet) -> dict[str, NDArray[Any]]:
    """Columns of a stimulus set: position, id, and what the images carry.

    Columns with NaN become text, as Brain-Score averages repetitions only where every
    coordinate equals itself.
    """
    columns = {
        "stimulus_order": np.arange(len(images)),
        "stimulus_id": np.array(images.ids),
    }
    kept = {name: v for name, v in images.columns.items() if name not in RESERVED}
    return columns | {name: _comparable(np.asarray(v)) for name, v in kept.items()}


def stimulus_set(images: ImageSet, folder: Path) -> Any:
    """Brain-Score ``StimulusSet`` of images, written to `folder` as PNG.

    Its identifier ends in a digest of images and folder: Brain-Score caches activations
    by that name alone, and refuses cached ones whose files lay elsewhere.
    """
    import_brainscore()
    from brainscore_core.supported_data_standards.brainio import stimuli

    result = stimuli.StimulusSet(stimulus_columns(images))
    place = digest_bytes(str(folder.resolve()).encode())
    result.identifier = f"{images.identifier}-{combine_digests(images.digest, place)}"
    paths = [_write_image(images, i, folder) for i in range(len(images))]
    result.stimulus_paths = dict(zip(images.ids, paths, strict=True))
    return result


def _write_image(images: ImageSet, index: int, folder: Path) -> Path:
    # The position keeps equal images apart, as Brain-Score looks up ids by path.
    content = digest_bytes(images.image_digest(index).encode())
    path = folder / f"{index:06d}-{content}.png"
    if not path.exists():
        with atomic_path(path) as temporary:
            images.load(index).save(temporary, format="PNG")
    return path


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers as they are, everything else as text."""
    return values if values.dtype.kind in "iufb" else values.astype(str)


def _comparable(values: NDArray[Any]) -> NDArray[Any]:
    plain = _plain(values)
    holed = plain.dtype.kind == "f" and bool(np.isnan(plain).any())
    return plain.astype(str) if holed else plain
