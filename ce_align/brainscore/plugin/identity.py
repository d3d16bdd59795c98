"""Checks of plugins: is it the network that its name says, and will it be found?"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from ce_align.brainscore.plugin.findings import Finding, fault, warning
from ce_align.brainscore.plugin.folding import try_folded
from ce_align.brainscore.plugin.source import PluginSource
from ce_align.checks import named_some
from ce_align.models.catalogue import PUBLISHED, find_published

__all__ = ["identity_checks", "stated_network"]

REGIONS = ("V1", "V2", "V4", "IT")

#: How the networks of the paper see images, whoever submits them.
PAPER_INPUT_SIZE = 224


class StatedNetwork(NamedTuple):
    """What a name or address says of a contrastive-equivariant network."""

    objective: str | None
    equivariance_weight: float | None
    epochs: int | None


def stated_network(text: str) -> StatedNetwork:
    """Objective, equivariance weight and epochs that a name or an address says.

    >>> stated_network("CE-MMCR_lmda_0001")
    StatedNetwork(objective='mmcr', equivariance_weight=0.001, epochs=None)
    >>> stated_network("https://lab.org/ce_barlow_l0_2_ep1000.safetensors")
    StatedNetwork(objective='barlow', equivariance_weight=0.2, epochs=1000)
    """
    objectives = set(re.findall(r"mmcr|barlow|simclr", text.lower()))
    if len(objectives) != 1:
        return StatedNetwork(None, None, None)
    epochs = re.search(r"(?:^|[/_-])ep(\d+)(?=[/_.-]|$)", text)
    return StatedNetwork(
        objectives.pop(), _weight(text), int(epochs.group(1)) if epochs else None
    )


def _weight(text: str) -> float | None:
    theirs = re.search(r"lmda_(\d+(?:\.\d+)?)", text)
    if theirs:
        return _spelled(theirs.group(1))
    ours = re.search(r"(?:^|[/_-])l([01](?:[._]\d+)?)(?=[/_.-]|$)", text)
    return float(ours.group(1).replace("_", ".")) if ours else None


def _spelled(digits: str) -> float:
    """Weight that Brain-Score's identifiers spell: 01 is 0.1, 0001 is 0.001."""
    return float(digits if "." in digits else f"{digits[0]}.{digits[1:]}")


def identity_checks(source: PluginSource) -> Iterator[Finding]:
    """Everything about names, registration, layers and input of one plugin."""
    yield from _registration(source)
    yield from _folder(source)
    for identifier in source.identifiers:
        yield from _names(source, identifier)
        yield from _weights(source, identifier)
        yield from _layers(source, identifier)
        yield from _input(source, identifier)
    yield from _tables(source)


def _registration(source: PluginSource) -> Iterator[Finding]:
    for file, what in source.unreadable.items():
        yield fault("syntax", f"Python cannot read it: {what}", file)
    if "__init__.py" not in source.texts:
        yield fault("registration", "there is no __init__.py that registers a network")
    elif not source.registrations and "__init__.py" in source.trees:
        yield fault("registration", "__init__.py registers no network", "__init__.py")
    for found in source.registrations:
        where = ("__init__.py", found.line)
        if found.identifier is None:
            yield fault(
                "registration",
                "the identifier is no literal text, so that Brain-Score's text search "
                "does not find it; write model_registry['…'] = … for each network",
                *where,
            )
        elif not found.found_to_load:
            yield fault(
                "registration",
                f"Brain-Score's text search does not find {found.identifier!r}; write "
                f"model_registry['{found.identifier}'] = … in one line",
                *where,
            )
        elif not found.found_to_submit:
            yield fault(
                "registration",
                "another ] in the line makes Brain-Score's submission misread the "
                "identifier; keep brackets out of it",
                *where,
            )


def _folder(source: PluginSource) -> Iterator[Finding]:
    name, identifiers = source.name, source.identifiers
    if "." in name or name.startswith("_"):
        yield fault(
            "folder",
            f"Python cannot import a folder called {name!r} as Brain-Score does; "
            "avoid dots and a leading underscore",
        )
    if len(identifiers) == 1 and identifiers[0] != name:
        yield fault(
            "folder",
            f"the folder {name!r} and the identifier {identifiers[0]!r} differ; name "
            "the folder like the network",
        )


def _names(source: PluginSource, identifier: str) -> Iterator[Finding]:
    """The same name wherever Brain-Score stores something under one."""
    for call in source.calls(identifier):
        kind = call.name.rpartition(".")[2]
        stated = call.value("identifier")
        if not isinstance(stated, str) or len(source.identifiers) != 1:
            continue
        where = (call.file, call.line)
        if kind == "ModelCommitment" and stated != identifier:
            yield fault(
                "identifier",
                f"registered as {identifier!r} but committed as {stated!r}",
                *where,
            )
        if kind == "PytorchWrapper" and identifier not in stated:
            yield fault(
                "identifier",
                f"its activations are stored as {stated!r}, which other networks may "
                f"share; use {identifier!r}",
                *where,
            )


