"""A network with all that is needed to read its features."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import nn

from ce_align.checks import named_some, nearest_names
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import ConfigError, DataError
from ce_align.models.content import Contents, tensor_digest, watched
from ce_align.models.localcode import LocalCode
from ce_align.models.preprocessing import Preprocessing
from ce_align.models.probing import Look, Probe, look
from ce_align.models.surroundings import Reads
from ce_align.progress import quiet_stdout

__all__ = ["Network", "weights_digest"]

#: Raise it when an identity means something else than before.
IDENTITY = "network 2"

#: What the passes of modules have been seen to write, by its name. A first pass may be
#: the only one that writes.
_TRANSIENT: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()
#: And to read.
_READS: WeakKeyDictionary[nn.Module, Reads] = WeakKeyDictionary()


#: Share of the parameters from which on a part is a network that the rest only wraps.
WRAPPED = 0.9


@dataclass(frozen=True, eq=False)
class Network:
    """A network, how to feed it, and which layer stands for which region.

    Attributes
    ----------
    name : as commands name it; never trusted as an identity
    module : in evaluation mode
    preprocessing : from images to its input
    layers : region (V1, V2, V4, IT) to layer
    code : the Python file that builds it, if one does
    origin : what its rows must say of where its weights are from; mostly nothing
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    layers: Mapping[str, str] = field(default_factory=dict)
    code: LocalCode | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        self.module.eval()
        for region, layer in self.layers.items():
            if layer not in self._modules:
                raise DataError(
                    f"{self.name} commits layer {layer!r} to {region}, but has no such "
                    f"layer{self._nearest(layer)}"
                )

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {name: m for name, m in self.module.named_modules() if name}

    @property
    def digest(self) -> str:
        """Digest of weights, architecture, attributes, code and preprocessing.

        It is computed at every call, so that it is right after weights have changed.
        What passes write and images do not depend on is no part of it: see `probe`.
        """
        return self.probe(()).digest

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run its code: it finds its own modules, and prints to standard error."""
        with quiet_stdout(), self.code.active() if self.code else nullcontext():
            yield

    def probe(self, layers: Sequence[str], *, allow_unstable: bool = False) -> Probe:
        """What the network is at the moment, and what its layers answer.

        Attributes, buffers and globals that a pass writes are the state of that pass
        and no part of the digest.

        Parameters
        ----------
        layers : names of layers
        allow_unstable : mark layers whose answers are random or depend on the batch
            instead of refusing them

        Raises
        ------
        ConfigError
            If there is no such layer.
        """
        self.check_layers(list(layers))
        reads = _READS.setdefault(self.module, Reads())
        with self.running(), watched(self.module) as written, reads.noted():
            before = self._contents()
            try:
                found = look(
                    self.module,
                    self.preprocessing,
                    layers,
                    name=self.name,
                    allow_unstable=allow_unstable,
                )
            except DataError as error:
                found = Look({}, {}, dict.fromkeys(layers, error), {})
            after = self._contents()
        transient = _TRANSIENT.setdefault(self.module, set())
        transient |= before.differing(after) | written
        entries = {k: v for k, v in after.entries.items() if k not in transient}
        with self.running():
            entries |= reads.digests()
        unknown = {k: v for k, v in after.unknown.items() if k not in transient}
        digest = combine_digests(
            IDENTITY,
            weights_digest(self.module),
            digest_json(entries),
            self.preprocessing.fingerprint,
            self.code.digest if self.code else "",
        )
        return Probe(
            digest=digest,
            unknown=tuple(f"{name} ({kind})" for name, kind in unknown.items()),
            behaviours=found.behaviours,
            axes=found.axes,
            failures=found.failures,
            marks=found.marks,
            origin=self.origin,
        )

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

    def layer_names(self) -> list[str]:
        """Names of all layers."""
        return list(self._modules)

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
    sequences = [child for child in children if _is_sequence(child)]
    return len(sequences) == 1 and _repeats_blocks(sequences[0])


def _repeats_blocks(sequence: nn.Module) -> bool:
    blocks = [block for _, block in _parts(sequence)]
    composed = [bool(_parts(b)) and not isinstance(b, nn.Sequential) for b in blocks]
    return len(blocks) > 1 and len(set(map(type, blocks))) == 1 and all(composed)


def weights_digest(module: nn.Module) -> str:
    """Digest of the parameters of a module, with their names."""
    return combine_digests(
        *(f"{name}:{tensor_digest(p)}" for name, p in module.named_parameters())
    )
