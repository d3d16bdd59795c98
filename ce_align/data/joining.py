"""Stimuli that show one image, joined into repetitions of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.data.imagesets import ImageSet
from ce_align.data.presentations import Presentations, Responses
from ce_align.data.recordings import Recording
from ce_align.errors import DataError

__all__ = [
    *("check_split", "equal_files", "equal_pixels", "first_rows", "join_equal_images"),
    "join_rows",
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


def join_rows(
    responses: Responses,
    columns: Mapping[str, NDArray[Any]],
    first: Indices,
    names: Sequence[str],
    *,
    stratify: str | None,
    identifier: str,
) -> tuple[Responses, dict[str, NDArray[Any]], str | None]:
    """Responses and columns with the rows of one image as its repetitions, and a note.

    responses : (n_rows, n_repetitions, n_neuroids), or presentations of the rows
    first : (n_rows,), for each row the first row of its image
    names : of the images of the rows, for the note; there is none if none are joined

    The responses are in the order of first rows, (n_images, n_most, n_neuroids) with
    NaN where an image was shown fewer times, or presentations; columns that differ
    within an image are left out. Raises DataError if the column to stratify by differs.
    """
    rows, counts = np.unique(first, return_counts=True)
    if len(rows) == len(first):
        return responses, dict(columns), None
    same = {
        name: values[rows]
        for name, values in columns.items()
        if (values[first] == values).all()
    }
    differing = [name for name in columns if name not in same]
    if stratify in differing:
        raise DataError(
            f"{identifier} shows equal images with different values of {stratify!r}, "
            "the column to stratify by; correct it, or do not stratify"
        )
    joined: Responses
    if isinstance(responses, Presentations):
        joined = responses.joined(np.searchsorted(rows, first))
    else:
        joined = _joined(responses, first)
    shared = [names[row] for row in rows[counts > 1]]
    note = (
        f"{counts[counts > 1].sum()} rows show {len(shared)} "
        f"image{'s' if len(shared) > 1 else ''} more than once and are repetitions now "
        f"({named_some(shared)})"
    )
    if differing:
        note += f", without the columns that differ: {named_some(differing)}"
    return joined, same, note


def _joined(responses: NDArray[np.float64], first: Indices) -> NDArray[np.float64]:
    """Rectangle with the repetitions of all rows of an image, NaN at the end."""
    parts = []
    for row, count in zip(*np.unique(first, return_counts=True), strict=True):
        part = responses[first == row].reshape(-1, responses.shape[2])
        # Of several rows, padding in the middle would part their repetitions.
        parts.append(part[~np.isnan(part).all(axis=1)] if count > 1 else part)
    joined = np.full((len(parts), max(map(len, parts)), responses.shape[2]), np.nan)
    for place, part in zip(joined, parts, strict=True):
        place[: len(part)] = part
    return joined


def check_split(
    split: NDArray[np.str_] | None,
    first: Indices,
    names: Sequence[str],
    identifier: str,
) -> None:
    """Raise DataError if an image is in training and in test, (n_rows,) each."""
    if split is None:
        return
    both = [names[i] for i in np.flatnonzero(split[first] != split)]
    if both:
        raise DataError(
            f"{len(both)} stimuli of {identifier} show an image of the other part of "
            f"its split ({named_some(both)}); leave them out of one"
        )


def join_equal_images(recording: Recording, first: Indices) -> Recording:
    """Recording with the rows of equal images as repetitions of one stimulus.

    `first` (n_stimuli,) is for each row the first row of its image, such as
    `equal_pixels` gives. A note says what was joined; the same object is returned if
    nothing was. Raises DataError if the column to stratify by differs within an image,
    or one is in training and in test.
    """
    images, split = recording.images, recording.split
    check_split(split, first, images.ids, recording.identifier)
    responses, columns, note = join_rows(
        recording.responses,
        images.columns,
        first,
        images.ids,
        stratify=recording.stratify,
        identifier=recording.identifier,
    )
    if note is None:
        return recording
    return replace(
        recording,
        images=replace(images.select(np.unique(first).tolist()), columns=columns),
        responses=responses,
        split=None if split is None else split[np.unique(first)],
        notes=(*recording.notes, note),
    )
