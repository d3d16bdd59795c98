"""Where a network stands between one that learnt nothing and another brain."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from ce_align.names import BRAIN, network_behind

__all__ = ["Standing", "beside_others", "standings"]

#: What scores agree in that differ only in what predicts, and its layer.
SAME = ("region", "regression", "n_splits", "seed", "time_start", "time_end")


class Standing(NamedTuple):
    """A score beside what its network's architecture and another brain give.

    Attributes
    ----------
    nulls : raw r of each network of random weights, of the same layer and neuroids
    brains : raw r of each animal that the others predict; empty unless all are there
    share : (r − null) / (brain − null) of the means; None unless both are there and
        brain > null
    """

    nulls: Sequence[float] = ()
    brains: Sequence[float] = ()
    share: float | None = None


def standings(records: Sequence[Mapping[Any, Any]]) -> list[Standing]:
    """Where each of the rows of scores stands among them.

    The brain is predicted animal by animal: beside it stands an animal's row, or that
    of the mean over animals, never that of all neuroids together.
    """
    nulls: dict[tuple[Any, ...], dict[str, float]] = {}
    brains: dict[tuple[Any, ...], float] = {}
    animals: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    # Of an untrained network that was scored again, the latest counts.
    for record in sorted(records, key=lambda record: str(record.get("created"))):
        settings = _settings(record)
        if behind := network_behind(record["model"]):
            seeds = nulls.setdefault((behind, *_part(record)), {})
            seeds[record["model"]] = record["raw"]
        if record["model"].startswith(BRAIN):
            brains[settings] = record["raw"]
        elif _known(record, "animal") not in (None, "mean"):
            whole = (record["model"], *_part(record)[1:])
            animals.setdefault(whole, []).append(settings)
    found = []
    for record in records:
        own = list(nulls.get((record["model"], *_part(record)), {}).values())
        of = [_settings(record)]
        if record.get("animal") == "mean":
            of = animals.get((record["model"], *_part(record)[1:]), [])
        others = [brains[one] for one in of if one in brains]
        if record["model"].startswith(BRAIN) or len(others) < len(of):
            others = []
        share = None
        if own and others and mean(others) > mean(own):
            share = (record["raw"] - mean(own)) / (mean(others) - mean(own))
        found.append(Standing(own, others, share))
    return found


def beside_others(
    records: Sequence[Mapping[Any, Any]],
) -> tuple[list[Mapping[Any, Any]], list[str]]:
    """Scores as a table shows them between others, and what these columns are."""
    known, notes = standings(records), []
    found: list[Mapping[Any, Any]] = []
    for record, of in zip(records, known, strict=True):
        untrained = f"{mean(of.nulls):.4f}" if of.nulls else None
        if len(of.nulls) > 1:
            untrained = f"{untrained} ± {stdev(of.nulls):.4f}"
        brain = mean(of.brains) if of.brains else None
        found.append(
            {**record, "untrained": untrained, "brain": brain, "share": of.share}
        )
    if n := "/".join(map(str, sorted({len(of.nulls) for of in known} - {0}))):
        notes.append(
            f"untrained: mean ± sd of the same layer with random weights (n = {n})"
        )
    if any(of.brains for of in known):
        notes.append(
            "brain: an animal predicted by the others; a mean is of all animals"
        )
    if any(of.share is not None for of in known):
        notes.append("to the brain: (raw r − untrained) / (brain − untrained)")
    return found, notes


def _known(record: Mapping[Any, Any], name: str) -> Any:
    """A cell; None where a table has none."""
    value = record.get(name)
    return None if value != value else value


def _settings(record: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Responses and settings, which the brain's score shares."""
    return tuple(_known(record, name) for name in ("recording_digest", *SAME))


def _part(record: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Neuroids, layer and settings, which an untrained network's score shares."""
    names = ("animal", "recording", "layer", *SAME)
    return tuple(_known(record, name) for name in names)
