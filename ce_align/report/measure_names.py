"""What measures are called in figures and sentences."""

from ce_align.report.differences import COMPARISON_TITLES

__all__ = ["measure_name"]

#: What follows the name of a comparison.
ADDITIONS = {
    "": "",
    "_excess": ", excess",
    "_floor": ", floor",
    "_delta": ", Δ",
    "_excess_delta": ", excess, Δ",
}
#: Methods of decoding, and parts of it that are no parameter.
METHODS = {"decoding_ridge": "ridge", "decoding_ols": "OLS"}
PARTS = {
    "": "Parameter decoding",
    "_weak": "Decoding, weak views",
    "_strong_only": "Decoding, strong views",
    "_within_weak": "Decoding, within weak",
}


def measure_name(metric: str) -> str:
    """A measure as a person calls it; its own name with spaces if it has no other.

    >>> measure_name("decoding_ridge_hue")
    'Hue decoding (ridge)'
    >>> measure_name("class_class_excess")
    'Class–class, excess'
    """
    for comparison, title in COMPARISON_TITLES.items():
        rest = metric.removeprefix(comparison)
        if rest != metric and rest in ADDITIONS:
            return title + ADDITIONS[rest]
    for method, name in METHODS.items():
        rest = metric.removeprefix(method)
        if rest != metric:
            own = f"{rest.strip('_').replace('_', ' ').capitalize()} decoding"
            return f"{PARTS.get(rest, own)} ({name})"
    return metric.replace("_", " ").capitalize()
