"""Coverage of every interval that is printed, with all that is random drawn anew.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.coverage.analyses``: ten minutes of a
core at small sizes. ``--paper`` goes towards the paper's: its images, views and numbers
of comparisons where that takes seconds a replication, in fewer dimensions than its
networks have. ``--replications`` says how often. The target of an interval is the
expectation of its estimate at these sizes, for which the mean over all replications
stands; where it is known, that is taken.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.coverage.planted import Sizes, World
from ce_align.metrics.bures import (
    reference_effects,
    squared_bures_distances_to_reference,
)
from ce_align.metrics.inference import Interval, pair_interval, unit_interval
from ce_align.metrics.linear_evaluation import accuracies
from ce_align.metrics.overlap import variance_overlap
from ce_align.metrics.predictivity import (
    brainscore_splits,
    cross_validated_r,
    summarise,
)
from ce_align.stages.estimates import IntervalKind, Measured, mean_over_units
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.readout import decode, measure_dimensionality, steer
from ce_align.stages.variability import choose_pairs, compare, measure_shapes

__all__ = ["Coverage", "coverages", "main", "readouts", "shapes"]

SMALL = Sizes(60, 12, 6, 6, 8, 12, 24)
#: Between small and the paper's, for what takes a minute a replication there.
MIDDLE = Sizes(200, 30, 8, 8, 40, 20, 32)
#: The paper's numbers of images and views.
PAPER = Sizes(800, 50, 4, 4, 8, 4, 32)

#: Draws a value of each unit.
Values = Callable[[np.random.Generator], NDArray[np.float64]]
#: A number with its bounds, NaN if there are none, and what they are over.
Found = tuple[float, float, float, str | None]


@dataclass(frozen=True)
class Coverage:
    """How often an interval held its target.

    Attributes
    ----------
    measure, over : which interval, and what it is over
    covered : share of the printed intervals
    printed : share of the replications that have one
    n : replications
    width : half the mean width, in standard deviations of the estimate
    """

    measure: str
    over: str
    covered: float
    printed: float
    n: int
    width: float

    @property
    def error(self) -> float:
        """Binomial standard error of `covered`."""
        n = max(self.n * self.printed, 1.0)
        return float(np.sqrt(self.covered * (1 - self.covered) / n))


def coverages(
    draws: Iterable[Mapping[str, Found]], targets: Mapping[str, float] | None = None
) -> list[Coverage]:
    """Coverage of every interval of replications.

    Parameters
    ----------
    draws : of each replication, what it found
    targets : where they are known; else the mean over replications
    """
    found = defaultdict(list)
    for one in draws:
        for measure, value in one.items():
            found[measure].append(value)
    result = []
    for measure, values in found.items():
        estimate, low, high = np.array([value[:3] for value in values]).T
        over = next((value[3] for value in values if value[3]), "–")
        target = (targets or {}).get(measure, float(estimate.mean()))
        there = np.isfinite(low)
        covered = (low[there] <= target) & (target <= high[there])
        width = np.mean(high[there] - low[there]) / 2 if there.any() else np.nan
        share = float(covered.mean()) if there.any() else float("nan")
        deviation = float(estimate.std(ddof=1)) or np.nan
        result.append(
            Coverage(
                measure,
                over,
                share,
                float(there.mean()),
                len(values),
                float(width / deviation),
            )
        )
    return result


def shapes(
    sizes: Sizes, comparisons: int, n: int, kind: IntervalKind = "population"
) -> list[Coverage]:
    """Of Bures distances, their floors, and differences from another network."""
    networks = [World.of(sizes, k) for k in (0, 1)]

    def once(seed: int) -> dict[str, Found]:
        draw = networks[0].draw(np.random.default_rng([seed, 1]))
        config = settings(sizes, comparisons, seed, kind)
        baseline, own = (compare(one.respond(draw), config) for one in networks)
        return found_in(measure_shapes(own, baseline, config))

    return coverages(map(once, range(n)))


def centroids(sizes: Sizes, n: int) -> list[Coverage]:
    """Of distances from the cloud of all images' centroids alone, by both intervals."""
    world = World.of(sizes, 1)

    def once(seed: int) -> dict[str, Found]:
        draw = world.draw(np.random.default_rng([seed, 8]))
        clouds = world.strong(draw)
        means = clouds.mean(axis=1, dtype=np.float64)
        distances = squared_bures_distances_to_reference(clouds, means)
        effects = reference_effects(clouds, means)
        found = [
            mean_over_units(distances, "population", seed, effects),
            mean_over_units(distances, "comparisons", seed),
        ]
        return {
            f"augmentation_centroid, {one.over}": found_as(one.interval, one.over)
            for one in found
        }

    return coverages(map(once, range(n)))


