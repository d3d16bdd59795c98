"""A recording from arrays that are at hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import Origin, Recording, canonical_region
from ce_align.errors import DataError

__all__ = ["make_recording"]


def make_recording(
    responses: NDArray[Any],
    images: ImageSet | NDArray[np.uint8],
    region: str,
    *,
    name: str = "mine",
    neuroids: Sequence[str] | None = None,
    degrees: float = 8.0,
    origin: Origin = "imported",
) -> Recording:
    """A recording from one's own arrays.

    Parameters
    ----------
    responses : (n_stimuli, n_neuroids), or (n_stimuli, n_repetitions, n_neuroids) with
        NaN where a stimulus was shown fewer times; without repetitions there is no
        ceiling, and so no normalised score
    images : (n_stimuli, height, width, 3) of uint8, or an `ImageSet`
    region : recorded area, such as ``IT``
    name : of the recording in rows
    neuroids : names of the neuroids
    degrees : visual angle of the images
    origin : what the responses are: ``imported``, of animals that were recorded
        elsewhere, ``recorded``, or ``simulated``, which every table and figure says

    Raises
    ------
    DataError
        If shapes do not fit, a value is infinite, or there is no such origin.
    """
    values = np.asarray(responses, dtype=np.float64)
    if values.ndim == 2:
        values = values[:, None]
    if values.ndim != 3:
        raise DataError(
            "responses must be (n_stimuli, n_neuroids) or (n_stimuli, n_repetitions, "
            f"n_neuroids), found {values.shape}"
        )
    if not isinstance(images, ImageSet):
        images = ImageSet.from_array(name, images)
    numbered = (f"{name}_{i:04d}" for i in range(values.shape[2]))
    ids = tuple(numbered if neuroids is None else map(str, neuroids))
    return Recording.without_silent(
        identifier=name,
        images=images,
        responses=values,
        neuroid_ids=ids,
        region=canonical_region(region),
        degrees=degrees,
        origin=origin,
    )
