"""What numbers of networks are called, and where tables and figures show them."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple

from ce_align.errors import ConfigError

__all__ = ["Panel", "Place", "Quantity", "check_new", "quantities"]

Place = Literal["table", "forest", "rows"]


class Panel(NamedTuple):
    """Where numbers of one kind stand side by side in a figure."""

    title: str
    axis: str


@dataclass(frozen=True)
class Quantity:
    """A number of networks, which rows name in their column ``metric``.

    Attributes
    ----------
    name : in rows
    title : in tables and figures
    least, most : bounds of its values
    place : ``table`` for Table 1 and the forest of correlations, ``forest`` for that
        alone, ``rows`` for what stands in the rows only; there may be too many
    tested : whether it is correlated with predictivity; a floor, which is no property
        of a network, is not
    panel, label : where figures of measures draw it, None for nowhere, and what it is
        called there, if not by its title
    """

    name: str
    title: str
    least: float = -inf
    most: float = inf
    place: Place = "forest"
    panel: Panel | None = None
    label: str = ""
    tested: bool = True

    @property
    def beside_mark(self) -> str:
        """What it is called beside its mark in a figure."""
        return self.label or self.title[0].lower() + self.title[1:]


def quantities() -> dict[str, Quantity]:
    """Numbers of all measures and similarities, by the name that rows have."""
    from ce_align.stages.measures import MEASURES
    from ce_align.stages.similarities import SIMILARITIES

    measured = [one for measure in MEASURES.values() for one in measure.quantities]
    similar = [one.quantity for one in SIMILARITIES.values()]
    return {one.name: one for one in (*measured, *similar)}


def check_new(added: Iterable[Quantity]) -> None:
    """Raise ConfigError if numbers have a name that others have."""
    known = quantities()
    for one in added:
        if one.name in known:
            raise ConfigError(
                f"another measure has numbers called {one.name!r}; choose another name"
            )
