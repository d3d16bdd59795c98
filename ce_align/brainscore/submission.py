"""Networks as plugins for Brain-Score: a folder to propose, or a zip to upload."""

import filecmp
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ce_align.brainscore.models import REGIONS, Region
from ce_align.brainscore.plugin.archive import write_plugins
from ce_align.brainscore.plugin.writing import (
    EMBEDDED,
    PAPER,
    TORCHVISION,
    PluginSpec,
    built,
    layer_statistics,
    metadata_document,
    plugin_files,
)
from ce_align.checks import named_some
from ce_align.errors import AccessError, ConfigError, DataError
from ce_align.files import check_regular, scratch_folder
from ce_align.models.catalogue import (
    EXPORTED,
    FILE_SUFFIXES,
    Published,
    find_published,
    is_cached,
)
from ce_align.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn

    from ce_align.models.networks import Network

__all__ = ["Submission", "Submitted", "default_identifier", "submit"]

#: Weights inside the plugin instead of at an address.
EMBED = "embed"


@dataclass(frozen=True)
class Submission:
    """What is the same for all plugins of one submission.

    Attributes
    ----------
    weights : ``embed``, the address of one network's safetensors, or an address ending
        in ``/`` below which each is ``<identifier>.safetensors``
    layers : region to layer, before the network's own
    identifier : instead of the default; for one network only
    bibtex : what to cite, instead of the default
    metadata : whether to write metadata.yml
    """

    weights: str
    layers: Mapping[str, str] | None = None
    identifier: str | None = None
    bibtex: str | None = None
    metadata: bool = True

    def url(self, identifier: str) -> str | None:
        """Address of a network's weights; None where they are embedded."""
        if self.weights == EMBED:
            return None
        if self.weights.endswith("/"):
            return f"{self.weights}{identifier}.safetensors"
        return self.weights


@dataclass(frozen=True)
class Submitted:
    """One plugin that was written, of the network `model`.

    It expects its weights at `weights_url`, which is None where they are inside. The
    file `upload` is to be put there; None where it is served or inside already.
    """

    model: str
    identifier: str
    weights_sha256: str
    weights_url: str | None
    upload: Path | None


def default_identifier(model: str, digest: str) -> str:
    """Identifier of a network in Brain-Score, also the name of its plugin's folder.

    It has no dot, because Python imports the folder as a package. Where the name alone
    does not say which network it is, the digest of the network does.

    >>> default_identifier("ce_mmcr_l0.1", "5f0c1d2e3f4a")
    'ce_mmcr_l0_1'
    >>> default_identifier("torchvision/resnet18:none", "5f0c1d2e3f4a")
    'resnet18_none_5f0c1d2e'
    """
    published = find_published(model)
    if published is not None:
        return published.name.replace(".", "_")
    file = Path(model)
    if file.name == EXPORTED:  # the folder of a training names it
        file = file.resolve().parent
    stem = file.name.removesuffix(".safetensors")
    words = "".join(
        c if c.isascii() and (c.isalnum() or c == "-") else "_" for c in stem
    )
    return f"{words.strip('_-').lower() or 'network'}_{digest[:8]}"


def submit(
    models: Sequence[str],
    out: Path,
    submission: Submission,
    *,
    force: bool = False,
    progress: Progress = silent,
) -> list[Submitted]:
    """Write one plugin for each network.

    Weights that are to be served are written beside `out`, in ``<out>-weights``.

    Parameters
    ----------
    models : names of networks
    out : a folder of plugins, or a ``.zip`` for Brain-Score's website
    submission : weights, layers and the rest
    force : replace plugins, or the zip, that are there
    progress : told of plugins written

    Returns
    -------
    submitted : one for each network, in their order

    Raises
    ------
    ConfigError
        If options do not fit each other, or a network cannot be exported.
    AccessError
        If weights are neither on this machine nor served.
    DataError
        If weights are damaged, or too large to be embedded.
    """
    _check_options(models, out, submission, force)
    uploads = out.with_name(f"{out.stem}-weights")
    written: list[Submitted] = []
    with scratch_folder("submit") as scratch:
        plugins = scratch / "plugins"
        for done, model in enumerate(models):
            progress("plugins", done, len(models))
            with _rebuildable(model, submission) as found:
                written.append(_write(found, plugins, uploads, submission))
        _check_identifiers(written, plugins, out, force)
        write_plugins(plugins, out)
        progress("plugins", len(models), len(models))
    return written


