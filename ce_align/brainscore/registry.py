"""The published networks and local runs in Brain-Score's registry of models.

Importing this module registers all of them. Nothing is loaded before it is asked for:

>>> import ce_align.brainscore.registry  # doctest: +SKIP
>>> from brainscore_vision import model_registry  # doctest: +SKIP
>>> model = model_registry["ce_barlow_l0.2"]()  # doctest: +SKIP
"""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ce_align.brainscore.models import brain_model
from ce_align.brainscore.upstream import import_brainscore
from ce_align.digests import digest_bytes
from ce_align.errors import DataError
from ce_align.files import atomic_path, cache_folder, read_text
from ce_align.models.catalogue import EXPORTED, PUBLISHED, find_published, local_file

if TYPE_CHECKING:
    from ce_align.models.networks import Network

__all__ = ["at_hand", "register_all", "register_name", "register_network"]

#: Folder that trainings go to unless another is named.
RUNS = Path("runs")


def at_hand() -> dict[str, Path]:
    """Published networks and runs whose weights are on this machine, by name."""
    published = {name: local_file(entry) for name, entry in PUBLISHED.items()}
    exported = (p for p in sorted(RUNS.rglob(EXPORTED)) if p.parent.name != "hf")
    runs = {path.parent.as_posix(): path for path in exported}
    return {name: path for name, path in published.items() if path} | runs


def register_all() -> list[str]:
    """Register every published network and every run below ``runs``, without loading.

    Each is there by its name; one that was loaded before and whose file has not changed
    is there by its identifier too, which ends in the digest of the weights.

    Returns
    -------
    names : keys of Brain-Score's registry
    """
    registry = import_brainscore().model_registry
    files = at_hand()
    names = list(dict.fromkeys([*PUBLISHED, *files]))
    for name in list(names):
        registry[name] = partial(_load, name)
        known = _known_identifier(files[name]) if name in files else None
        if known:
            registry[known] = partial(_load, name, expected=known)
            names.append(known)
    return names


def register_name(name: str) -> str:
    """Load a network by any name, register it, and return its identifier there."""
    return str(_load(name).identifier)


def register_network(network: "Network", **settings: Any) -> str:
    """Add a network to Brain-Score's registry, and return its identifier there.

    The settings are those of `ce_align.brainscore.models.brain_model`.
    """
    model = brain_model(network, **settings)
    identifier = str(model.identifier)
    import_brainscore().model_registry[identifier] = lambda: model
    return identifier


def _load(name: str, expected: str | None = None) -> Any:
    """Brain model of a name, which then is in the registry by its identifier."""
    from ce_align.models.load import load_network

    model = brain_model(load_network(name))
    identifier = str(model.identifier)
    if expected not in (None, identifier):
        raise DataError(
            f"the weights of {name} have changed: {expected} is now {identifier}"
        )
    import_brainscore().model_registry[identifier] = partial(
        _load, name, expected=identifier
    )
    entry = find_published(name)
    path = local_file(entry) if entry else Path(name) / EXPORTED
    if path is not None and path.is_file():
        with atomic_path(_note_of(path)) as temporary:
            temporary.write_text(json.dumps([*_state_of(path), identifier]))
    return model


def _known_identifier(path: Path) -> str | None:
    """Identifier of a network whose file has not changed since it was loaded."""
    try:
        *state, identifier = json.loads(read_text(_note_of(path)))
    except (OSError, ValueError):
        return None
    return str(identifier) if state == _state_of(path) else None


def _note_of(path: Path) -> Path:
    key = digest_bytes(str(path.resolve()).encode())
    return cache_folder("brainscore") / "identifiers" / f"{key}.json"


def _state_of(path: Path) -> list[int]:
    """What changes when a file is written again, without reading it."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


register_all()