def readouts(sizes: Sizes, n: int) -> list[Coverage]:
    """Of decoding, steerability and dimensionality."""
    world = World.of(sizes, 0)

    def once(seed: int) -> dict[str, Found]:
        rng = np.random.default_rng([seed, 2])
        config = settings(sizes, 800, seed, "population")
        draw = world.draw(rng)
        views, ledger = world.augmented(draw, rng)
        clean = world.clean(draw).astype(np.float32)
        shared = world.augmented(draw, rng, shared=True)
        families = [("strong", views)]
        return (
            found_in(decode(clean, views, ledger, config))
            | found_in(steer(clean, *shared, config))
            | found_in(measure_dimensionality(families, config))
        )

    return coverages(map(once, range(n)))


def settings(
    sizes: Sizes, comparisons: int, seed: int, kind: IntervalKind
) -> AnalysisConfig:
    """Settings of an analysis of these sizes."""
    return AnalysisConfig(
        metric="bures",
        model="network",
        layer="layer",
        baseline="baseline",
        images="planted",
        comparisons=comparisons,
        views=sizes.views,
        crops=sizes.crops,
        photometrics=sizes.photometrics,
        interval=kind,
        seed=seed,
    )


def found_in(measured: Measured) -> dict[str, Found]:
    """Every number with its interval."""
    return {
        one.metric: found_as(one.estimate.interval, one.estimate.over)
        for one in measured.numbers
    }


def found_as(interval: Interval, over: str | None) -> Found:
    """An interval, and what it is over."""
    return interval.estimate, interval.low, interval.high, over


def units(n_units: int, n: int) -> list[Coverage]:
    """Of means over images, for values of several shapes."""
    kinds: dict[str, tuple[Values, float]] = {
        "normal values": (lambda rng: rng.normal(size=n_units), 0.0),
        "lognormal values": (lambda rng: rng.lognormal(size=n_units), np.exp(0.5)),
        "exponential values": (lambda rng: -rng.exponential(size=n_units), -1.0),
    }

    def once(seed: int) -> dict[str, Found]:
        rng = np.random.default_rng([seed, 3])
        return {
            name: found_as(unit_interval(draw(rng), rng), "images")
            for name, (draw, _) in kinds.items()
        }

    targets = {name: float(mean) for name, (_, mean) in kinds.items()}
    return coverages(map(once, range(n)), targets)


def pairs(n_units: int, comparisons: int, n: int) -> list[Coverage]:
    """Of means over pairs of units whose effects add up, matter little, or multiply."""
    kinds = {
        "effects of units": (1.0, 0.3, 0.0),
        "effects of pairs": (0.3, 1.0, 0.0),
        "effects that multiply": (1.0, 0.3, 0.5),
    }

    def once(seed: int) -> dict[str, Found]:
        rng = np.random.default_rng([seed, 7])
        chosen = choose_pairs(n_units, comparisons, seed)
        unit = rng.normal(size=n_units)[chosen]
        noise = rng.normal(size=len(chosen))
        values = {
            name: alone * unit.sum(axis=1) + own * noise + both * unit.prod(axis=1)
            for name, (alone, own, both) in kinds.items()
        }
        return {
            name: found_as(pair_interval(value, chosen, rng), "images or classes")
            for name, value in values.items()
        }

    return coverages(map(once, range(n)), dict.fromkeys(kinds, 0.0))


def overlap(n_stimuli: int, n_neuroids: int, n: int) -> list[Coverage]:
    """Of shared and unique explained variance, for other neuroids of one recording."""
    fixed = np.random.default_rng(4)
    a, b = fixed.normal(size=(2, n_stimuli, 6))
    folds = np.arange(n_stimuli) % 5

    def once(seed: int) -> dict[str, Found]:
        rng = np.random.default_rng([seed, 4])
        gain = rng.lognormal(sigma=0.7, size=(2, 1, n_neuroids))
        weights = gain * rng.normal(size=(2, 6, n_neuroids))
        rates = a @ weights[0] + b @ weights[1]
        rates += rng.normal(size=rates.shape)
        found = variance_overlap(a, b, rates, folds)
        return {
            f"overlap_{name}": found_as(unit_interval(values, rng), "neuroids")
            for name, values in (
                ("r2_a", found.r2_a),
                ("unique_a", found.unique_a),
                ("shared", found.shared),
            )
        }

    return coverages(map(once, range(n)))


