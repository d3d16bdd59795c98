"""A network with all that is needed to read its features, and what it is at present.

Weights and code say what a network should do; its outputs for two fixed images say what
it does. They are kept in a short form beside everything that is computed from a
network, and compared before it is used again. The same passes tell networks that are
random, that mix the images of a batch, or whose outputs do not have the images on their
first axis.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ce_align.checks import named_some, nearest_names
from ce_align.config import COMMITTED
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import ConfigError, DataError
from ce_align.foreign import guard, quiet_stdout
from ce_align.models.activations import ActivationReader, network_inputs
from ce_align.models.content import Contents, tensor_digest, watched
from ce_align.models.localcode import LocalCode, Reads
from ce_align.models.preprocessing import Preprocessing
from ce_align.results import UNKNOWN_CONTENT, NetworkFacts

__all__ = [
    *("Behaviour", "Network", "Probe", "asked_layers", "matching_layers"),
    "probe_pixels",
]

if TYPE_CHECKING:
    from ce_align.models.given import FeatureArray

#: Raise it when an identity means something else than before.
IDENTITY = "network 2"

#: Parts of an identity of which a network has hundreds.
MANY = ("weight", "buffer", "attribute")

#: What the passes of modules have been seen to write, by its name. A first pass may be
#: the only one that writes.
_TRANSIENT: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()
#: And to read.
_READS: WeakKeyDictionary[nn.Module, Reads] = WeakKeyDictionary()

#: Share of the parameters from which on a part is a network that the rest only wraps.
WRAPPED = 0.9

#: Numbers that the output for one image is reduced to.
BUCKETS = 64

#: What is rounding, by the precision of an output: this share of the difference between
#: the two images, or a hundredth of it of the output's size. In float32, other batches,
#: processors and devices were seen to move outputs by 1e-6 of their size.
TOLERANCES = {"float16": 0.03, "bfloat16": 0.2}
TOLERANCE = 1e-3
FLOOR = 0.01


#: Why the output of a layer does not follow from the image alone, and what helps.
BATCH = "depends on the other images of its batch"
RANDOM = "is random: one image gives different answers"
REMEDY = (
    "put the network into evaluation mode or take that part out, or measure it as it "
    "is with --allow-unstable"
)


def probe_pixels(height: int, width: int) -> NDArray[np.uint8]:
    """The two fixed images, (2, height, width, 3).

    Coarse fields of colour with fine noise, so that every stage of a network responds;
    the second has less contrast and other extremes. The same on every machine.
    """
    images = []
    for seed, (low, high, noise) in enumerate([(0, 192, 64), (48, 144, 24)], 1):
        rng = np.random.Generator(np.random.PCG64(seed))
        coarse = rng.integers(low, high, (7, 7, 3))
        rows, columns = (np.arange(n) * 7 // n for n in (height, width))
        fine = rng.integers(0, noise, (height, width, 3))
        images.append(coarse[rows][:, columns] + fine)
    pixels: NDArray[np.uint8] = np.stack(images).astype(np.uint8)
    return pixels


@dataclass(frozen=True)
class Behaviour:
    """Outputs of a layer for the probe images, in short.

    Attributes
    ----------
    precision : type of the numbers that the layer gives
    width : numbers that the layer gives for an image
    sketch : (2, 64), sums of the output for each image with fixed signs
    """

    precision: str
    width: int
    sketch: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, outputs: torch.Tensor) -> Self:
        """Behaviour of outputs (2, ...), one for each image."""
        flat = outputs.reshape(len(outputs), -1).double().cpu().numpy()
        width = flat.shape[1]
        index = np.arange(width, dtype=np.uint64)
        # Knuth's multiplicative hash: signs without a generator that might change.
        hashed = (index * np.uint64(2654435761)) >> np.uint64(17)
        signed = np.where(hashed & np.uint64(1), flat, -flat)
        padded = np.pad(signed, ((0, 0), (0, -width % BUCKETS)))
        sums = padded.reshape(len(flat), -1, BUCKETS).sum(axis=1)
        precision = str(outputs.dtype).removeprefix("torch.")
        sketch = tuple(tuple(float(f"{x:.7g}") for x in row) for row in sums)
        return cls(precision, width, sketch)

    def agrees(self, other: "Behaviour") -> bool:
        """Whether two behaviours are one network's, up to rounding."""
        if (self.precision, self.width) != (other.precision, other.width):
            return False
        ours, theirs = np.array(self.sketch), np.array(other.sketch)
        return _close(ours - theirs, theirs, self.precision)

    def document(self) -> dict[str, Any]:
        """As it is stored."""
        return {**asdict(self), "sketch": [list(row) for row in self.sketch]}

    @classmethod
    def read(cls, document: Any) -> Self | None:
        """What was stored; None if it is no behaviour."""
        try:
            sketch = np.array(document["sketch"], dtype=np.float64)
            if sketch.ndim != 2 or sketch.shape[1] != BUCKETS:
                return None
            rows = tuple(tuple(row) for row in sketch.tolist())
            return cls(str(document["precision"]), int(document["width"]), rows)
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True, eq=False)
class Probe:
    """What a network is at the moment, and what can be said of its layers.

    Attributes
    ----------
    digest : of weights, architecture, attributes, code and preprocessing
    identity : digest of each of them, see `Network.identity`
    unknown : parts of the network whose content cannot be read; with any of them,
        nothing is taken from a cache or store, nor kept in a cache
    behaviours : outputs of each layer that can be read
    axes : axis of images in the output of each layer
    failures : layers that cannot be measured, and why
    marks : layers that are measured although their outputs do not follow from the image
        alone, and why not
    remark : what rows must say of where the weights are from; mostly nothing
    """

    digest: str = ""
    identity: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    axes: dict[str, int] = field(default_factory=dict)
    failures: dict[str, DataError] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    remark: str = ""

    def behaviour(self, layer: str) -> Behaviour | None:
        """Behaviour by which what is kept is known again; None if nothing is kept."""
        if self.unknown or layer in self.marks:
            return None
        return self.behaviours.get(layer)

    def summary(self) -> dict[str, str]:
        """The identity in short, as it is stored: one digest of all weights, and such.

        >>> Probe(identity={"weight a": "1", "weight b": "2", "code": "3"}).summary()
        {'code': '3', 'weights': '21f76dfbfe6dfe21f762'}
        """
        found: dict[str, str] = {}
        many: dict[str, dict[str, str]] = {}
        for name, digest in self.identity.items():
            kind, _, part = name.partition(" ")
            if kind in MANY:
                many.setdefault(f"{kind}s", {})[part] = digest
            else:
                found[name] = digest
        return found | {kind: digest_json(parts) for kind, parts in many.items()}

    def note(self, layer: str) -> str | None:
        """What a row of the layer must say of the network; None if nothing."""
        notes = [text for text in (self.marks.get(layer), self.remark) if text]
        if self.unknown:
            held = named_some(self.unknown)
            notes.append(f"computed anew each time, for {UNKNOWN_CONTENT}: {held}")
        return "; ".join(notes) or None


