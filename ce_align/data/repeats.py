"""Rows of a recording that show equal images: found by content, and joined.

A trial that is given as a stimulus of its own would stand on both sides of a split,
where a network predicts it from the other trials of the same image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import Recording
from ce_align.errors import DataError

__all__ = [
    *("equal_files", "equal_pixels", "first_rows", "join_equal_images", "join_rows"),
    *("joining_note", "shared_columns"),
]

Indices = NDArray[np.intp]


def equal_files(images: ImageSet) -> Indices:
    """For each image the first one with the same encoded bytes, (n_images,)."""
    return first_rows([images.image_digest(i) for i in range(len(images))])


def equal_pixels(images: ImageSet) -> Indices:
    """For each image the first one with the same pixels, (n_images,); decodes all."""
    return first_rows([images.pixel_digest(i) for i in range(len(images))])


def first_rows(contents: Sequence[Any]) -> Indices:
    """For each content the first place where it stands.

    >>> first_rows(["a", "b", "a"]).tolist()
    [0, 1, 0]
    """
    places: dict[Any, int] = {}
    return np.array(
        [places.setdefault(content, i) for i, content in enumerate(contents)],
        dtype=np.intp,
    )


def join_rows(responses: NDArray[np.float64], first: Indices) -> NDArray[np.float64]:
    """Responses with the rows of one image as its repetitions.

    Parameters
    ----------
    responses : (n_rows, n_repetitions, n_neuroids)
    first : (n_rows,)
        For each row the first row of its image.

    Returns
    -------
    (n_images, n_most, n_neuroids)
        In the order of first rows; NaN where an image was shown fewer times.
    """
    parts = []
    for row in np.unique(first):
        rows = np.flatnonzero(first == row)
        part = responses[rows].reshape(-1, responses.shape[2])
        # Of several rows, padding in the middle would part their repetitions.
        parts.append(part[~np.isnan(part).all(axis=1)] if len(rows) > 1 else part)
    joined = np.full(
        (len(parts), max(map(len, parts)), responses.shape[2]), np.nan, dtype=np.float64
    )
    for place, part in zip(joined, parts, strict=True):
        place[: len(part)] = part
    return joined


def shared_columns(
    columns: Mapping[str, NDArray[Any]],
    first: Indices,
    stratify: str | None,
    identifier: str,
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Columns of joined rows, and the names of those that differ within an image.

    Raises
    ------
    DataError
        If the column to stratify by differs.
    """
    kept, differing = {}, []
    for name, values in columns.items():
        if (np.asarray(values)[first] == values).all():
            kept[name] = np.asarray(values)[np.unique(first)]
        else:
            differing.append(name)
    if stratify in differing:
        raise DataError(
            f"{identifier} shows equal images with different values of {stratify!r}, "
            "the column to stratify by; correct it, or do not stratify"
        )
    return kept, differing


def join_equal_images(recording: Recording, first: Indices) -> Recording:
    """Recording with the rows of equal images as repetitions of one stimulus.

    Parameters
    ----------
    recording : as it was given
    first : (n_stimuli,)
        For each row the first row of its image, such as `equal_pixels` gives.

    Returns
    -------
    Recording
        With a note of what was joined; the same object if nothing was.

    Raises
    ------
    DataError
        If the column to stratify by differs between rows of an image.
    """
    rows = np.unique(first)
    if len(rows) == len(first):
        return recording
    columns, differing = shared_columns(
        recording.images.columns, first, recording.stratify, recording.identifier
    )
    images = replace(recording.images.select(list(rows)), columns=columns)
    return replace(
        recording,
        images=images,
        responses=join_rows(recording.responses, first),
        notes=(*recording.notes, joining_note(first, recording.images.ids, differing)),
    )


def joining_note(first: Indices, names: Sequence[str], differing: Sequence[str]) -> str:
    """What was joined, in one line."""
    rows, counts = np.unique(first, return_counts=True)
    shared = [names[row] for row in rows[counts > 1]]
    n_images = f"{len(shared)} image{'s' if len(shared) > 1 else ''}"
    note = (
        f"{counts[counts > 1].sum()} rows show {n_images} more than once and are "
        f"repetitions now ({named_some(shared)})"
    )
    if differing:
        note += f", without the columns that differ: {named_some(differing)}"
    return note
