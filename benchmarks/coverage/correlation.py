"""Coverage of every interval of `ce-align correlate`, and errors of its p-values.

Networks are drawn anew: `n_objectives` objectives, whose offsets shift both quantities,
times `n_weights` values of λ, which may drive both quantities, too. Print the tables:

    python -m benchmarks.coverage.correlation
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.metrics.correlation import Association, correlate

__all__ = ["CAUSES", "DESIGNS", "NOISES", "Design", "draw", "simulate"]

FloatArray = NDArray[np.float64]
Noise = Callable[[np.random.Generator, int], FloatArray]

#: The paper's values of λ.
WEIGHTS = (0.0, 0.001, 0.1, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Design:
    """How many networks there are."""

    n_objectives: int
    n_weights: int

    @property
    def objectives(self) -> NDArray[np.intp]:
        """Objective of each network."""
        return np.repeat(np.arange(self.n_objectives), self.n_weights)

    @property
    def weights(self) -> FloatArray:
        """λ of each network, evenly spaced but in the paper's design."""
        n = self.n_weights
        values = WEIGHTS if n == len(WEIGHTS) else np.linspace(0, 0.5, n)
        return np.tile(np.asarray(values), self.n_objectives)

    def __str__(self) -> str:
        return f"{self.n_objectives} × {self.n_weights}"


DESIGNS = (Design(3, 7), Design(3, 3), Design(2, 5), Design(1, 8), Design(1, 6))


def _heavy(rng: np.random.Generator, n: int) -> FloatArray:
    # One factor for both quantities: extreme networks are extreme in both.
    factor = np.sqrt(5 / rng.chisquare(5, n))
    return np.asarray(rng.normal(size=(2, n)) * factor)


#: Two independent quantities of n networks, without objective and λ.
NOISES: dict[str, Noise] = {
    "normal": lambda rng, n: rng.normal(size=(2, n)),
    "heavy tails": _heavy,
    "skewed": lambda rng, n: rng.exponential(size=(2, n)) - 1,
}

#: What λ does to both quantities, in standard deviations of the noise.
CAUSES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "none": lambda weights: 0 * weights,
    "linear": lambda weights: 4 * weights / 0.5,
    "saturating": lambda weights: 4 * (1 - np.exp(-weights / 0.1)),
    "threshold": lambda weights: 4.0 * (weights > 0.05),
    "hump": lambda weights: 16 * weights / 0.5 * (1 - weights / 0.5),
}


def draw(
    rng: np.random.Generator,
    design: Design,
    *,
    r: float = 0.0,
    noise: str = "normal",
    offset: float = 1.0,
    cause: str = "none",
    by_objective: bool = False,
) -> FloatArray:
    """Two quantities of every network, (2, n_networks).

    Parameters
    ----------
    r : correlation of both beyond objective and λ
    offset : standard deviation of the objectives' own, independent offsets
    cause : a key of `CAUSES`
    by_objective : whether objectives differ in how strongly λ drives each quantity
    """
    groups = design.objectives
    x, other = NOISES[noise](rng, len(groups))
    both = np.stack([x, r * x + np.sqrt(1 - r**2) * other])
    size = (2, design.n_objectives)
    strength = rng.uniform(0.3, 1.7, size) if by_objective else np.ones(size)
    moved = both + strength[:, groups] * CAUSES[cause](design.weights)
    return np.asarray(moved + offset * rng.normal(size=size)[:, groups])


def simulate(
    design: Design,
    n_repeats: int,
    rng: np.random.Generator,
    n_permutations: int = 1,
    **settings: object,
) -> Iterator[Association]:
    """What `correlate` says of `n_repeats` simulated sets of networks."""
    for _ in range(n_repeats):
        x, y = draw(rng, design, **settings)  # type: ignore[arg-type]
        yield from correlate(
            {"x": x},
            {"y": y},
            design.objectives,
            rng,
            covariate=design.weights,
            n_permutations=n_permutations,
        )


def _coverage(n_repeats: int, rng: np.random.Generator) -> None:
    print("| networks | noise | offsets sd | r | within | given λ |")
    print("|---|---|---:|---:|---:|---:|")
    for design in DESIGNS:
        for noise in NOISES:
            for r in (0.0, 0.4, 0.8):
                for offset in (0.5, 1.0, 3.0) if design.n_objectives > 1 else (1.0,):
                    settings: dict[str, Any] = {
                        "r": r,
                        "noise": noise,
                        "offset": offset,
                    }
                    found = list(simulate(design, n_repeats, rng, **settings))
                    shown = []
                    for name in ("within", "partial"):
                        parts = [getattr(one, name) for one in found]
                        hits = [part.low <= r <= part.high for part in parts]
                        defined = np.isfinite([part.low for part in parts]).all()
                        shown.append(f"{100 * np.mean(hits):.1f}" if defined else "–")
                    print(
                        f"| {design} | {noise} | {offset:g} | {r:g} | "
                        f"{' | '.join(shown)} |",
                        flush=True,
                    )


def _errors(n_repeats: int, rng: np.random.Generator) -> None:
    print("| networks | λ drives both | strength | p ≤ .05 | given λ: p ≤ .05 |")
    print("|---|---|---|---:|---:|")
    for design in DESIGNS:
        for cause in CAUSES:
            for by_objective in (False, True)[: design.n_objectives]:
                settings = {"cause": cause, "by_objective": by_objective}
                found = list(simulate(design, n_repeats, rng, 199, **settings))
                plain = np.mean([one.p <= 0.05 for one in found])
                shares = [one.partial.p <= 0.05 for one in found]
                given = f"{100 * np.mean(shares):.1f}" if found[0].given else "–"
                strength = "its own by objective" if by_objective else "equal"
                print(
                    f"| {design} | {cause} | {strength} | {100 * plain:.1f} | "
                    f"{given} |",
                    flush=True,
                )


def main(n_repeats: int = 2000) -> None:
    """Print both tables."""
    rng = np.random.default_rng(0)
    print("Coverage of 95 % intervals, in %\n")
    _coverage(n_repeats, rng)
    print("\nFalse positives where both only follow λ, in %\n")
    _errors(n_repeats, rng)


if __name__ == "__main__":
    main()
