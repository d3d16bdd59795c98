"""The published networks and the names by which commands find networks."""

import fnmatch
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ce_align.checks import nearest_names
from ce_align.errors import ConfigError
from ce_align.files import cache_folder
from ce_align.names import (
    BRAIN,
    FEATURES,
    HUB,
    KNOWN,
    LOCAL_HUB,
    REFERENCES,
    UNTRAINED,
    network_behind,
    split_name,
)
from ce_align.results import NetworkFacts

__all__ = [
    *("CHECKPOINTS_URL", "EQUIVARIANCE_WEIGHTS", "EXPORTED"),
    *("FILE_SUFFIXES", "GROUPS", "OBJECTIVE_NAMES", "PAPER_IMAGES", "PUBLISHED"),
    *("Published", "expand", "facts_of", "find_published", "invariant_sibling"),
    *("OBJECTIVE_LABELS", "is_cached", "label_of", "local_file", "stated_settings"),
    *("trained_label", "training_facts"),
]

#: Where the authors keep their checkpoints; ``$CE_ALIGN_CHECKPOINTS_URL`` replaces it.
CHECKPOINTS_URL = (
    "https://users.flatironinstitute.org/~tyerxa/equi_proj/training_checkpoints/"
    "final/resnet_50"
)

#: What the paper calls the objectives.
OBJECTIVE_LABELS = {
    "mmcr": "MMCR",
    "barlow": "Barlow Twins",
    "simclr": "SimCLR",
    "augself": "AugSelf",
    "equimod": "EquiMod",
}

#: How the authors and Brain-Score spell the objectives.
OBJECTIVE_NAMES = {"mmcr": "MMCR", "barlow": "Barlow", "simclr": "SimCLR"}

#: The equivariance weights λ: ours and the authors' spelling, and Brain-Score's.
EQUIVARIANCE_WEIGHTS = {
    "0": ("0.0", "00"),
    "0.001": ("0.001", "0001"),
    "0.1": ("0.1", "01"),
    "0.2": ("0.2", "02"),
    "0.3": ("0.3", "03"),
    "0.4": ("0.4", "04"),
    "0.5": ("0.5", "05"),
}

#: Settings that a file of somebody else states: most characters, and largest number.
LONGEST, LARGEST = 400, 1e15

#: The authors' submissions commit the last stage of the backbone to every region.
LAYERS = dict.fromkeys(("V1", "V2", "V4", "IT"), "layer4")

#: What the authors trained their networks on.
PAPER_IMAGES = "ImageNet-1k"
#: And for how long, but the one that it calls its best.
PAPER_EPOCHS = 100

#: Weights in the folder of a training, whose path names the network.
EXPORTED = "model.safetensors"

#: Names of files and folders of weights that say nothing of them.
NAMELESS = (
    *("best", "checkpoint", "checkpoints", "final", "last", "model", "pytorch_model"),
    *("state_dict", "weights"),
)

#: Files that can hold a network, or the Python that builds one.
WEIGHTS = (".safetensors", ".pt", ".pth", ".th", ".ckpt", ".bin", ".tar")
FILE_SUFFIXES = (*WEIGHTS, ".py")


@dataclass(frozen=True)
class Published:
    """A network that the authors published.

    Attributes
    ----------
    name : name in ce_align
    objective : ``mmcr``, ``barlow`` or ``simclr``
    equivariance_weight : λ, the share of the equivariant loss
    epochs : of training on ImageNet-1k
    path : below the address of the authors' checkpoints
    brainscore_id : name in Brain-Score's registry, if it is there
    architecture : in torchvision's naming
    layers : layer committed to each region
    """

    name: str
    objective: str
    equivariance_weight: float
    epochs: int
    path: str
    brainscore_id: str | None
    architecture: str = "resnet50"
    layers: Mapping[str, str] = field(default_factory=lambda: LAYERS)

    @property
    def label(self) -> str:
        """Its name in the paper."""
        label = trained_label(self.objective, self.equivariance_weight)
        longer = self.epochs != PAPER_EPOCHS
        return f"{label}, {self.epochs} epochs" if longer else label

    @property
    def facts(self) -> NetworkFacts:
        """What rows of it say; the authors do not state a seed."""
        return NetworkFacts(
            self.objective,
            self.equivariance_weight,
            self.architecture,
            self.epochs,
            PAPER_IMAGES,
            "strong",
        )

    def address(self, base: str | None = None) -> str:
        """Address of the checkpoint.

        Parameters
        ----------
        base : of a mirror with the authors' folders; None for
            ``$CE_ALIGN_CHECKPOINTS_URL``, or else the authors' own

        Raises
        ------
        ConfigError
            If `base` is no address on the web.
        """
        base = base or os.environ.get("CE_ALIGN_CHECKPOINTS_URL") or CHECKPOINTS_URL
        if not base.startswith(("https://", "http://")):
            raise ConfigError(
                f"expected an address that begins with https://, found {base!r}"
            )
        return f"{base.rstrip('/')}/{self.path}"


