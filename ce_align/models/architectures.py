"""Networks by the names of their architectures, and weights fitted into them.

Architectures are torchvision's, the tiny one of our own, and two embedded controls
without weights to download.
"""

import logging
import math
import re
import sys
from collections import Counter, OrderedDict
from collections.abc import Mapping
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from ce_align.checks import named_some, nearest_names
from ce_align.errors import AccessError, ConfigError, DataError
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.names import OWN_BACKBONES
from ce_align.progress import Notify

__all__ = [
    "GaborEnergy",
    "NormalisedEnergy",
    "build_architecture",
    "fitting_architecture",
    "gabor",
    "imported_timm",
    "pixels",
    "stage_layers",
    "timm_network",
    "torchvision_network",
    "torchvision_weights",
    "v1_like",
]

#: Names that tell which of two networks is usually evaluated, and what its sibling has
#: in its place; nothing stands for no mark. Teachers are those of self-distillation
#: (DINO), q and k those of MoCo, online and target those of BYOL; running averages
#: (EMA) are what timm loads.
USUAL = (
    *(("teacher", "student"), ("ema", ""), ("q", "k"), ("query", "key")),
    *(("online", "target"), ("base", "momentum"), ("", "momentum"), ("", "mom")),
    ("", "target"),
)

#: Words in the names of what trainers keep beside a backbone in the same module.
TRAINERS = {
    *("projection", "projector", "proj", "predictor", "prediction", "prototypes"),
    *("head", "heads", "classifier", "linear", "queue", "center", "temperature"),
}

#: End of the names of counters of batch norms.
COUNTER = "num_batches_tracked"

_log = logging.getLogger(__name__)

#: Residual networks that laboratories train most, by size.
RESIDUAL = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

#: Parameters of a network that is only built where its weights are there (400 MB).
GIANT = 10**8

#: Stages of a residual network by depth. A convention, not a fitted commitment.
STAGES = {"V1": "layer1", "V2": "layer2", "V4": "layer3", "IT": "layer4"}


def stage_layers(module: torch.nn.Module) -> dict[str, str]:
    """Layer of each region in a residual network of four stages; none in others."""
    names = dict(module.named_children())
    return dict(STAGES) if set(STAGES.values()) <= names.keys() else {}


def _check_name(name: str) -> None:
    from ce_align.vision import models

    known = models.list_models(module=models)
    if name not in known:
        near = nearest_names(name, known) or known
        raise ConfigError(
            f"torchvision has no network {name!r}; nearest: {named_some(near)}"
        )


def torchvision_weights(name: str, weights: str = "DEFAULT") -> Any:
    """Torchvision's description of published weights: address, size, normalisation.

    Raises
    ------
    ConfigError
        If there is no such network, or it has no such weights; with the nearest.
    """
    from ce_align.vision import models

    _check_name(name)
    published = models.get_model_weights(name)
    if weights not in published.__members__:
        known = [*published.__members__, "none"]
        raise ConfigError(
            f"torchvision has no weights {weights!r} for {name}; choose from "
            f"{', '.join(known)}"
        )
    return published[weights]


def torchvision_network(
    name: str, n_classes: int | None = None, *, weights: Any = None, seed: int = 0
) -> torch.nn.Module:
    """Network of torchvision in evaluation mode.

    It has the given number of classes or that of its weights, which are from
    :func:`torchvision_weights` or random; the global generator is left as it was.

    Raises
    ------
    ConfigError
        If torchvision has no such network; with the nearest names.
    AccessError
        If the weights are not on this machine and cannot be downloaded.
    """
    from ce_align.vision import models

    _check_name(name)
    options: dict[str, Any] = {} if n_classes is None else {"num_classes": n_classes}
    if weights is not None:
        options["progress"] = sys.stderr.isatty()
    elif name in ("googlenet", "inception_v3"):
        options["init_weights"] = True  # otherwise they warn and do the same
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = models.get_model(name, weights=weights, **options)
        except (OSError, RuntimeError) as error:
            if weights is None:
                raise
            raise AccessError(
                f"the weights of torchvision/{name} are not on this machine and "
                f"cannot be downloaded from {weights.url}: {error}; use "
                f"torchvision/{name}:none for random ones"
            ) from error
    return cast(torch.nn.Module, network.eval())


