"""What the store knows of networks, as long as they answer as they did."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ce_align.config import ConfigId, StageConfig
from ce_align.progress import Notify
from ce_align.results import ResultStore, Row

if TYPE_CHECKING:
    import xarray as xr

    from ce_align.models.networks import Behaviour, Network, Probe

__all__ = ["Probed", "probed", "recall", "remember"]

RowType = TypeVar("RowType", bound=Row)


class Probed(NamedTuple):
    """A network's layer with what it answers at the moment.

    Attributes
    ----------
    name : of the network
    layer : its layer
    probe : what the network has just said of itself
    """

    name: str
    layer: str
    probe: "Probe"

    @property
    def behaviour(self) -> "Behaviour | None":
        """What it is known by; None if nothing that is stored of it can be used."""
        return self.probe.behaviour(self.layer)


def probed(network: "Network", layer: str, *, allow_unstable: bool = False) -> Probed:
    """One layer of a network, asked for its answers.

    Raises
    ------
    ConfigError
        If there is no such layer.
    DataError
        If it cannot be measured: its code fails, its output has no row an image, its
        answers are random or depend on the batch (unless `allow_unstable`).
    """
    probe = network.probe([layer], allow_unstable=allow_unstable)
    if layer in probe.failures:
        raise probe.failures[layer]
    return Probed(network.name, layer, probe)


def recall(
    store: ResultStore,
    stage: str,
    config: StageConfig,
    config_id: ConfigId,
    row_type: type[RowType],
    networks: Sequence[Probed],
    notify: Notify,
) -> list[RowType] | None:
    """Rows of a configuration whose networks still answer as they did, or None.

    A network that has another name now, as after its folder was renamed, has the rows
    that it had; they are stored under the new name, too.

    Parameters
    ----------
    store, stage, config, config_id, row_type : which rows
    networks : all that the rows depend on, in the same order as for `remember`
    notify : told of a network that answers otherwise now
    """
    from ce_align.models.networks import Behaviour

    now = [network.behaviour for network in networks]
    if None in now:
        return None
    source: str = config_id
    rows = store.get(stage, source, row_type)
    if rows is None:
        source = store.namesake(stage, config_id.nameless) or config_id
        rows = store.get(stage, source, row_type)
    if rows is None:
        return None
    stored = store.behaviours(stage, source)
    then = [Behaviour.read(document) for document in stored]
    for network, behaviour, known in zip(networks, now, then, strict=False):
        if behaviour is None or known is None or not known.agrees(behaviour):
            notify(
                f"{network.name} {network.layer} answers otherwise than when its "
                f"{stage} rows were stored; they are computed again"
            )
            return None
    if len(then) != len(now):
        return None
    if source != config_id:
        rows = [_renamed(row, config, config_id) for row in rows]
        arrays = (
            store.arrays(stage, source) if store.has_arrays(stage, source) else None
        )
        remember(store, stage, config, config_id, rows, networks, arrays)
    return rows


def _renamed(row: RowType, config: StageConfig, config_id: str) -> RowType:
    """A row with the names that its networks have in a configuration."""
    names = config.model_dump()
    found = {
        "config_id": config_id,
        "model": names.get("model") or names.get("model_a") or row.model,
        "other": names.get("model_b"),
        "baseline": names.get("baseline"),
    }
    return row.model_copy(
        update={k: v for k, v in found.items() if getattr(row, k, None) is not None}
    )


def remember(
    store: ResultStore,
    stage: str,
    config: StageConfig,
    config_id: ConfigId,
    rows: Sequence[Row],
    networks: Sequence[Probed],
    arrays: "xr.Dataset | None" = None,
) -> None:
    """Store rows with what their networks answer."""
    behaviours = [network.behaviour for network in networks]
    store.put(
        stage,
        config_id,
        config,
        rows,
        arrays,
        behaviours=[None if b is None else b.document() for b in behaviours],
        nameless=config_id.nameless,
    )