def _shown(network: "Network", layers: Sequence[str], allow_unstable: bool) -> Probe:
    """Show the probe images to a network, together and each alone."""
    module, fed = network.module, network.preprocessing
    device = next((str(p.device) for p in module.parameters()), "cpu")
    found = Probe(remark=network.remark)

    def fail(layer: str, error: DataError) -> None:
        found.failures[layer] = DataError(f"{network.name}: {error}")

    with ActivationReader(module, layers, "raw", on_error=fail) as read:
        try:
            inputs = network_inputs(module, fed, probe_pixels(*fed.size), device)
            together = read(inputs)
            alone = [_one_alone(read, inputs[k : k + 1]) for k in (0, 1) if together]
        except DataError as error:
            failed = type(error)(f"{network.name}: {error}")
            failed.__cause__ = error
            return Probe(failures=dict.fromkeys(layers, failed), remark=network.remark)
        again: dict[str, torch.Tensor] = {}
        for layer, output in together.items():
            if layer in found.failures:
                continue
            try:
                axis = _image_axis(output, alone[0][layer], layer)
                two, one, other = (
                    a.movedim(axis, 0)
                    for a in (output, alone[0][layer], alone[1][layer])
                )
                if not torch.isfinite(two).all():
                    raise DataError(
                        f"layer {layer} gives NaN or infinity; look at its weights"
                    )
                # The second, too: what comes first may not depend on what follows.
                if not (_same(one, two, two) and _same(other, two, two[1:])):
                    again = again or read(inputs[:1])
                    steady = _same(again[layer].movedim(axis, 0), two, one)
                    mark = f"layer {layer} {BATCH if steady else RANDOM}"
                    if not allow_unstable:
                        raise DataError(f"{mark}; {REMEDY}")
                    found.marks[layer] = mark
            except DataError as error:
                fail(layer, error)
                continue
            found.behaviours[layer] = Behaviour.of(two)
            found.axes[layer] = axis
    return found