def _weights(source: PluginSource, identifier: str) -> Iterator[Finding]:
    expected = stated_network(identifier)
    told: set[str] = set()
    # The longest text is the whole address; others are parts that it is made of.
    for place in sorted(source.texts_of(identifier), key=len, reverse=True):
        if "/" not in place:
            continue
        found = stated_network(place)
        for field, wanted, there in zip(expected._fields, expected, found, strict=True):
            if field not in told and None not in (wanted, there) and wanted != there:
                told.add(field)
                yield fault(
                    "weights",
                    f"the identifier {identifier!r} says {field} {wanted}, but the "
                    f"weights are those of {there}: {place}",
                    source.model_file,
                )


def _tables(source: PluginSource) -> Iterator[Finding]:
    for line, table in source.tables():
        spelled = all(isinstance(k, str) and re.fullmatch(r"0\d*", k) for k in table)
        numbers = all(isinstance(v, int | float) for v in table.values())
        if len(table) < 3 or not spelled or not numbers:
            continue
        wrong = [f"{k} → {v:g}" for k, v in table.items() if _spelled(k) != v]
        if wrong:
            yield warning(
                "weights",
                f"the table of equivariance weights is wrong for {', '.join(wrong)}",
                source.model_file,
                line,
            )


def _layers(source: PluginSource, identifier: str) -> Iterator[Finding]:
    file = f"region_layer_map/{identifier}.json"
    committed: Mapping[str, Any] | None = None
    path = source.folder / file
    if not path.is_file():
        yield warning(
            "layers",
            f"there is no {file}: Brain-Score will choose layers by scoring all of "
            "get_layers on its public recordings",
        )
    else:
        try:
            committed = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            yield fault("layers", f"not JSON: {error}", file)
    layers = _named(source.returned("get_layers", identifier))
    if committed is not None:
        if not isinstance(committed, dict) or not set(committed) <= set(REGIONS):
            yield fault("layers", f"expected layers of {', '.join(REGIONS)}", file)
            return
        chosen = _named(list(committed.values()))
        if len(committed) > 1 and len(set(chosen)) == 1:
            yield warning(
                "layers",
                f"all regions read {chosen[0]}; commit each to a layer of its own, if "
                "that is not meant",
                file,
            )
        layers = [*chosen, *layers]
    architecture = _architecture(source, identifier)
    existing = None if architecture is None else _layer_names(architecture)
    if existing is not None:
        absent = sorted(set(layers) - existing - {"logits"})
        if absent:
            yield fault("layers", f"{architecture} has no layer {named_some(absent)}")


def _named(value: Any) -> list[str]:
    """Names in a list, or in a list of lists."""
    if isinstance(value, str):
        return [value]
    return (
        [n for item in value for n in _named(item)] if isinstance(value, list) else []
    )


def _architecture(source: PluginSource, identifier: str) -> str | None:
    """Architecture that a plugin builds, if it builds exactly one by name."""
    stated = source.constant("ARCHITECTURE")
    if isinstance(stated, str):
        return stated
    names = set()
    for call in source.calls(identifier):
        if call.name == "torchvision.models.get_model" and call.node.args:
            names.add(try_folded(call.node.args[0], call.known))
        elif call.name.startswith("torchvision.models."):
            names.add(call.name.rpartition(".")[2])
    return str(names.pop()) if len(names) == 1 else None


@cache
def _layer_names(architecture: str) -> frozenset[str] | None:
    """Layers of an architecture, without its weights; None if it is unknown here."""
    import torch
    from torchvision import models

    from ce_align.backbones import TinyResNet

    known = models.list_models(module=models)
    if architecture != "tiny" and architecture not in known:
        return None

    def build() -> torch.nn.Module:
        if architecture == "tiny":
            return TinyResNet()
        network: torch.nn.Module = models.get_model(architecture, weights=None)
        return network

    try:
        with torch.device("meta"):
            built = build()
    except NotImplementedError:  # some compute their widths with tensors
        built = build()
    return frozenset(name for name, _ in built.named_modules() if name)


def _input(source: PluginSource, identifier: str) -> Iterator[Finding]:
    stated = source.attribute("image_size", identifier)
    prepared = None
    for call in source.calls(identifier):
        if call.name.rpartition(".")[2] in ("partial", "load_preprocess_images"):
            size = call.value("image_size")
            size = call.value("size") if size is None else size
            prepared = size if isinstance(size, int) else prepared
    if isinstance(stated, int) and prepared is not None and stated != prepared:
        yield fault(
            "preprocessing",
            f"images become {prepared} pixels, but image_size says {stated}",
            source.model_file,
        )
    published = {name.replace(".", "_") for name in PUBLISHED}
    size = prepared or stated
    if (
        (identifier in published or find_published(identifier) is not None)
        and isinstance(size, int)
        and size != PAPER_INPUT_SIZE
    ):
        yield fault(
            "preprocessing",
            f"the networks of the paper take {PAPER_INPUT_SIZE} pixels, not {size}",
            source.model_file,
        )