def _entries() -> Iterable[Published]:
    for objective, authors_name in OBJECTIVE_NAMES.items():
        for weight, (authors_weight, suffix) in EQUIVARIANCE_WEIGHTS.items():
            yield Published(
                name=f"ce_{objective}_l{weight}",
                objective=objective,
                equivariance_weight=float(weight),
                epochs=PAPER_EPOCHS,
                path=f"{authors_name}/lmda_{authors_weight}/ep100-ba62500-rank0",
                brainscore_id=f"CE-{authors_name}_lmda_{suffix}",
            )
    yield Published(
        name="ce_barlow_l0.2_ep1000",
        objective="barlow",
        equivariance_weight=0.2,
        epochs=1000,
        path="Barlow/1000_epoch/ep1000-ba625000-rank0",
        brainscore_id=None,
    )


#: Every published network by name: the paper's 21, and its best, Barlow Twins at
#: λ = 0.2, which was trained for 1000 epochs and is not in Brain-Score.
PUBLISHED: dict[str, Published] = {entry.name: entry for entry in _entries()}

_BY_BRAINSCORE_ID = {
    entry.brainscore_id: entry for entry in PUBLISHED.values() if entry.brainscore_id
}

KNOWN["network"].update(PUBLISHED, _BY_BRAINSCORE_ID, REFERENCES)

#: Named sets of networks: ``paper`` is its 21, 3 objectives × 7 weights.
GROUPS: dict[str, tuple[str, ...]] = {
    "paper": tuple(
        entry.name for entry in PUBLISHED.values() if entry.epochs == PAPER_EPOCHS
    ),
}


def invariant_sibling(model: str) -> str | None:
    """Published network of the same objective at weight 0, if it is another one."""
    entry = find_published(model)
    if entry is None or entry.equivariance_weight == 0:
        return None
    return f"ce_{entry.objective}_l0"


def find_published(name: str) -> Published | None:
    """The published network called `name` here or in Brain-Score, if there is one."""
    return PUBLISHED.get(name) or _BY_BRAINSCORE_ID.get(name)


def training_facts(settings: Mapping[str, Any]) -> NetworkFacts:
    """Facts of a network that was trained here, from the settings of its training.

    >>> families = ("weak_a", "weak_b")
    >>> training_facts({"objective": "mmcr", "families": families}).augmentation
    'weak'
    """

    def told(name: str, kind: type) -> Any:
        # Files of others may have settings of other kinds, and of any length.
        value = settings.get(name)
        if kind is str:
            return value if isinstance(value, str) and len(value) <= LONGEST else None
        known = isinstance(value, int | float) and abs(value) < LARGEST
        return kind(value) if known else None

    families, weighting = settings.get("families"), settings.get("weighting")
    names = families if isinstance(families, list | tuple) else ()
    kinds = dict.fromkeys(
        str(name)[:LONGEST].removesuffix(f"_{x}")
        for name, x in zip(names, "ab", strict=False)
    )
    return NetworkFacts(
        objective=told("objective", str),
        equivariance_weight=told("equivariance_weight", float),
        backbone=told("backbone", str),
        epochs=told("epochs", int),
        pretraining=told("images", str),
        augmentation="+".join(kinds) or None,
        network_seed=told("seed", int),
        weighting=weighting if weighting in ("gradients", "drawn") else None,
    )