def _one_alone(read: ActivationReader, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs for an image by itself."""
    try:
        return read(inputs)
    except DataError as error:
        raise DataError(
            f"one image alone cannot be shown ({error}); put the network into "
            "evaluation mode"
        ) from error


def _image_axis(two: torch.Tensor, one: torch.Tensor, layer: str) -> int:
    """Axis on which two images have twice the length that one has."""
    changed = [
        axis
        for axis, (a, b) in enumerate(zip(two.shape, one.shape, strict=False))
        if a != b
    ]
    if two.ndim == one.ndim and len(changed) == 1:
        axis = changed[0]
        if two.shape[axis] == 2 and one.shape[axis] == 1:
            return axis
    raise DataError(
        f"layer {layer} returns {tuple(one.shape)} for one image and "
        f"{tuple(two.shape)} for two; expected one row for each of the images"
    )


def _same(found: torch.Tensor, two: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether the first image gives what is expected, up to rounding of `two`."""
    if found.shape[1:] != expected.shape[1:]:
        return False
    difference = found[0].double() - expected[0].double()
    precision = str(two.dtype).removeprefix("torch.")
    return _close(difference.cpu().numpy(), two.double().cpu().numpy(), precision)


def _close(difference: NDArray[Any], two: NDArray[Any], precision: str) -> bool:
    """Whether a difference is no more than rounding of the outputs for two images."""
    apart, size = _rms(two[0] - two[1]), _rms(two)
    share = TOLERANCES.get(precision, TOLERANCE)
    return _rms(difference) <= share * max(apart, FLOOR * size)


def _rms(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@dataclass(frozen=True, eq=False, repr=False)
class Network:
    """A network, how to feed it, and which layer stands for which region.

    Attributes
    ----------
    name : as commands name it; never trusted as an identity
    module : in evaluation mode
    preprocessing : from images to its input
    layers : region (V1, V2, V4, IT) to layer
    code : the Python file that builds it, if one does
    remark : what its rows must say of where its weights are from; mostly nothing
    facts : how it came to be, as its rows say; no part of its digest
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    layers: Mapping[str, str] = field(default_factory=dict)
    code: LocalCode | None = None
    remark: str = ""
    facts: NetworkFacts = field(default_factory=NetworkFacts)

    def __post_init__(self) -> None:
        with guard(self.name):
            self.module.eval()
        for region, layer in self.layers.items():
            if layer not in self._modules:
                raise DataError(
                    f"{self.name} commits layer {layer!r} to {region}, but has no such "
                    f"layer{self._nearest(layer)}"
                )

    def __repr__(self) -> str:
        layers = ", ".join(f"{area} {layer}" for area, layer in self.layers.items())
        layers = layers or "none committed"
        return f"<Network {self.name}: {self.preprocessing.input_size} px, {layers}>"

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {name: m for name, m in self.module.named_modules() if name}

    @property
    def digest(self) -> str:
        """Digest of weights, architecture, attributes, code and preprocessing.

        Files and variables that its passes read are part of it, too.

        It is computed at every call, so that it is right after weights have changed.
        What passes write and images do not depend on is no part of it: see `probe`.
        """
        return self.probe(()).digest

    @property
    def identity(self) -> dict[str, str]:
        """What the digest is made of: the digest of each part, by its name.

        They are ``weight NAME``, ``buffer NAME``, ``attribute NAME``, ``structure``,
        ``class NAME`` and ``global NAME`` of the user's code, ``package NAME`` with its
        version, ``file NAME`` and ``environment NAME`` that passes read,
        ``preprocessing``, and ``code``, the Python file that builds it.
        """
        return dict(self.probe(()).identity)

    def part(self, name: str) -> Self:
        """A part of it as a network of its own, which takes the same images.

        Raises
        ------
        ConfigError
            If there is no such part.
        """
        self.check_layers([name])
        inside = f"{name}."
        layers = {
            region: layer.removeprefix(inside)
            for region, layer in self.layers.items()
            if layer.startswith(inside)
        }
        module = self._modules[name]
        return replace(self, name=f"{self.name}@{name}", module=module, layers=layers)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run its code: it finds its own modules, and prints to standard error."""
        with quiet_stdout(), self.code.active() if self.code else nullcontext():
            yield

    def probe(self, layers: Sequence[str], *, allow_unstable: bool = False) -> Probe:
        """What the network is at the moment, and the outputs of its layers.

        Attributes, buffers and globals that a pass writes are the state of that pass
        and no part of the digest. With `allow_unstable`, layers whose outputs are
        random or depend on the batch are marked instead of refused.

        Raises
        ------
        ConfigError
            If there is no such layer.
        """
        self.check_layers(list(layers))
        reads = _READS.setdefault(self.module, Reads())
        with self.running(), watched(self.module) as written, reads.noted():
            before = self._contents()
            found = _shown(self, layers, allow_unstable)
            after = self._contents()
        transient = _TRANSIENT.setdefault(self.module, set())
        transient |= before.differing(after) | written
        entries = {k: v for k, v in after.entries.items() if k not in transient}
        with self.running():
            entries |= reads.digests()
        unknown = {k: v for k, v in after.unknown.items() if k not in transient}
        weights = {k: tensor_digest(v) for k, v in self.module.named_parameters()}
        digest = combine_digests(
            IDENTITY,
            combine_digests(*(f"{k}:{v}" for k, v in weights.items())),
            digest_json(entries),
            fed := self.preprocessing.fingerprint,
            code := self.code.digest if self.code else "",
        )
        entries = {
            **{f"weight {name}": value for name, value in weights.items()},
            **dict(sorted(entries.items())),
            "preprocessing": fed,
            **({"code": code} if code else {}),
        }
        named = tuple(f"{name} ({kind})" for name, kind in unknown.items())
        return replace(found, digest=digest, identity=entries, unknown=named)

    def _contents(self) -> Contents:
        return Contents(self.module, self.code.modules if self.code else ())

    def layer_for(self, region: str) -> str:
        """Layer committed to a region.

        Raises
        ------
        ConfigError
            If there is none.
        """
        if region in self.layers:
            return self.layers[region]
        committed = ", ".join(f"{r}: {layer}" for r, layer in self.layers.items())
        raise ConfigError(
            f"{self.name} commits no layer to region {region} "
            f"({committed or 'nor to any other'}); name one with --layer, such as "
            f"{named_some(self.block_names()[::-1])}"
        )

    def matching(self, pattern: str) -> list[str]:
        """Layers that a pattern such as ``blocks.*`` names, in the network's order.

        Raises
        ------
        ConfigError
            If there is none.
        """
        return matching_layers(pattern, self._modules, self.name)

    def check_layers(self, layers: list[str]) -> None:
        """Raise ConfigError, with the nearest names, unless every layer exists."""
        for layer in layers:
            if layer not in self._modules:
                raise ConfigError(
                    f"{self.name} has no layer {layer!r}{self._nearest(layer)}"
                )

    def _nearest(self, layer: str) -> str:
        near = nearest_names(layer, self._modules)
        return f"; nearest: {', '.join(near)}" if near else ""

    def block_names(self) -> list[str]:
        """Names of the network's blocks, in order: what ``--layer all`` means.

        Blocks are the modules with parts of their own that are not mere sequences of
        others: ``layer1.0`` of a ResNet, ``encoder.layers.encoder_layer_0`` of a vision
        transformer. In a network without any, such as AlexNet, they are its leaves
        except dropout and reshaping. Of a network that only wraps another, they are
        those of the other.
        """
        root, prefix = _wrapped(self.module)
        found = [(prefix + name, m) for name, m in _blocks(root, "") if name]
        composed = [name for name, m in found if _parts(m)]
        silent = (nn.Dropout, nn.Identity, nn.Flatten)
        audible = [name for name, m in found if not isinstance(m, silent)]
        return composed or audible or [name for name, _ in found]


def asked_layers(
    network: "Network | FeatureArray", asked: str, region: str
) -> list[str]:
    """Layers that a setting means.

    ``committed`` means the one committed to the region, ``all`` every block, a pattern
    such as ``blocks.*`` the layers of such names; else it is a name.

    Raises
    ------
    ConfigError
        If there is no such layer.
    DataError
        If the network is a single module.
    """
    if asked == COMMITTED:
        return [network.layer_for(region)]
    if asked == "all":
        if not (blocks := network.block_names()):
            raise DataError(f"{network.name} has no layers: it is a single module")
        return blocks
    if set("*?[") & set(asked):
        return network.matching(asked)
    network.check_layers([asked])
    return [asked]


def matching_layers(pattern: str, names: Iterable[str], what: str) -> list[str]:
    """Names that a pattern means; ``*`` does not go beyond a dot.

    >>> matching_layers("blocks.*", ["blocks.0", "blocks.0.mlp", "head"], "a network")
    ['blocks.0']
    """
    known, parts = list(names), pattern.split(".")
    found = [
        name
        for name in known
        if len(inside := name.split(".")) == len(parts)
        and all(map(fnmatchcase, inside, parts))
    ]
    if not found:
        near = nearest_names(pattern, known) or known
        raise ConfigError(
            f"{what} has no layer like {pattern!r}; nearest: {named_some(near)}"
        )
    return found


def _parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Children of a module, except those of what counts as one layer."""
    if isinstance(module, nn.MultiheadAttention):
        return []
    # Weight norm and the like keep how a weight is computed in a module.
    return [(n, m) for n, m in module.named_children() if n != "parametrizations"]


def _wrapped(module: nn.Module) -> tuple[nn.Module, str]:
    """The part that holds nearly all parameters, and the prefix of its layers' names.

    Such as ``backbone.`` in a user's network, or ``module.`` in torch's DataParallel.
    """
    prefix = ""
    while True:
        total = _n_parameters(module)
        large = [
            (name, part)
            for name, part in _parts(module)
            if _parts(part) and _n_parameters(part) > WRAPPED * total
        ]
        if not large or _is_sequence(large[0][1]):
            return module, prefix
        name, module = large[0]
        prefix += f"{name}."


def _n_parameters(module: nn.Module) -> int:
    lazy = nn.parameter.UninitializedParameter
    return sum(p.numel() for p in module.parameters() if not isinstance(p, lazy))


def _blocks(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Blocks below `module`, itself if it is one."""
    top = "." not in name
    if name and not _is_expanded(module, top):
        yield name, module
        return
    for child_name, child in _parts(module):
        yield from _blocks(child, f"{name}.{child_name}" if name else child_name)


def _is_sequence(module: nn.Module) -> bool:
    # Exactly these: a subclass, such as convolution with norm, is a block.
    return type(module) in (nn.Sequential, nn.ModuleList)


def _is_expanded(module: nn.Module, top: bool) -> bool:
    """Whether a module only arranges blocks."""
    children = [child for _, child in _parts(module)]
    if _is_sequence(module):
        return top or any(_parts(child) for child in children)
    # Such as the encoder of a transformer, around its one sequence of equal blocks.
    return (
        sum(_is_sequence(child) and _repeats_blocks(child) for child in children) == 1
    )


def _repeats_blocks(sequence: nn.Module) -> bool:
    blocks = [block for _, block in _parts(sequence)]
    composed = [bool(_parts(b)) and not isinstance(b, nn.Sequential) for b in blocks]
    return len(blocks) > 1 and len(set(map(type, blocks))) == 1 and all(composed)
