"""How well ridge regression will predict responses, from spectra alone, and why."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh
from scipy.optimize import brentq

from ce_align.checks import check_finite
from ce_align.digests import digest_array
from ce_align.errors import DataError
from ce_align.metrics.cka import double_centred
from ce_align.metrics.gram import Array

__all__ = ["ErrorModes", "Spectrum", "expected_error", "power_law", "spectrum_of"]

#: Penalties that the best one is taken of, in units of the mean eigenvalue.
PENALTIES = np.geomspace(1e-4, 1e4, 33)
#: Ranks that a power law is fitted to: beyond the first few, which are of their own, up
#: to this share of the stimuli, beyond which there are too few to tell.
FIRST_RANK, LAST_SHARE = 10, 0.25
#: Spectra of the last pairs: several numbers are of one spectrum.
KNOWN = 512


class Spectrum(NamedTuple):
    """Eigenvalues of features, and the share of the responses' variance in each mode.

    Both are (n_stimuli,), of the largest eigenvalue first; shares sum to 1.
    """

    eigenvalues: Array
    shares: Array


class ErrorModes(NamedTuple):
    """Expected error of ridge regression, and the shape of what it misses.

    Attributes
    ----------
    error : expected share of the responses' variance that is missed, on new stimuli;
        ``radius * sqrt(dimension)``
    radius : root of the sum of squares of the errors of all modes
    dimension : number of modes that the error is spread over, a participation ratio
    penalty : that was taken, in units of the mean eigenvalue
    """

    error: float
    radius: float
    dimension: float
    penalty: float


def spectrum_of(gram_features: ArrayLike, gram_responses: ArrayLike) -> Spectrum:
    """Spectrum of features, and how the responses lie in it.

    Parameters
    ----------
    gram_features, gram_responses : (n_stimuli, n_stimuli), products of features and of
        neuroids

    Raises
    ------
    DataError
        For other shapes, NaN, fewer than four stimuli, or features or responses that
        are the same for every stimulus.
    """
    features, responses = double_centred(gram_features), double_centred(gram_responses)
    if features.shape != responses.shape:
        raise DataError(
            "both must be of the same stimuli, found shapes "
            f"{features.shape} and {responses.shape}"
        )
    total, size = float(np.trace(responses)), float(np.trace(features))
    if min(total, size) <= 0:
        raise DataError(
            "features or responses are the same for every stimulus, so that nothing "
            "can be predicted; check the layer, or leave out the neuroids"
        )
    pair = digest_array(features) + digest_array(responses)
    if pair not in _spectra:
        values, modes = eigh(features)
        shares = np.einsum("im,im->m", modes, responses @ modes) / total
        if len(_spectra) == KNOWN:
            _spectra.clear()
        _spectra[pair] = Spectrum(
            np.maximum(values[::-1], 0) / len(values), np.maximum(shares[::-1], 0)
        )
    return _spectra[pair]


_spectra: dict[str, Spectrum] = {}


def expected_error(
    spectrum: Spectrum, n_train: int, penalty: float | None = None
) -> ErrorModes:
    """Expected error of ridge regression from some of the stimuli, on the others.

    Parameters
    ----------
    spectrum : of features and responses
    n_train : number of stimuli to learn from
    penalty : of ridge regression with features whose products have the mean eigenvalue
        1: what is added to the diagonal is ``penalty * n_train``. None for the one of
        least expected error

    Returns
    -------
    Of features and responses without their means over the stimuli

    Raises
    ------
    DataError
        For NaN, or no stimulus to learn from, or to predict.

    Notes
    -----
    Radius and dimension of the error: Canatar, Feather, Wakhloo and Chung (2023), A
    spectral theory of neural prediction and alignment, NeurIPS, after Canatar,
    Bordelon and Pehlevan (2021), Nature Communications 12. Their theory has stimuli of
    an endless population, and is what this becomes where few of the stimuli are learned
    from. Here stimuli to learn from are drawn of those given, none twice, and error is
    that of the others: the spectrum of their products follows from that of all by free
    compression (Nica and Speicher 1996), and the error by generalised crossvalidation.
    """
    check_finite(np.concatenate(spectrum), "the spectrum")
    n_stimuli = len(spectrum.eigenvalues)
    if not 1 <= n_train < n_stimuli:
        raise DataError(
            f"expected 1 to {n_stimuli - 1} of {n_stimuli} stimuli to learn from, "
            f"found {n_train}"
        )
    tried = PENALTIES if penalty is None else [penalty]
    found = [_error_modes(spectrum, n_train / n_stimuli, float(one)) for one in tried]
    return min(found, key=lambda one: one.error)


def power_law(spectrum: Spectrum) -> float:
    """Exponent a of eigenvalues that fall as rank ** -a, by a line through logarithms.

    Raises
    ------
    DataError
        If there are too few stimuli or eigenvalues.

    Notes
    -----
    Reference: Stringer, Pachitariu, Steinmetz, Carandini and Harris (2019), Nature 571,
    where the exponent of images' responses in visual cortex is near 1.
    """
    ranks = np.arange(FIRST_RANK, int(LAST_SHARE * len(spectrum.eigenvalues)) + 1)
    values = spectrum.eigenvalues[ranks - 1] if len(ranks) else np.zeros(0)
    if len(ranks) < FIRST_RANK or values.min() <= 1e-12 * spectrum.eigenvalues[0]:
        raise DataError(
            f"an exponent needs eigenvalues of the ranks {FIRST_RANK} to "
            f"{2 * FIRST_RANK} or beyond within a quarter of the stimuli, found "
            f"{len(spectrum.eigenvalues)} stimuli and "
            f"{int((spectrum.eigenvalues > 1e-12 * spectrum.eigenvalues[0]).sum())} "
            "eigenvalues"
        )
    return -float(np.polyfit(np.log(ranks), np.log(values), 1)[0])


def _error_modes(spectrum: Spectrum, share: float, penalty: float) -> ErrorModes:
    """Error of one penalty, where a share of the stimuli is learned from."""
    values = spectrum.eigenvalues / spectrum.eigenvalues.mean()
    ridge = penalty * share

    def fitted(effective: float) -> float:
        """Share of all modes that a penalty leaves to the fit."""
        return float(np.mean(values / (values + effective)))

    def above(effective: float) -> float:
        """Zero at the penalty on all stimuli that amounts to that on some."""
        free = fitted(effective)
        return effective * (share - free) - ridge * (1 - free)

    # What is fitted falls with the penalty; beyond `share` no regression fits.
    effective = brentq(above, 1e-15, 2 * (ridge + 1) / share, xtol=1e-300, rtol=1e-13)
    missed = effective / (values + effective)
    free, spread = fitted(effective), float(np.mean(missed * (1 - missed)))
    scale = share / ((1 - free) * (share - free) + spread * (1 - share))
    errors = scale * spectrum.shares * missed**2
    radius = float(np.sqrt((errors**2).sum()))
    return ErrorModes(
        float(errors.sum()), radius, float(errors.sum() / radius) ** 2, penalty
    )