def _check_options(
    models: Sequence[str], out: Path, submission: Submission, force: bool
) -> None:
    if not models:
        raise ConfigError("name at least one network with --model")
    many = len(models) > 1
    if many and submission.identifier is not None:
        raise ConfigError(
            f"--identifier names one network, but there are {len(models)}"
        )
    weights = submission.weights
    if weights != EMBED and not weights.startswith(("http://", "https://")):
        raise ConfigError(
            f"--weights should be {EMBED!r} or an address, https://…, found {weights!r}"
        )
    if weights != EMBED and not weights.endswith(("/", ".safetensors")):
        raise ConfigError(
            f"--weights should end in / (a folder) or .safetensors, found {weights!r}"
        )
    if many and weights.endswith(".safetensors"):
        raise ConfigError(
            f"{len(models)} networks cannot share the weights {weights}; name the "
            "folder, an address that ends in /"
        )
    if out.suffix == ".zip" and out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another name or add --force")


def _check_identifiers(
    written: Sequence[Submitted], plugins: Path, out: Path, force: bool
) -> None:
    names = [found.identifier for found in written]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(
            f"several networks would be called {named_some(repeated)} in Brain-Score; "
            "export them one by one, with --identifier"
        )
    there = []
    if out.suffix != ".zip":
        # An equal plugin is what this command wrote before it was stopped.
        there = [
            name
            for name in names
            if (out / name).exists() and not _equal(plugins / name, out / name)
        ]
    if there and not force:
        raise ConfigError(
            f"{out} has {named_some(there)} already; choose another folder or add "
            "--force"
        )


def _equal(folder: Path, other: Path) -> bool:
    """Whether two folders hold the same files."""
    found = [
        {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
        for root in (folder, other)
    ]
    return found[0].keys() == found[1].keys() and all(
        filecmp.cmp(path, found[1][name], shallow=False)
        for name, path in found[0].items()
    )


@dataclass(frozen=True)
class _Rebuildable:
    """A network that the name of its architecture builds.

    `training` are the settings stored with the weights of one's own training, and
    `served` is the file that the address of the weights serves already.
    """

    model: str
    network: "Network"
    architecture: str
    n_classes: int | None
    published: Published | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    served: Path | None = None


@contextmanager
def _rebuildable(model: str, submission: Submission) -> Iterator[_Rebuildable]:
    """A network by its name, ready for export.

    A published network that is not on this machine is taken from where its weights are
    said to be served.
    """
    from ce_align.models.load import load_network

    published = find_published(model)
    if published is None:
        architecture, training = _described(model)
        yield _checked(model, load_network(model), architecture, training=training)
        return
    url = submission.url(published.name.replace(".", "_"))
    with scratch_folder("served") as scratch:
        file: Path | None = None
        if url is None or is_cached(published):
            network = load_network(published.name)
        else:
            try:
                file = scratch / "served.safetensors"
                network = _served(published, url, file)
            except AccessError as unserved:
                try:
                    network, file = load_network(published.name), None
                except AccessError as absent:
                    raise AccessError(f"{unserved}, and {absent}") from absent
        architecture = published.architecture
        yield _checked(model, network, architecture, published=published, served=file)


def _described(model: str) -> tuple[str, dict[str, Any]]:
    """Architecture of a network by its name, and the settings of its training."""
    prefix, slash, rest = model.partition("/")
    if slash and prefix == "torchvision":
        return rest.partition(":")[0], {}
    if slash and prefix == "timm":
        return f"timm/{rest.partition(':')[0].partition('.')[0]}", {}
    path = Path(model) / EXPORTED if (Path(model) / EXPORTED).is_file() else Path(model)
    name, colon, stated = str(path).rpartition(":")
    if not colon:
        name, stated = str(path), ""
    if not name.endswith(FILE_SUFFIXES) or name.endswith(".py"):
        raise ConfigError(
            f"{model} cannot be submitted: a plugin rebuilds its network by name, so "
            "only published networks, torchvision/NAME, timm/NAME, trainings and "
            "checkpoints can be exported"
        )
    metadata: Mapping[str, str] = {}
    if name.endswith(".safetensors"):
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(name, framework="numpy") as weights:
                metadata = weights.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{name} is absent or no safetensors file: {error}"
            ) from error
    architecture = stated or metadata.get("architecture", "")
    if not architecture:
        raise ConfigError(
            f"{name} does not say its architecture; name it, such as resnet50: "
            f"{name}:ARCHITECTURE"
        )
    try:
        config = json.loads(metadata.get("config", "{}"))
    except ValueError:
        config = {}
    return architecture, config if isinstance(config, dict) else {}


