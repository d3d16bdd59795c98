"""What can be read out of features, and how transformations lie among them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ce_align.augment import (
    FAMILIES,
    PARAMETER_NAMES,
    AugmentationLedger,
    outside_ranges,
)
from ce_align.errors import DataError
from ce_align.metrics.bures import ConstantCloudError
from ce_align.metrics.factorization import (
    factorization,
    participation_ratio,
    steerability,
)
from ce_align.metrics.paired_design import image_splits
from ce_align.metrics.parameter_decoding import Decoding, decode_parameters
from ce_align.results import joined_notes
from ce_align.stages.estimates import (
    HeldOut,
    Measured,
    Measurement,
    mean_over_runs,
    mean_over_units,
    without_interval,
)
from ce_align.stages.variability import MOST_CONSTANT

if TYPE_CHECKING:
    from ce_align.stages.measures import AnalysisConfig

__all__ = ["decode", "factorize", "measure_dimensionality", "steer"]

FloatArray = NDArray[np.float32]

Families = Iterable[tuple[str, FloatArray]]
#: Training and test images.
Split = tuple[NDArray[np.intp], NDArray[np.intp]]

#: Share of the images that is held out of a regression.
TEST_FRACTION = 0.2

Method = Literal["ols", "ridge"]
METHODS: tuple[Method, ...] = ("ols", "ridge")

#: Why a number has no interval.
ALL_IMAGES = "one number of all images together"
#: Training views for each feature of a regression without penalty, and held-out views,
#: below which R² says little.
ENOUGH_VIEWS, ENOUGH_HELD_OUT = 2, 30

#: Held-out views within the weak range, and those beyond it.
SUBSETS = ("weak", "strong_only")


def decode(
    clean: FloatArray,
    views: FloatArray,
    ledger: AugmentationLedger,
    config: "AnalysisConfig",
) -> Measured:
    """R² of augmentation parameters from [f(clean), f(view)] on held-out images.

    Parameters
    ----------
    clean : (n_images, n_features)
    views : (n_images, n_views, n_features)
    ledger : n_images × n_views rows, image by image
    config : gives runs and seed

    Returns
    -------
    Measured
        For least squares and ridge: the mean over parameters, and each parameter; the
        mean among held-out views of the weak range and beyond it, after training on all
        (``weak``, ``strong_only``); and the mean after training, too, on views of the
        weak range only (``within_weak``). Means of too few views for any R² are NaN.
    """
    import xarray as xr

    n_images, n_views, n_features = views.shape
    n_columns = 2 * n_features
    image = np.repeat(np.arange(n_images), n_views)
    flat, parameters = views.reshape(n_images * n_views, -1), ledger.parameters()
    every, subsets = np.ones(len(flat), bool), _subsets(ledger)

    def read(
        rows: NDArray[np.bool_],
        split: Split,
        method: Method,
        subsets: dict[str, NDArray[np.bool_]],
    ) -> Decoding:
        return decode_parameters(
            clean,
            flat[rows],
            image[rows],
            parameters[rows],
            train_images=split[0],
            test_images=split[1],
            method=method,
            subsets=subsets,
            names=PARAMETER_NAMES,
        )

    runs: dict[Method, list[Decoding]] = {way: [] for way in METHODS}
    within: dict[Method, list[HeldOut]] = {way: [] for way in METHODS}
    weak = subsets["weak"]
    counts: dict[str, tuple[int, int]] = {}
    for split in _splits(n_images, config):
        held_out = np.isin(image, split[1])
        for name, mask in {"all": every, **subsets}.items():
            of_run = int(mask[~held_out].sum()), int(mask[held_out].sum())
            counts[name] = min(counts.get(name, of_run), of_run)
        some = {name: mask for name, mask in subsets.items() if mask[held_out].any()}
        enough = min(weak[held_out].sum(), weak[~held_out].sum()) >= 2
        for way in METHODS:
            runs[way].append(read(every, split, way, some))
            within[way].append(
                _mean(read(weak, split, way, {})) if enough else _nothing(n_images)
            )
    measured = Measured()
    for method, found in runs.items():
        series = _series(method, found)
        series[f"decoding_{method}_within_weak"] = within[method]
        for name, values in series.items():
            mean = mean_over_runs(values, TEST_FRACTION, config.seed)
            note = _decoding_note(name, mean.interval.estimate, counts, n_columns)
            measured.numbers.append(
                Measurement(
                    name,
                    mean,
                    n_points=found[0].n_train_views,
                    n_comparisons=found[0].n_test_views,
                    note=joined_notes(mean.note, note),
                )
            )
        measured.arrays[f"decoding_{method}_r2"] = xr.DataArray(
            np.stack([run.r2["all"] for run in found]),
            dims=("run", "parameter"),
            coords={"parameter": list(PARAMETER_NAMES)},
        )
    return measured


def _series(method: str, runs: list[Decoding]) -> dict[str, list[HeldOut]]:
    """What every run found, by the name of the measure."""
    series = {f"decoding_{method}": [_mean(run) for run in runs]}
    for name in SUBSETS:
        series[f"decoding_{method}_{name}"] = [_mean(run, name) for run in runs]
    for k, name in enumerate(PARAMETER_NAMES):
        series[f"decoding_{method}_{name}"] = [
            HeldOut(float(run.r2["all"][k]), run.effects["all"][:, k], run.n_test_views)
            for run in runs
        ]
    return series


def _mean(run: Decoding, subset: str = "all") -> HeldOut:
    if subset not in run.r2:
        return _nothing(len(run.effects["all"]))
    effects = run.mean_effects(subset)
    return HeldOut(run.mean_r2(subset), effects, run.n_held_out[subset])


def _nothing(n_images: int) -> HeldOut:
    return HeldOut(float("nan"), np.full(n_images, np.nan), 0)


def _decoding_note(
    name: str, value: float, counts: dict[str, tuple[int, int]], n_columns: int
) -> str | None:
    """What a reader must know of an R².

    Parameters
    ----------
    name, value : of the measure
    counts : training and held-out views of all views and of each subset
    n_columns : of the regression
    """
    subset = next((one for one in SUBSETS if name.endswith(f"_{one}")), "all")
    n_train, n_test = counts["all"][0], counts[subset][1]
    if name.endswith("_within_weak"):
        n_train, n_test = counts["weak"]
    notes = []
    if "_ols" in name and n_train < ENOUGH_VIEWS * n_columns:
        notes.append(
            f"{n_train} training views for {n_columns} features are too few for least "
            "squares"
        )
    if n_test < ENOUGH_HELD_OUT:
        notes.append(f"{n_test} held-out views only")
    if value < 0:
        notes.append("worse than the mean of the held-out views")
    return "; ".join(notes) or None


def _subsets(ledger: AugmentationLedger) -> dict[str, NDArray[np.bool_]]:
    """Views within the weak range, and views outside it."""
    weak = {view.view: view for view in FAMILIES["weak"].views}
    outside = np.zeros(len(ledger), bool)
    for view, ranges in weak.items():
        rows = ledger.view == view
        outside[rows] = outside_ranges(ledger, ranges)[rows]
    return dict(zip(SUBSETS, (~outside, outside), strict=True))


def _splits(n_images: int, config: "AnalysisConfig") -> list[Split]:
    rng = np.random.default_rng([config.seed, 4])
    return image_splits(n_images, config.runs, TEST_FRACTION, rng)


def factorize(families: Families, config: "AnalysisConfig") -> Measured:
    """Factorization and invariance of each family of augmentations.

    Parameters
    ----------
    families : name, and responses (n_images, n_views, n_features) to its views
    config : gives the kind of interval and the seed
    """
    measured = Measured()
    for family, responses in families:
        found = factorization(responses)
        for name in ("factorization", "invariance"):
            one = without_interval(getattr(found, name), len(responses), ALL_IMAGES)
            measured.numbers.append(
                Measurement(
                    f"{name}_{family}",
                    one,
                    n_points=responses.shape[1],
                    n_comparisons=len(responses),
                    note=one.note,
                )
            )
    return measured


def measure_dimensionality(families: Families, config: "AnalysisConfig") -> Measured:
    """Participation ratio of the clouds of each family, and of the image means.

    Parameters
    ----------
    families : name, and responses (n_images, n_views, n_features) to its views
    config : gives the kind of interval and the seed

    Raises
    ------
    DataError
        If the responses to the views of most images are constant.
    """
    import xarray as xr

    measured = Measured()
    for family, responses in families:
        name = f"dimensionality_{family}"
        values = np.array([_dimension(cloud) for cloud in responses])
        kept, note = _kept(values, family)
        found = mean_over_units(kept, config.interval, config.seed)
        content = participation_ratio(responses.mean(axis=1, dtype=np.float64))
        one = without_interval(content, len(responses), ALL_IMAGES)
        measured.numbers += [
            Measurement(
                name,
                found,
                n_points=responses.shape[1],
                n_comparisons=len(kept),
                note=joined_notes(note, found.note),
            ),
            Measurement(
                f"dimensionality_content_{family}",
                one,
                n_points=len(responses),
                n_comparisons=1,
                note=one.note,
            ),
        ]
        measured.arrays[name] = xr.DataArray(values, dims="image")
    return measured


def _dimension(cloud: FloatArray) -> float:
    """Participation ratio, NaN of a constant cloud."""
    try:
        return participation_ratio(cloud)
    except ConstantCloudError:
        return float("nan")


def _kept(
    values: NDArray[np.float64], family: str
) -> tuple[NDArray[np.float64], str | None]:
    """Values of images whose views differ, and how many do not."""
    kept = values[np.isfinite(values)]
    constant, n = len(values) - len(kept), len(values)
    if constant > MOST_CONSTANT * n:
        raise DataError(
            f"{constant} of {n} images have constant responses to {family} views; the "
            "network has collapsed and has no dimension, so leave it out"
        )
    if not constant:
        return kept, None
    return kept, f"{constant} of {n} images left out: constant responses"


def steer(
    clean: FloatArray,
    views: FloatArray,
    ledger: AugmentationLedger,
    config: "AnalysisConfig",
) -> Measured:
    """How much of f(view) − f(clean) is predicted without seeing the image.

    Parameters
    ----------
    clean : (n_images, n_features)
    views : (n_images, n_views, n_features), view k of every image transformed alike
    ledger : n_images × n_views rows, image by image
    config : gives runs and seed
    """
    n_images, n_views, _ = views.shape
    found = [
        steerability(
            clean,
            views.reshape(n_images * n_views, -1),
            np.repeat(np.arange(n_images), n_views),
            ledger.parameters(),
            np.tile(np.arange(n_views), n_images),
            train_images=train,
            test_images=test,
        )
        for train, test in _splits(n_images, config)
    ]
    measured = Measured()
    for name in ("by_parameters", "by_transformation", "displacement_share"):
        runs = [
            HeldOut(getattr(run, name), run.effects[name], run.n_test_views)
            for run in found
        ]
        # Only regressions know training images.
        held_out = 0.0 if name == "displacement_share" else TEST_FRACTION
        mean = mean_over_runs(runs, held_out, config.seed)
        measured.numbers.append(
            Measurement(
                f"steerability_{name}",
                mean,
                n_points=found[0].n_train_views,
                n_comparisons=found[0].n_test_views,
                note=mean.note,
            )
        )
    return measured
