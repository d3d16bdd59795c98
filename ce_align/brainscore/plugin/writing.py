"""What a Brain-Score plugin of ours says, and its files as text."""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ce_align.brainscore.models import Region
from ce_align.errors import ConfigError
from ce_align.files import read_text
from ce_align.models.catalogue import Published
from ce_align.names import OWN_BACKBONES

if TYPE_CHECKING:
    from jinja2 import Environment
    from torch import nn

    from ce_align.models.networks import Network

__all__ = [
    *("EMBEDDED", "PAPER", "TORCHVISION", "PluginSpec", "built", "layer_statistics"),
    *("metadata_document", "model_files", "plugin_files", "recovered_spec"),
]

#: Weights inside a plugin.
EMBEDDED = "weights.safetensors"

#: It names a Python package, a file and a text that Brain-Score searches for.
Identifier = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
]
Layer = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
Colours = tuple[float, float, float]

#: Of weights that are served.
ADDRESS = r"""https?://[^\s"'\\<>]+\.safetensors"""


#: Brain-Score links a network to its reference by author, year and address.
PAPER = """@inproceedings{yerxa2024contrastive,
  title = {Contrastive-Equivariant Self-Supervised Learning Improves Alignment with Primate Visual Area IT},
  author = {Yerxa, Thomas and Feather, Jenelle and Simoncelli, Eero P. and Chung, SueYeon},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {37},
  year = {2024},
  url = {https://papers.nips.cc/paper_files/paper/2024/hash/ae28c7bc9414ffd8ffd2b3d454e6ef3e-Abstract-Conference.html}
}
"""  # noqa: E501

TORCHVISION = """@software{torchvision2016,
  title = {TorchVision: PyTorch's Computer Vision library},
  author = {{TorchVision maintainers and contributors}},
  year = {2016},
  url = {https://github.com/pytorch/vision}
}
"""

#: Beginnings of architectures that are surely convolutional.
CONVOLUTIONAL = ("resnet", "resnext", "wide_resnet", "tiny")

OBJECTIVES = {"mmcr": "MMCR", "barlow": "Barlow Twins", "simclr": "SimCLR"}

#: The paper as people read it.
REFERENCE = (
    "Yerxa, Feather, Simoncelli, Chung (2024). Contrastive-Equivariant "
    "Self-Supervised Learning Improves Alignment with Primate Visual Area IT. "
    "NeurIPS."
)


class PluginSpec(BaseModel):
    """Everything that the code of a plugin depends on.

    The architecture is torchvision's name, timm/NAME, or one of our own; `n_classes` is
    None without a classifier, and `weights_url` for weights that lie inside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    identifier: Identifier
    architecture: Annotated[str, Field(pattern=r"^(timm/)?[a-z0-9_]+$")]
    n_classes: Annotated[int, Field(ge=1)] | None
    layers: Annotated[dict[Region, Layer], Field(min_length=1)]
    input_size: Annotated[int, Field(ge=1, le=4096)]
    mean: Colours
    std: Colours
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    weights_url: str | None
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bibtex: Annotated[str, Field(min_length=1)]

    @field_validator("bibtex")
    @classmethod
    def _without_trailing_space(cls, bibtex: str) -> str:
        return "\n".join(line.rstrip() for line in bibtex.strip().splitlines()) + "\n"

    @field_validator("weights_url")
    @classmethod
    def _is_safe_address(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(ADDRESS, url):
            raise ValueError("expected http(s)://….safetensors")
        return url


def _literal(value: Any) -> str:
    """Python text of a plain value, as a formatter would leave it."""
    if isinstance(value, str):
        if "\n" not in value:
            return json.dumps(value, ensure_ascii=False)
        lines = value.splitlines(keepends=True)
        return (
            "(\n"
            + "".join(f'    {_literal(line.rstrip())[:-1]}\\n"\n' for line in lines)
            + ")"
        )
    if isinstance(value, dict):
        items = (f"{_literal(k)}: {_literal(v)}" for k, v in value.items())
        return "{" + ", ".join(items) + "}"
    return repr(value)


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["literal"] = _literal
    return environment


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(f"{template}.jinja").render(**values)


def model_files(spec: PluginSpec) -> dict[str, str]:
    """The files of a plugin that Brain-Score executes, by name."""
    values = spec.model_dump()
    values["own_source"] = None
    if spec.architecture in OWN_BACKBONES:
        from ce_align.backbones import source_of

        # As text, because Brain-Score's machines do not have this package.
        values["own_source"] = source_of(spec.architecture)
    return {
        "__init__.py": _render("init.py", **values),
        "model.py": _render("model.py", **values),
    }


def plugin_files(
    spec: PluginSpec, expected: dict[str, tuple[float, float]]
) -> dict[str, str]:
    """All files of a plugin but weights and metadata, by name.

    Parameters
    ----------
    spec : what the plugin says
    expected
        mean and standard deviation of each layer for the pattern that its tests draw
    """
    values = spec.model_dump()
    layer_map = json.dumps(dict(spec.layers), indent=4) + "\n"
    return {
        **model_files(spec),
        "test.py": _render("test.py", **values, expected=expected),
        "requirements.txt": _render("requirements.txt", **values),
        f"region_layer_map/{spec.identifier}.json": layer_map,
    }


def recovered_spec(folder: Path) -> PluginSpec | None:
    """What a plugin says, if its code is exactly what this version writes, else None.

    Such code runs no other than torch's, torchvision's, timm's, safetensors' and
    Brain-Score's, whoever the plugin is from.
    """
    try:
        texts = {name: read_text(folder / name) for name in ("__init__.py", "model.py")}
        stated = {
            node.targets[0].id.lower(): ast.literal_eval(node.value)
            for node in ast.parse(texts["model.py"]).body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        spec = PluginSpec(**stated)
    except (OSError, ValueError, SyntaxError, ValidationError, RecursionError):
        return None
    return spec if model_files(spec) == texts else None


def built(architecture: str, n_classes: int | None = None) -> "nn.Module":
    """Architecture as a plugin builds it by name, where it can without weights.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    import torch

    from ce_align.backbones import own_backbone
    from ce_align.models.architectures import timm_network
    from ce_align.vision import models

    def build() -> "nn.Module":
        if architecture in OWN_BACKBONES:
            return own_backbone(architecture, n_classes or 1)
        if architecture.startswith("timm/"):
            return timm_network(architecture.removeprefix("timm/"), n_classes)
        options = {} if n_classes is None else {"num_classes": n_classes}
        network: nn.Module = models.get_model(architecture, weights=None, **options)
        return network

    try:
        with torch.device("meta"):
            return build()
    except RuntimeError:  # some compute their widths with tensors
        return build()
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"torchvision does not build {architecture} ({error})"
        ) from error