def _served(published: Published, url: str, target: Path) -> "Network":
    """A published network from the safetensors at `url`, kept at `target`."""
    import torch

    from ce_align.models.architectures import build_architecture
    from ce_align.models.checkpoints import read_checkpoint
    from ce_align.models.networks import Network

    try:
        torch.hub.download_url_to_file(url, str(target), progress=False)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise AccessError(
            f"{url} does not serve the weights of {published.name} ({reason})"
        ) from error
    state = read_checkpoint(target).state
    module = build_architecture(published.architecture, state, url)
    if state.keys() != module.state_dict().keys():
        raise DataError(
            f"{url} holds other keys than {published.architecture}; serve the file "
            "that submit writes where the network is at hand"
        )
    layers, facts = published.layers, published.facts
    return Network(published.name, module, layers=layers, facts=facts)


def _checked(
    model: str, network: "Network", architecture: str, **facts: Any
) -> _Rebuildable:
    """The network, if its name rebuilds it exactly."""
    import torch

    *_, (_, head) = network.module.named_children()
    sizes = [len(values) for values in head.parameters()]
    n_classes = sizes[-1] if sizes else None
    try:
        rebuilt = built(architecture, n_classes)
    except ConfigError as error:
        raise ConfigError(f"{model} cannot be submitted: {error}") from error
    if n_classes is None:
        *_, (name, _) = rebuilt.named_children()
        setattr(rebuilt, name, torch.nn.Identity())
    if _outline(rebuilt) != _outline(network.module):
        raise ConfigError(
            f"{model} cannot be submitted: it is not {architecture} as its name "
            "builds it, so a plugin could not rebuild it"
        )
    return _Rebuildable(model, network, architecture, n_classes, **facts)


def _outline(module: "nn.Module") -> tuple[str, dict[str, Any]]:
    return str(module), {k: values.shape for k, values in module.state_dict().items()}


def _write(
    found: _Rebuildable, plugins: Path, uploads: Path, submission: Submission
) -> Submitted:
    from ce_align.models.checkpoints import save_safetensors

    network = found.network
    identifier = submission.identifier or default_identifier(
        found.model, network.digest
    )
    url = submission.url(identifier)
    folder = plugins / identifier
    layers = _layers(found, submission)
    bibtex = submission.bibtex or _citation(found)
    upload = None
    weights = found.served
    if weights is None:
        upload = None if url is None else uploads / f"{identifier}.safetensors"
        weights = upload or folder / EMBEDDED
        # Without further metadata: the same weights give the same file.
        save_safetensors(weights, network.module.state_dict(), {})
        weights.chmod(0o644)  # it is to be served
    with check_regular(weights).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    prepared = network.preprocessing
    if prepared.crop_pct is not None:
        raise ConfigError(
            f"{found.model} crops images, but a plugin shows whole ones; leave out "
            "timm's preprocessing"
        )
    try:
        spec = PluginSpec(
            identifier=identifier,
            architecture=found.architecture,
            n_classes=found.n_classes,
            layers=layers,
            input_size=prepared.edge("Brain-Score's way of preparing images"),
            mean=prepared.mean,
            std=prepared.std,
            interpolation=prepared.interpolation,
            weights_url=url,
            weights_sha256=sha256,
            bibtex=bibtex,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{found.model} cannot be submitted: {where} is {first['input']!r}; "
            f"{first['msg']}"
        ) from error
    statistics = layer_statistics(network, dict.fromkeys(spec.layers.values()))
    texts = plugin_files(spec, statistics)
    if submission.metadata:
        from brainscore_core.metadata import dump

        document = metadata_document(
            spec,
            display_name=found.model,
            n_parameters=sum(p.numel() for p in network.module.parameters()),
            published=found.published,
            training=found.training,
        )
        texts["metadata.yml"] = dump(document)
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Submitted(found.model, identifier, sha256, url, upload)


def _layers(found: _Rebuildable, submission: Submission) -> dict[Region, str]:
    network = found.network
    layers = {**network.layers, **(submission.layers or {})}
    unknown = sorted(set(layers) - set(REGIONS))
    if unknown:
        raise ConfigError(
            f"no region is called {unknown[0]!r}; choose from {', '.join(REGIONS)}"
        )
    if not layers:
        raise ConfigError(
            f"{found.model} commits no layer to a region; name one, such as --layer "
            f"IT={network.block_names()[-1]}"
        )
    network.check_layers(list(layers.values()))
    return {region: layers[region] for region in REGIONS if region in layers}


def _citation(found: _Rebuildable) -> str:
    """What to cite for a network: the paper, or torchvision."""
    if found.published is not None or found.training:
        return PAPER
    if found.model.startswith("torchvision/"):
        return TORCHVISION
    raise ConfigError(
        f"nothing says what to cite for {found.model}; name a file with --bibtex"
    )