def accuracy(n_classes: int, n_of_class: int, n: int) -> list[Coverage]:
    """Of accuracies ± 1.96 of the errors that a row of transfer has."""
    right = np.random.default_rng(5).beta(6, 2, size=n_classes)
    labels = np.repeat(np.arange(n_classes), n_of_class)

    def once(seed: int) -> dict[str, Found]:
        rng = np.random.default_rng([seed, 5])
        # Which of the wrong classes is named does not matter.
        hit = rng.random(len(labels)) < right[labels]
        top1, per_class, error = accuracies(np.where(hit, labels, -1), labels)
        whole = np.sqrt(top1 * (1 - top1) / len(labels))
        return {
            name: (value, value - 1.96 * size, value + 1.96 * size, "test images")
            for name, value, size in (
                ("transfer top1 ± 1.96 error", top1, whole),
                ("transfer mean_per_class ± 1.96 error", per_class, error),
            )
        }

    target = float(right.mean())
    names = ("transfer top1 ± 1.96 error", "transfer mean_per_class ± 1.96 error")
    return coverages(map(once, range(n)), dict.fromkeys(names, target))


def scores(n_stimuli: int, n_neuroids: int, n: int) -> list[Coverage]:
    """Of raw predictivity ± Student's multiple of its error over ten splits."""
    rng = np.random.default_rng(6)
    features = rng.normal(size=(n_stimuli, 40))
    rates = features @ rng.normal(size=(40, n_neuroids))
    rates += 6 * rng.normal(size=rates.shape)

    def once(seed: int) -> dict[str, Found]:
        splits = brainscore_splits(n_stimuli, n_splits=10, seed=seed)
        r = cross_validated_r(features, rates, splits, regression="ridge", alpha=10.0)
        raw, error = summarise(r)
        half = 2.262 * error
        return {"raw ± 2.26 error": (raw, raw - half, raw + half, "splits")}

    return coverages(map(once, range(n)))


def show(title: str, rows: Iterable[Coverage]) -> None:
    """Print one block of the table."""
    print(f"\n{title}")
    for row in rows:
        if not row.printed:
            print(f"  {row.measure} – no interval is printed")
            continue
        share = "" if row.printed == 1 else f"  printed {row.printed:.2f}"
        print(
            f"  {row.measure:40s} {row.over:28s} {100 * row.covered:5.1f} ± "
            f"{100 * row.error:3.1f} %  width {row.width:4.2f} sd{share}",
            flush=True,
        )


def main() -> None:
    """Simulate, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paper", action="store_true", help="larger sizes, instead")
    parser.add_argument("--replications", type=int, default=400)
    given = parser.parse_args()
    n = given.replications
    print(f"Coverage of 95 % intervals, {n} replications: what it is over, share that")
    print("holds the target ± binomial error, half the width in sd of the estimate")
    if given.paper:
        show("800 images, 50 views, 32 features", centroids(PAPER, n))
        middle = "200 images, 30 views, 8 × 8 crops, 40 classes of 20, 32 features"
        show(f"{middle}, 5 runs", readouts(MIDDLE, n))
        show(f"{middle}, 800 comparisons", shapes(MIDDLE, 800, n))
        return
    small = "60 images, 12 views, 6 × 6 crops, 8 classes of 12, 24 features"
    show(f"{small}, 200 comparisons", shapes(SMALL, 200, n))
    more = "100 images, 20 views, 24 features, 5 runs"
    show(more, readouts(replace(SMALL, images=100, views=20), n))
    show(
        "60 images again, as if comparisons were independent (the paper's interval)",
        shapes(SMALL, 200, n // 4, "comparisons"),
    )
    for n_units in (20, 60, 800):
        show(f"mean over {n_units} images", units(n_units, n))
    for n_units, comparisons in ((800, 800), (100, 800), (60, 200), (8, 200)):
        title = f"mean over pairs of {n_units} units, {comparisons} at most"
        show(title, pairs(n_units, comparisons, n))
    show("60 stimuli, 30 neuroids, 5 folds", overlap(60, 30, n))
    show("20 classes of 20 test images", accuracy(20, 20, n))
    show("200 stimuli, 20 neuroids, 10 splits", scores(200, 20, n))


if __name__ == "__main__":
    main()