def build_architecture(
    architecture: str,
    state: Mapping[str, torch.Tensor],
    what: str,
    choice: str = "",
    notify: Notify = _log.warning,
) -> torch.nn.Module:
    """Network with the given weights, for evaluation.

    The architecture is torchvision's, ``timm/NAME``, or one of `OWN_BACKBONES`.

    A prefix of the keys that a trainer added (``module.``, ``backbone.``) is found by
    comparison with the architecture, and what lies beside it is left out. Of several
    networks that fit, `choice` (such as ``teacher``) names one; without it the one that
    is usually evaluated is taken (:data:`USUAL`), which is said.

    The classifier takes the number of classes of the weights. It becomes the identity
    where they have none, as after self-supervised training, or where they are those of
    another head, such as a projector, which is said in the log.

    Raises
    ------
    ConfigError
        If torchvision has no such architecture, or `choice` names no network.
    DataError
        If any other weight of `what` is missing, left over or of another shape; or if
        several networks fit and none of them is the usual one.
    """
    _check_size(architecture, state, what)
    network = _random_network(architecture)
    *_, (head, _) = network.named_children()
    own = network.state_dict()
    body = [k for k in own if not k.startswith(f"{head}.") and not k.endswith(COUNTER)]
    prefixes = _fitting(state, own, body)
    prefix, choices = _chosen(_distinct(prefixes, state, body), what, choice)
    if choices:
        notify(
            f"{what} holds several networks: that below {_named(prefix)} is taken, as "
            f"is usual ({choices})"
        )
    inner = tuple(p for p in prefixes if p != prefix and p.startswith(prefix))
    fitting = {
        key.removeprefix(prefix): values
        for key, values in state.items()
        if key.startswith(prefix) and not key.startswith(inner)
    }
    # Without what trainers keep in the same module: projectors, queues.
    parts = {key.partition(".")[0] for key in own} | {head}
    fitting = {
        key: values
        for key, values in fitting.items()
        if (first := key.partition(".")[0]) in parts or not TRAINERS & _words(first)
    }
    heads = [key for key in fitting if key.startswith(f"{head}.")]
    head_weights = [key for key in own if key.startswith(f"{head}.")]
    if heads and head_weights and head_weights[-1] in fitting:
        last = fitting[head_weights[-1]]
        if last.ndim and last.shape[0] not in (0, own[head_weights[-1]].shape[0]):
            network = _random_network(architecture, last.shape[0])
    expected = network.state_dict()
    if {key: fitting[key].shape for key in heads} != {
        key: expected[key].shape for key in head_weights
    }:
        if heads:
            _log.warning(
                "%s: its weights below %s (%s) are not those of %s: they are left out",
                *(what, head, named_some(heads), architecture),
            )
        setattr(network, head, torch.nn.Identity())
        fitting = {key: v for key, v in fitting.items() if key not in heads}
        expected = network.state_dict()
    counters = [key for key in expected if key.endswith(COUNTER)]
    # Files from before torch 0.4.1 have no such counters, which inference ignores.
    fitting = {**{key: expected[key] for key in counters}, **fitting}
    _check_fit(expected, fitting, f"{architecture} ({what})")
    network.load_state_dict(fitting)
    return network.eval()


def fitting_architecture(state: Mapping[str, torch.Tensor]) -> str | None:
    """A residual network of torchvision with the shapes of these tensors, by its name.

    None if there is none; a smaller network is a part of a larger one, which is meant.
    """
    for name in reversed(RESIDUAL):
        with torch.device("meta"):
            own = torchvision_network(name).state_dict()
        body = [k for k in own if not k.startswith("fc.") and not k.endswith(COUNTER)]
        first, last = body[0], body[-1]
        for prefix in (key.removesuffix(first) for key in state if key.endswith(first)):
            if prefix + last in state and all(
                prefix + key in state and state[prefix + key].shape == own[key].shape
                for key in body
            ):
                return name
    return None


