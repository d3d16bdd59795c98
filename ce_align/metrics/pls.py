"""Partial least squares from one Gram matrix, for all splits at once.

PLS regression with centred, unscaled features needs them only through their inner
products. All splits share one Gram matrix K of all stimuli: times a vector that is zero
on the left-out rows and has mean zero over the training rows it acts as the Gram matrix
of that split, up to a mean that is taken off afterwards. So the splits go in lockstep,
and a component costs one pass over K for all of them.

In the notation of the code, for one split and component: `score` is X_k w for every
stimulus, with the deflated features X_k and feature weights w of unit length; `image`
is K times the score of the training stimuli; `loading` is the regression of the
responses on the score; and `cross` is (X_kᵀY_k)ᵀ(X_kᵀY_k), neuroids by neuroids, whose
dominant eigenvector gives the response weights; the feature weights w would follow from
them, and are never formed: only the score is.
More neuroids than stimuli are rotated into as many targets as there are stimuli, which
changes nothing of this.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import Array, Indices, Splits, narrowed, restored

__all__ = ["MAX_ITER", "PLS_MODES", "TOLERANCE", "check_components", "kernel_pls"]

#: From `cross` and the weights to start from, to weights (n_targets,) and the number of
#: iterations; None where `cross` is zero to within rounding.
Leading = Callable[[Array, Array], tuple[Array, int] | None]

#: scikit-learn's defaults, which Brain-Score leaves as they are.
MAX_ITER, TOLERANCE = 500, 1e-6
#: A quantity below this many roundings of what it was computed from is rounding error.
ROUNDINGS = 10
#: `cross` is updated in place until this share of it is left and then formed anew, so
#: that cancellation costs it at most three digits.
REFRESH = 1e-3


def _nipals_weights(cross: Array, start: Array) -> tuple[Array, int] | None:
    """Response weights (n_targets,) where scikit-learn's power iteration stops.

    They are scaled so that the feature weights that they stand for have unit length;
    the iteration compares two of those by their squared distance.
    """
    previous = image_before = weights = start
    for n_iter in range(1, MAX_ITER + 1):
        image = cross @ weights
        squared_length = float(weights @ image)
        if squared_length <= 0:
            return None
        scale = squared_length**-0.5
        weights, image = scale * weights, scale * image
        if len(cross) == 1 or n_iter == MAX_ITER:
            break
        if n_iter > 1 and (weights - previous) @ (image - image_before) < TOLERANCE:
            break
        previous, image_before = weights, image
        weights = image
    return weights, n_iter


def _exact_weights(cross: Array, start: Array) -> tuple[Array, int] | None:
    """Weights from the dominant eigenvector, scaled as `_nipals_weights` does."""
    from scipy.linalg import eigh

    last = len(cross) - 1
    values, vectors = eigh(cross, subset_by_index=[last, last])
    if values[0] <= 0:
        return None
    return vectors[:, 0] / np.sqrt(values[0]), 1


#: Ways to find a component's weights from `cross`.
PLS_MODES: dict[str, Leading] = {"nipals": _nipals_weights, "exact": _exact_weights}


@dataclass(frozen=True)
class PLSFit:
    """Held-out predictions of every split and how they were reached.

    Attributes
    ----------
    predictions : (n_test, n_neuroids) of each split, in the unit of the responses
    n_iter : power iterations of each component of each split (1 where exact); fewer
        than the components where features or responses were exhausted
    """

    predictions: tuple[Array, ...]
    n_iter: tuple[tuple[int, ...], ...]


def kernel_pls(
    gram: Array,
    responses: Array,
    splits: Splits,
    *,
    n_components: int = 25,
    mode: str = "nipals",
    gram_dtype: str = "float64",
) -> PLSFit:
    """Predict the responses to held-out stimuli by partial least squares.

    Parameters
    ----------
    gram : (n_stimuli, n_stimuli), of features centred over these stimuli or more
    responses : (n_stimuli, n_neuroids), finite
    splits : (train, test), disjoint row numbers
    n_components : fewer than the training stimuli
    mode : ``"nipals"`` stops the power iteration where scikit-learn's `PLSRegression`,
        and with it Brain-Score, stops, short of convergence; ``"exact"`` takes the
        dominant eigenvector. A neuroid's correlation differs by up to 1e-3 between them
    gram_dtype : precision in which `gram` was formed: decides when features are
        exhausted

    Raises
    ------
    ConfigError
        If `mode` is unknown or `n_components` is not positive.
    DataError
        If a split has no more training stimuli than components.

    Notes
    -----
    Where the features, or what the responses share with them, have fewer dimensions
    than `n_components`, extraction stops and the predictions are those of least
    squares, to 1e-6 of the spread of the responses or better: products of features
    lose half of their digits. scikit-learn would go on to fit rounding errors.

    Reference: Lindgren, Geladi & Wold (1993), The kernel algorithm for PLS;
    Wegelin (2000), A survey of partial least squares methods.
    """
    if mode not in PLS_MODES:
        raise ConfigError(f"unknown PLS mode {mode!r}; choose from {sorted(PLS_MODES)}")
    check_components(n_components, splits)
    offset = responses.mean(axis=0)
    problem = _Problem(gram, responses - offset, gram_dtype)
    fits = [_SplitFit(problem, train, n_components) for train, _ in splits]
    active = fits
    for _ in range(n_components):
        active = [fit for fit in active if fit.extract(PLS_MODES[mode])]
        if not active:
            break
        scores = np.stack([fit.train_score for fit in active])
        images = scores @ gram
        images = np.stack(
            [fit.add_image(image) for fit, image in zip(active, images, strict=True)]
        )
        along = np.stack([scores @ problem.responses, images @ problem.responses])
        for k, fit in enumerate(active):
            fit.deflate(*along[:, k])
    predictions = [
        fit.predict(test) + offset for fit, (_, test) in zip(fits, splits, strict=True)
    ]
    return PLSFit(tuple(predictions), tuple(tuple(fit.n_iter) for fit in fits))


def check_components(n_components: int, splits: Splits) -> None:
    """Raise unless every split has more training stimuli than components."""
    if n_components < 1:
        raise ConfigError(f"n_components must be at least 1, not {n_components}")
    n_train = min(len(train) for train, _ in splits)
    if n_components >= n_train:
        raise DataError(
            f"{n_components} components need more training stimuli than {n_train}; "
            "take fewer components, or ridge regression"
        )


class _Problem:
    """What the splits share: the Gram matrix, the centred responses, their product."""

    def __init__(self, gram: Array, responses: Array, gram_dtype: str) -> None:
        self.gram, self.neuroids = gram, responses
        #: What the components explain: neuroids, or what `narrowed` makes of them.
        self.responses, self.basis = narrowed(responses)
        # The last column, the Gram matrix summed over stimuli, centres the splits.
        self.products = gram @ np.column_stack([self.responses, np.ones(len(gram))])
        self.variation = float(np.trace(gram))
        self.rounding = ROUNDINGS * float(np.finfo(np.float64).eps)
        self.least_response = self.rounding * np.abs(responses).max(axis=0)
        self.least_variation = (
            ROUNDINGS * float(np.finfo(gram_dtype).eps) * self.variation
        )

    def weights(self, neuroid: int) -> Array:
        """What a neuroid is of the targets, (n_targets,)."""
        basis = np.eye(1, self.responses.shape[1], neuroid)
        return np.asarray(basis[0] if self.basis is None else self.basis[neuroid])


class _SplitFit:
    """The components of one split so far; rows of its arrays are components.

    Responses are never deflated: scores are orthogonal, so that the regression of the
    original responses on a score is that of the deflated ones.
    """

    def __init__(self, problem: _Problem, train: Indices, n_components: int) -> None:
        n_stimuli, n_targets = problem.responses.shape
        self.problem, self.train = problem, train
        self.rest = np.setdiff1d(np.arange(n_stimuli), train)
        self.least_variation = problem.least_variation
        self.mean = problem.responses[train].mean(axis=0)
        self.responses = problem.responses[train] - self.mean
        # Rounding in products of the Gram matrix and the responses, which would enter
        # the predictions with the square root of its size.
        self.least_covariance = (
            problem.rounding * problem.variation * float(np.sum(self.responses**2))
        )
        # The split's Gram matrix times its responses. The left-out rows are taken off
        # the product of all stimuli: a few of them cost less than the product anew.
        rest = problem.responses[self.rest]
        rest = np.column_stack([rest, np.ones(len(rest))])
        kept = problem.products - problem.gram[self.rest].T @ rest
        self.products: Array = kept[:, :-1] - np.outer(kept[:, -1], self.mean)
        self.products -= self.products[train].mean(axis=0)
        self.n_iter: list[int] = []
        # Scores are kept for all stimuli, so that the held-out ones come along, and
        # once more with zeros in place of the left-out ones.
        self.scores = np.zeros((n_components, n_stimuli))
        self.train_scores = np.zeros((n_components, n_stimuli))
        self.images = np.zeros((n_components, n_stimuli))
        self.loadings = np.zeros((n_components, n_targets))
        self.energies = np.zeros(n_components)
        self.refresh()

    def refresh(self) -> None:
        """Form `cross` from the deflated features and responses."""
        k = len(self.n_iter)
        loadings, scores = self.loadings[:k], self.train_scores[:k, self.train]
        products = self.products[self.train]
        products -= self.images[:k, self.train].T @ loadings
        products -= scores.T @ ((scores @ products) / self.energies[:k, None])
        cross = (self.responses - scores.T @ loadings).T @ products
        self.cross = (cross + cross.T) / 2
        self.fresh_trace = float(np.trace(self.cross))

    def start(self) -> Array | None:
        """Weights of the first neuroid that the components leave more than rounding."""
        k = len(self.n_iter)
        scores = self.train_scores[:k, self.train]
        for neuroid, least in enumerate(self.problem.least_response):
            weights = self.problem.weights(neuroid)
            responses = self.problem.neuroids[self.train, neuroid]
            left = responses - responses.mean() - (self.loadings[:k] @ weights) @ scores
            if np.abs(left).max() > least:
                return weights
        return None

    def extract(self, leading: Leading) -> bool:
        """Add the next component's score; False where nothing is left to extract."""
        k = len(self.n_iter)
        start = self.start()
        found = None if start is None else leading(self.cross, start)
        if found is None:
            return False
        weights, n_iter = found
        # Weights of length one explain 1 / (weights @ weights) of `cross`.
        if self.least_covariance * float(weights @ weights) >= 1:
            return False
        score = (
            self.products @ weights - (self.loadings[:k] @ weights) @ self.images[:k]
        )
        # Once to deflate the features, once more to orthogonalise to the last digit;
        # the mean is one more direction that deflation leaves rounding errors in.
        for _ in range(2):
            score -= score[self.train].mean()
            shares = (self.train_scores[:k] @ score) / self.energies[:k]
            score -= shares @ self.scores[:k]
        energy = float(score[self.train] @ score[self.train])
        if energy <= self.least_variation:
            return False
        self.scores[k] = score
        self.train_scores[k, self.train] = score[self.train]
        self.energies[k] = energy
        self.n_iter.append(n_iter)
        return True

    @property
    def train_score(self) -> Array:
        """Score of the last component, zero on the left-out stimuli."""
        score: Array = self.train_scores[len(self.n_iter) - 1]
        return score

    def add_image(self, image: Array) -> Array:
        """Keep the centred image of the last score; return it, zero if left out."""
        k = len(self.n_iter) - 1
        self.images[k] = image - image[self.train].mean()
        padded: Array = self.images[k].copy()
        padded[self.rest] = 0
        return padded

    def deflate(self, along_score: Array, along_image: Array) -> None:
        """Take the last component off, given responsesᵀ times its score and image."""
        k = len(self.n_iter) - 1
        score, image = self.train_scores[k], self.images[k]
        loading = along_score / self.energies[k]
        overlaps = self.train_scores[:k] @ image
        shared = along_image - overlaps @ self.loadings[:k]
        # (X_kᵀY_k − p bᵀ)ᵀ(X_kᵀY_k − p bᵀ) with p = X_kᵀt, b the loading, t the score.
        shared -= float(score @ image) / 2 * loading
        change = np.outer(shared, loading)
        self.cross -= change + change.T
        self.loadings[k] = loading
        if np.trace(self.cross) < REFRESH * self.fresh_trace:
            self.refresh()

    def predict(self, test: Indices) -> Array:
        """Responses to the stimuli `test`, (n_test, n_neuroids)."""
        k = len(self.n_iter)
        predicted: Array = self.scores[:k, test].T @ self.loadings[:k]
        predicted += self.mean
        return restored(predicted, self.problem.basis)
