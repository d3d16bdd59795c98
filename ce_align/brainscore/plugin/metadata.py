"""What a plugin says about itself beside its code: citation and metadata."""

from collections.abc import Mapping
from typing import Any

from ce_align.brainscore.plugin.networks import Rebuildable
from ce_align.brainscore.plugin.writing import PluginSpec
from ce_align.errors import ConfigError
from ce_align.models.catalogue import Published

__all__ = ["PAPER", "TORCHVISION", "citation", "metadata_document"]

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


def citation(found: Rebuildable) -> str:
    """What to cite for a network: the paper, or torchvision.

    Raises
    ------
    ConfigError
        If its name does not say.
    """
    if found.published is not None or found.training:
        return PAPER
    if found.model.startswith("torchvision/"):
        return TORCHVISION
    raise ConfigError(
        f"nothing says what to cite for {found.model}; name a file with --bibtex"
    )


def metadata_document(
    spec: PluginSpec,
    *,
    display_name: str,
    n_parameters: int,
    published: Published | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Metadata of one network in Brain-Score's schema 2.0.

    Parameters
    ----------
    spec : the plugin
    display_name : as people read it
    n_parameters : of the network, exactly
    published : the catalogue's entry, for the authors' networks
    training : settings of one's own training, from its weights

    Notes
    -----
    Only what is known is stated; each section names its source.
    """
    entry: dict[str, Any] = {
        "model": {
            "display_name": display_name,
            "architecture": {"description": spec.architecture},
            "parameter_count": n_parameters,
            "parameter_count_exact": True,
            "recurrent": False,
            "input_resolution": {
                "channels": 3,
                "height": spec.input_size,
                "width": spec.input_size,
            },
            "visual_degrees": 8.0,
        },
        "io": {"modality": "image"},
    }
    if spec.architecture.startswith(CONVOLUTIONAL):
        family = "convolutional_neural_network"
        entry["model"]["architecture"]["family"] = family
    sources = {"plugin": {"kind": "other", "citation": "The code of this plugin."}}
    asserted = {"/model": "plugin", "/io": "plugin"}
    if published is not None:
        sources["paper"] = {"kind": "paper", "citation": _citation()}
        stated = _published_training(published)
        source = "paper"
    else:
        stated = _own_training(training or {})
        source = "training"
        if stated:
            citation = "The settings that training stored with the weights."
            sources["training"] = {"kind": "other", "citation": citation}
    entry["model"].update(stated.pop("model", {}))
    entry.update(stated)
    asserted.update({f"/{section}": source for section in stated})
    entry["sources"] = sources
    entry["assertions"] = [
        {"path": path, "status": "probable", "sources": [name]}
        for path, name in asserted.items()
    ]
    return {
        "schema_version": "2.0",
        "domain": "vision",
        "models": {spec.identifier: entry},
    }


def _citation() -> str:
    return (
        "Yerxa, Feather, Simoncelli, Chung (2024). Contrastive-Equivariant "
        "Self-Supervised Learning Improves Alignment with Primate Visual Area IT. "
        "NeurIPS."
    )


def _self_supervised(objective: str, weight: float) -> dict[str, Any]:
    name = OBJECTIVES.get(objective, objective)
    return {
        "model": {"supervision": {"type": "self_supervised"}},
        "training": {
            "objective": "contrastive-equivariant self-supervised learning",
            "loss": f"(1 - λ) invariant {name} + λ equivariant {name}, λ = {weight:g}",
        },
    }


def _published_training(published: Published) -> dict[str, Any]:
    stated = _self_supervised(published.objective, published.equivariance_weight)
    stated["training"] |= {
        "process": f"{published.epochs} epochs, LARS, 10 epochs of linear warm-up, "
        "cosine schedule",
        "learning_rate": "4.8",
        "batch_size": "2048 images (1024 pairs)",
    }
    dataset = {"identifier": "imagenet-1k", "name": "ImageNet-1k", "role": "training"}
    return {**stated, "data": {"training_datasets": [dataset]}}


def _own_training(config: Mapping[str, Any]) -> dict[str, Any]:
    objective, weight = config.get("objective"), config.get("equivariance_weight")
    if not isinstance(objective, str) or not isinstance(weight, int | float):
        return {}
    stated = _self_supervised(objective, weight)
    if isinstance(config.get("epochs"), int):
        stated["training"]["process"] = f"{config['epochs']} epochs"
    return stated