def _random_network(name: str, n_classes: int | None = None) -> torch.nn.Module:
    if name not in OWN_BACKBONES and not name.startswith("timm/"):
        return torchvision_network(name, n_classes)
    with torch.random.fork_rng(devices=[]):
        if name in OWN_BACKBONES:
            # It brings torchvision, and with it the compiler of torch.
            from ce_align.backbones import own_backbone

            return own_backbone(name, n_classes or 1000).eval()
        return timm_network(name.removeprefix("timm/"), n_classes).eval()


def imported_timm(what: str) -> ModuleType:
    """The package timm; ConfigError if it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise ConfigError(f"{what} needs timm: pip install 'ce-align[timm]'") from error
    package: ModuleType = timm
    return package


def timm_network(
    name: str, n_classes: int | None = None, *, pretrained: bool = False
) -> torch.nn.Module:
    """Network of timm; ConfigError with the nearest names if there is none."""
    timm = imported_timm(f"timm/{name}")
    if not timm.is_model(name.partition(".")[0]):
        near = nearest_names(name, timm.list_models())
        raise ConfigError(f"timm has no network {name!r}; nearest: {', '.join(near)}")
    options = {} if n_classes is None else {"num_classes": n_classes}
    found: torch.nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    return found


def _fitting(
    state: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    body: list[str],
) -> list[str]:
    """Prefixes below which the keys of `state` are those of the network."""
    found: Counter[str] = Counter()
    deepest = max(key.count(".") for key in own) + 1
    for key in state:
        parts = key.split(".")
        for start in range(max(0, len(parts) - deepest), len(parts)):
            if ".".join(parts[start:]) in own:
                found[".".join([*parts[:start], ""]) if start else ""] += 1
    whole = [
        prefix
        for prefix in sorted(found, key=len)
        if all(
            prefix + key in state and state[prefix + key].shape == own[key].shape
            for key in body
        )
    ]
    if not whole:
        # Those most like it, to say what does not fit.
        whole = [p for p, count in found.items() if count == max(found.values())]
    return whole


def _distinct(
    prefixes: list[str], state: Mapping[str, torch.Tensor], body: list[str]
) -> list[str]:
    """Prefixes of networks that differ: some files hold the same one twice."""

    def equal(one: str, other: str) -> bool:
        pairs = [(state.get(one + key), state.get(other + key)) for key in body]
        return all(
            a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b)
            for a, b in pairs
        )

    kept: list[str] = []
    for prefix in prefixes:
        if not any(equal(prefix, other) for other in kept):
            kept.append(prefix)
    return kept


def _chosen(prefixes: list[str], what: str, choice: str) -> tuple[str, str]:
    """One of several prefixes: by a part of its name, or the usual one.

    In the latter case the choices follow in words.
    """
    names = {prefix: _named(prefix) for prefix in prefixes}
    if choice:
        asked = choice.strip(".")
        top = [p for p in prefixes if not p and asked == "top"]
        exact = [p for p in prefixes if p == f"{asked}."]
        parts = [p for p in prefixes if f".{asked}." in f".{p}"]
        words = [p for p in prefixes if _words(asked) <= _words(p)]
        for matching in (top, exact, parts, words):
            if len(matching) == 1:
                return matching[0], ""
        raise ConfigError(
            f"{what} holds no single network called {choice!r}; it has weights below "
            f"{named_some(list(names.values())) if names else 'no name that fits'}"
        )
    if len(prefixes) < 2:
        return (prefixes or [""])[0], ""
    left = prefixes
    for wanted, other in USUAL:
        chosen = [p for p in left if (wanted or other) in _words(p)]
        beside = [p for p in left if p not in chosen]
        if not wanted:  # the network without a mark
            chosen, beside = beside, chosen
        elif other and not all(other in _words(p) for p in beside):
            continue
        if chosen and beside:
            left = chosen
    choices = ", ".join(f"@{name}" for name in names.values())
    if len(left) > 1:
        raise DataError(
            f"{what} holds several networks, below {named_some(list(names.values()))}; "
            f"choose one at the end of the name: {choices}"
        )
    return left[0], choices


def _named(prefix: str) -> str:
    return prefix.removesuffix(".") or "top"


def _words(name: str) -> set[str]:
    return set(re.split(r"[._]", name.lower()))


def _check_size(
    architecture: str, state: Mapping[str, torch.Tensor], what: str
) -> None:
    """Refuse a giant of torchvision for weights of another, before it takes memory."""
    if architecture in OWN_BACKBONES or architecture.startswith("timm/"):
        return
    from ce_align.vision import models

    _check_name(architecture)
    published = models.get_model_weights(architecture)
    needed = max((each.meta["num_params"] for each in published), default=0)
    n_given = sum(values.numel() for values in state.values())
    if needed > max(GIANT, 2 * n_given):
        raise DataError(
            f"the weights do not fit {architecture} ({what}): it has {needed:,} "
            f"parameters, they are {n_given:,} numbers"
        )


def _check_fit(
    expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], what: str
) -> None:
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    faults = (("missing", missing), ("left over", extra), ("of another shape", shapes))
    found = [f"{len(k)} {fault} ({named_some(k)})" for fault, k in faults if k]
    if found:
        raise DataError(f"the weights do not fit {what}: {'; '.join(found)}")


REGIONS = ("V1", "V2", "V4", "IT")


def _raw(input_size: int) -> Preprocessing:
    """Inputs in [0, 1], as these controls have no statistics to normalise with."""
    return Preprocessing(input_size=input_size, mean=(0, 0, 0), std=(1, 1, 1))


def pixels() -> Network:
    """The image itself: 32×32 pixels of red, green and blue."""
    module = nn.Sequential(OrderedDict(pixels=nn.Identity()))
    layers = dict.fromkeys(REGIONS, "pixels")
    return Network("pixels", module, _raw(32), layers)


def gabor_filters(
    size: int, wavelengths: tuple[float, ...], n_orientations: int
) -> torch.Tensor:
    """Gabor filters in quadrature.

    Parameters
    ----------
    size, wavelengths : width of a filter and wavelengths of the carrier, in pixels
    n_orientations : evenly over a half-turn

    Returns
    -------
    filters : (2 · n_wavelengths · n_orientations, 1, size, size); even ones (cosine)
        first; each has zero mean and unit norm. The Gaussian has a standard deviation
        of half a wavelength along the carrier and one wavelength across, near the
        bandwidth of simple cells in V1.
    """
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    bank = []
    for phase in (0.0, math.pi / 2):
        for wavelength in wavelengths:
            for index in range(n_orientations):
                angle = math.pi * index / n_orientations
                along = x * math.cos(angle) + y * math.sin(angle)
                across = y * math.cos(angle) - x * math.sin(angle)
                envelope = torch.exp(
                    -2 * (along / wavelength) ** 2 - (across / wavelength) ** 2 / 2
                )
                carrier = torch.cos(2 * math.pi * along / wavelength - phase)
                weights = envelope * carrier
                weights = weights - envelope * (weights.sum() / envelope.sum())
                bank.append(weights / weights.norm())
    return torch.stack(bank)[:, None].float()


class GaborEnergy(nn.Module):
    """Simple and complex cells of a V1-like filter bank on luminance.

    Input (n, 3, height, width) in [0, 1]; output (n, filters, 14, 14): the energy of
    each quadrature pair, averaged over places.
    """

    def __init__(
        self,
        wavelengths: tuple[float, ...] = (4.0, 6.0, 9.0, 13.5),
        n_orientations: int = 8,
        size: int = 27,
    ) -> None:
        super().__init__()
        filters = gabor_filters(size, wavelengths, n_orientations)
        self.filters = nn.Parameter(filters, requires_grad=False)
        luminance = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        self.luminance = nn.Parameter(luminance, requires_grad=False)
        self.simple = nn.ReLU()
        self.complex = nn.AdaptiveAvgPool2d(14)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Energies (n, filters, 14, 14)."""
        gray = (images * self.luminance).sum(1, keepdim=True)
        # The border is repeated: a black frame would be an edge.
        margin = self.filters.shape[-1] // 2
        padded = functional.pad(gray, [margin] * 4, mode="replicate")
        responses = functional.conv2d(padded, self.filters, stride=2)
        # Simple cells are half-wave rectified: four phases in two opposite pairs.
        cells = self.simple(torch.cat([responses, -responses], 1))
        even, odd = (cells**2).unflatten(1, (2, 2, -1)).sum(1).unbind(1)
        energy: torch.Tensor = self.complex((even + odd).sqrt())
        return energy