def stated_settings(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a training in the metadata of its weights; else nothing."""
    try:
        config = json.loads(metadata.get("config", "{}"))
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def trained_label(objective: str, equivariance_weight: float) -> str:
    """What a network is called by its training.

    >>> trained_label("barlow", 0.3)
    'Barlow Twins, λ = 0.3'
    """
    name = OBJECTIVE_LABELS.get(objective, objective)
    return f"{name}, λ = {equivariance_weight:g}"


def label_of(name: str) -> str:
    """Short name of a network that was given none.

    A published one has the paper's, a training its folder's, weights that of their file
    unless it says nothing; of all others it is what ends their names.

    >>> [label_of(name) for name in ("ce_mmcr_l0.1", "runs/a", "runs/a/last.ckpt")]
    ['MMCR, λ = 0.1', 'a', 'a']
    >>> label_of("torchvision/resnet18:none"), label_of("nets.py:build@visual")
    ('resnet18:none', 'nets.py:build@visual')
    """
    entry = find_published(name)
    if entry is not None:
        return entry.label
    if name.startswith(BRAIN):
        return f"other animals than {name.rpartition(':')[2]}"
    if behind := network_behind(name):
        seed = name.removeprefix(UNTRAINED).partition(":")[0]
        return f"{label_of(behind)}, untrained {seed}"
    asked = split_name(name)
    source = asked.source
    for prefix in (HUB, LOCAL_HUB, FEATURES):
        source = source.removeprefix(prefix)
    path, _, option = source.partition(":")
    if path in (".", ".."):
        path = str(Path(path).resolve())
    *folders, last = path.rstrip("/").split("/")
    if path.endswith(WEIGHTS) or asked.source.startswith(FEATURES):
        last, option = last.rpartition(".")[0] or last, ""
        while last in NAMELESS and folders:
            last = folders.pop()
    if option:
        last += f":{option}"
    return f"{last}@{asked.part}" if asked.part else last


def facts_of(name: str) -> NetworkFacts:
    """Facts of a published network, or of a training by its folder or weights."""
    return replace(_training_of(name), label=label_of(name))


def _training_of(name: str) -> NetworkFacts:
    entry = find_published(name)
    if entry is not None:
        return entry.facts
    path = Path(name)
    weights = path if path.suffix == ".safetensors" else path / EXPORTED
    if not weights.is_file():
        return NetworkFacts()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as file:
            return training_facts(stated_settings(file.metadata() or {}))
    except (OSError, SafetensorError):
        return NetworkFacts()


def local_file(entry: Published) -> Path | None:
    """File of a published network on this machine, or None.

    Converted weights, ``<name>.safetensors``, come before the authors' file placed by
    hand, ``<name>.pt``.
    """
    for suffix in (".safetensors", ".pt"):
        path = cache_folder("checkpoints") / f"{entry.name}{suffix}"
        if path.is_file():
            return path
    return None


def is_cached(entry: Published) -> bool:
    """Whether a published network is on this machine, so that nothing is downloaded."""
    return local_file(entry) is not None


def _is_source(name: str) -> bool:
    """Whether a name says itself where its network comes from."""
    name = split_name(name).source
    file = name.rpartition(":")[0] or name
    if name.startswith((HUB, LOCAL_HUB, FEATURES)):
        return True
    return name in REFERENCES or "/" in name or file.endswith(FILE_SUFFIXES)


def expand(patterns: Iterable[str]) -> list[str]:
    """Names of networks from names, groups, globs and Brain-Score identifiers.

    Parameters
    ----------
    patterns
        ``paper``, ``ce_mmcr_*``, ``ce_barlow_l0.2``, ``CE-Barlow_lmda_02``; names of
        other sources, such as ``torchvision/resnet50``, stay as they are.

    Returns
    -------
    names : in the order asked for, each once

    Raises
    ------
    ConfigError
        If a name or pattern means no network; it lists the nearest names.

    >>> expand(["ce_mmcr_l0.[12]", "CE-MMCR_lmda_02", "torchvision/resnet50"])
    ['ce_mmcr_l0.1', 'ce_mmcr_l0.2', 'torchvision/resnet50']
    """
    names: dict[str, None] = {}
    for pattern in patterns:
        names.update(dict.fromkeys(_expand_one(pattern)))
    return list(names)


def _expand_one(pattern: str) -> list[str]:
    if pattern in GROUPS:
        return list(GROUPS[pattern])
    entry = find_published(pattern)
    if entry is not None:
        return [entry.name]
    if _is_source(pattern):
        return [pattern]
    matching = [
        entry.name
        for entry in PUBLISHED.values()
        if fnmatch.fnmatchcase(entry.name, pattern)
        or fnmatch.fnmatchcase(entry.brainscore_id or "", pattern)
    ]
    if not matching:
        known = [*GROUPS, *PUBLISHED, *_BY_BRAINSCORE_ID, *REFERENCES]
        near = ", ".join(nearest_names(pattern, known))
        hint = f"nearest: {near}" if near else "`ce-align models` lists all"
        raise ConfigError(
            f"no network is called {pattern!r}; {hint} (other sources: "
            "torchvision/NAME, timm/NAME, a checkpoint, file.py:callable)"
        )
    return matching
