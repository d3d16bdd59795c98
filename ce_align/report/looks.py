"""Colours of single networks."""

from collections.abc import Sequence

from ce_align.report.selection import describe
from ce_align.report.style import objective_colour, objective_order, shade

__all__ = ["network_colours"]


def network_colours(models: Sequence[str]) -> list[tuple[float, float, float]]:
    """A colour for each network, in their order.

    Shades of the objective's colour, darker for larger λ, if that tells all networks
    apart; else as many steps from blue to green.
    """
    import matplotlib

    about = [describe(model) for model in models]
    looks = {(a["objective"], a["weight"]) for a in about}
    unknown = any(a["objective"] is None or a["weight"] is None for a in about)
    if unknown or len(looks) < len(models):
        # The yellow end is too pale for a line.
        cmap = matplotlib.colormaps["viridis"]
        steps = [0.9 * k / max(len(models) - 1, 1) for k in range(len(models))]
        return [cmap(step)[:3] for step in steps]
    among = objective_order(a["objective"] for a in about)
    weights = sorted({a["weight"] for a in about})
    # The lightest shade is too pale, too.
    return [
        shade(
            objective_colour(a["objective"], among),
            weights.index(a["weight"]) + 1,
            len(weights) + 1,
        )
        for a in about
    ]