def gabor() -> Network:
    """A fixed bank of Gabor filters: 4 wavelengths × 8 orientations on 14×14 places."""
    layers = dict.fromkeys(REGIONS, "complex")
    return Network("gabor", GaborEnergy(), _raw(112), layers)


class NormalisedEnergy(nn.Module):
    """Complex cells of V1 whose responses are divided by those around them.

    Input (n, 3, height, width) in [0, 1]; output (n, filters, 14, 14). A cell responds
    e / √(σ² + mean of e²) over all filters and `surround` × `surround` places, where e
    is the energy of a quadrature pair in units of a grating of full contrast. It
    saturates with contrast and is suppressed by gratings that it does not respond to.

    Reference: Heeger (1992); Pinto, Cox & DiCarlo (2008); Carandini & Heeger (2012).
    """

    def __init__(
        self,
        wavelengths: tuple[float, ...] = (4.0, 6.0, 9.0, 13.5),
        n_orientations: int = 8,
        size: int = 27,
        surround: int = 9,
        semisaturation: float = 0.05,
    ) -> None:
        super().__init__()
        filters = gabor_filters(size, wavelengths, n_orientations)
        axis = torch.arange(size) - (size - 1) / 2
        gains = []
        for wavelength in wavelengths:  # along the first orientation, full contrast
            wave = torch.cos(2 * math.pi * axis / wavelength) / 2
            place = wavelengths.index(wavelength) * n_orientations
            gains.append((filters[place, 0].sum(0) * wave).sum())
        gain = torch.stack(gains).repeat_interleave(n_orientations).repeat(2)
        self.filters = nn.Parameter(filters / gain[:, None, None, None], False)
        luminance = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        self.luminance = nn.Parameter(luminance, requires_grad=False)
        self.surround = nn.AvgPool2d(
            surround, 1, surround // 2, count_include_pad=False
        )
        self.semisaturation = semisaturation
        self.normalised = nn.AdaptiveAvgPool2d(14)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised energies (n, filters, 14, 14)."""
        gray = (images * self.luminance).sum(1, keepdim=True)
        margin = self.filters.shape[-1] // 2
        padded = functional.pad(gray, [margin] * 4, mode="replicate")
        even, odd = functional.conv2d(padded, self.filters, stride=2).chunk(2, dim=1)
        squared = even**2 + odd**2
        pool = self.surround(squared.mean(1, keepdim=True))
        responses = (squared / (self.semisaturation**2 + pool)).sqrt()
        averaged: torch.Tensor = self.normalised(responses)
        return averaged


def v1_like() -> Network:
    """The bank of `gabor` with divisive normalisation: what V1 is often taken for."""
    layers = dict.fromkeys(REGIONS, "normalised")
    return Network("v1_like", NormalisedEnergy(), _raw(112), layers)