def layer_statistics(
    network: "Network", layers: Iterable[str]
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of layers for the image that a plugin's tests draw.

    Its colours change smoothly. Both numbers have six digits.
    """
    from ce_align.data.imagesets import ImageSet
    from ce_align.models.features import extract

    size = network.preprocessing.edge("a plugin")
    y, x = np.mgrid[:size, :size] / size
    colours = (np.sin(9 * x), np.cos(7 * y), np.sin(11 * (x + y)))
    pixels = np.stack([127 + 120 * colour for colour in colours], axis=-1)
    images = ImageSet.from_array("pattern", pixels[None].astype(np.uint8))
    found = extract(network, images, list(layers), device="cpu", cache=None)
    return {
        name: (float(f"{values.mean():.6g}"), float(f"{values.std():.6g}"))
        for name, values in ((name, found[name].values) for name in layers)
    }


def metadata_document(
    spec: PluginSpec,
    *,
    display_name: str,
    n_parameters: int,
    published: Published | None,
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """Metadata of one network in Brain-Score's schema 2.0.

    Only what is known is stated; each section names its source.

    Parameters
    ----------
    spec : the plugin
    display_name : as people read it
    n_parameters : of the network, exactly
    published : the catalogue's entry, for the authors' networks
    training : settings of one's own training, from its weights; else empty
    """
    architecture = {"description": spec.architecture}
    if spec.architecture.startswith(CONVOLUTIONAL):
        architecture["family"] = "convolutional_neural_network"
    edges = {"height": spec.input_size, "width": spec.input_size}
    entry: dict[str, Any] = {
        "model": {
            "display_name": display_name,
            "architecture": architecture,
            "parameter_count": n_parameters,
            "parameter_count_exact": True,
            "recurrent": False,
            "input_resolution": {"channels": 3, **edges},
            "visual_degrees": 8.0,
        },
        "io": {"modality": "image"},
    }
    sources = {"plugin": {"kind": "other", "citation": "The code of this plugin."}}
    if published is not None:
        source = "paper"
        sources[source] = {"kind": "paper", "citation": REFERENCE}
        weight: Any = published.equivariance_weight
        objective: Any = published.objective
        details = {
            "process": f"{published.epochs} epochs, LARS, 10 epochs of linear warm-up, "
            "cosine schedule",
            "learning_rate": "4.8",
            "batch_size": "2048 images (1024 pairs)",
        }
        data = {"identifier": "imagenet-1k", "name": "ImageNet-1k", "role": "training"}
        further: dict[str, Any] = {"data": {"training_datasets": [data]}}
    else:
        source, further = "training", {}
        objective, weight = map(training.get, ("objective", "equivariance_weight"))
        epochs = training.get("epochs")
        details = {"process": f"{epochs} epochs"} if isinstance(epochs, int) else {}
    if isinstance(objective, str) and isinstance(weight, int | float):
        if source == "training":
            citation = "The settings that training stored with the weights."
            sources[source] = {"kind": "other", "citation": citation}
        name = OBJECTIVES.get(objective, objective)
        entry["model"]["supervision"] = {"type": "self_supervised"}
        entry["training"] = {
            "objective": "contrastive-equivariant self-supervised learning",
            "loss": f"(1 - λ) invariant {name} + λ equivariant {name}, λ = {weight:g}",
            **details,
        }
        entry |= further
    origins = {"model": "plugin", "io": "plugin"}
    assertions = [
        {
            "path": f"/{section}",
            "status": "probable",
            "sources": [origins.get(section, source)],
        }
        for section in entry
    ]
    return {
        "schema_version": "2.0",
        "domain": "vision",
        "models": {
            spec.identifier: {**entry, "sources": sources, "assertions": assertions}
        },
    }
