"""Networks as plugins for Brain-Score: a folder to propose, or a zip to upload."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ce_align.brainscore.plugin.archive import equal_folders, write_plugins
from ce_align.brainscore.plugin.metadata import citation, metadata_document
from ce_align.brainscore.plugin.networks import (
    Rebuildable,
    layer_statistics,
    rebuildable,
)
from ce_align.brainscore.plugin.writing import EMBEDDED, PluginSpec, plugin_files
from ce_align.checks import named_some
from ce_align.errors import ConfigError
from ce_align.files import scratch_folder
from ce_align.models.catalogue import EXPORTED, find_published
from ce_align.progress import Progress, silent

if TYPE_CHECKING:
    from ce_align.models.networks import Network

__all__ = ["EMBED", "Submission", "Submitted", "default_identifier", "submit"]

#: Weights inside the plugin instead of at an address.
EMBED = "embed"

REGIONS = ("V1", "V2", "V4", "IT")


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
    """One plugin that was written.

    Attributes
    ----------
    model : network
    identifier : in Brain-Score
    weights_sha256 : of the safetensors
    weights_url : where the plugin expects them; None where they are inside
    upload : the file to put there; None where it is served or inside already
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
            with rebuildable(model, submission.url) as found:
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
            if (out / name).exists() and not equal_folders(plugins / name, out / name)
        ]
    if there and not force:
        raise ConfigError(
            f"{out} has {named_some(there)} already; choose another folder or add "
            "--force"
        )


def _write(
    found: Rebuildable, plugins: Path, uploads: Path, submission: Submission
) -> Submitted:
    network = found.network
    identifier = submission.identifier or default_identifier(
        found.model, network.digest
    )
    url = submission.url(identifier)
    folder = plugins / identifier
    facts = {
        "layers": _layers(found, submission),
        "bibtex": submission.bibtex or citation(found),
    }
    if found.served is not None:
        weights, upload = found.served, None
    else:
        upload = None if url is None else uploads / f"{identifier}.safetensors"
        weights = upload or folder / EMBEDDED
        _save_weights(network, weights)
    with weights.open("rb") as file:
        facts["weights_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    spec = _spec(found, identifier=identifier, weights_url=url, **facts)
    statistics = layer_statistics(network, list(dict.fromkeys(spec.layers.values())))
    _write_texts(folder, plugin_files(spec, statistics))
    if submission.metadata:
        _write_metadata(folder, spec, found)
    return Submitted(found.model, identifier, spec.weights_sha256, url, upload)


def _save_weights(network: "Network", path: Path) -> None:
    from ce_align.models.checkpoints import save_safetensors

    # Without metadata, whose order varies: the same weights give the same file.
    save_safetensors(path, network.module.state_dict(), {})
    path.chmod(0o644)  # it is to be served


def _layers(found: Rebuildable, submission: Submission) -> dict[str, str]:
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


def _spec(found: Rebuildable, **facts: Any) -> PluginSpec:
    prepared = found.network.preprocessing
    try:
        return PluginSpec(
            architecture=found.architecture,
            n_classes=found.n_classes,
            input_size=prepared.edge("Brain-Score's way of preparing images"),
            mean=prepared.mean,
            std=prepared.std,
            interpolation=prepared.interpolation,
            **facts,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{found.model} cannot be submitted: {where} is {first['input']!r}; "
            f"{first['msg']}"
        ) from error


def _write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _write_metadata(folder: Path, spec: PluginSpec, found: Rebuildable) -> None:
    from brainscore_core.metadata import dump

    document = metadata_document(
        spec,
        display_name=found.model,
        n_parameters=sum(p.numel() for p in found.network.module.parameters()),
        published=found.published,
        training=found.training,
    )
    _write_texts(folder, {"metadata.yml": dump(document)})
