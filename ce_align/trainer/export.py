"""What is kept of a training: the backbone in torchvision's layout, and its story."""

import math
from typing import Any

from torch import Tensor

from ce_align import __version__
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.online import MEAN, STD
from ce_align.trainer.views import digested

__all__ = ["EXPORTED", "exported_metadata", "exported_state", "model_card"]

#: File in the folder of a training that names a network for every command.
EXPORTED = "model.safetensors"
#: Stage of the residual network that stands for each region.
LAYERS = {"V1": "layer1", "V2": "layer2", "V4": "layer3", "IT": "layer4"}


def exported_state(module: PairedTraining) -> dict[str, Tensor]:
    """Weights of the backbone by torchvision's names; the probe is its ``fc``."""
    state: dict[str, Tensor] = dict(module.network.backbone.state_dict())
    if module.probe is not None:
        state |= {f"fc.{name}": t for name, t in module.probe.state_dict().items()}
    return state


def exported_metadata(
    module: PairedTraining, data: str, n_images: int, metrics: dict[str, float]
) -> dict[str, Any]:
    """What is needed to use the weights, and how they came to be.

    Parameters
    ----------
    module : at the end of its training
    data : digest of the images
    n_images : of the data set
    metrics : numbers at the end, by name. ``gradient_invariant`` and
        ``gradient_equivariant`` are lengths in the last step that was recorded, not
        weighted with λ; that of a term of weight 0 is not there, since its head is not
        trained
    """
    config = module.config
    return {
        "architecture": config.backbone,
        "input_size": config.view_size,
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "layers": LAYERS,
        "config": config.model_dump(mode="json"),
        "data_digest": data,
        "data_digest_of": digested(n_images),
        "epochs": int(module.global_step) // module.steps_per_epoch,
        "steps": int(module.global_step),
        "augmented_on": module.augmented_on,
        "metrics": {k: v for k, v in metrics.items() if math.isfinite(v)},
        "version": __version__,
    }


def model_card(name: str, metadata: dict[str, Any]) -> str:
    """A card for sharing: front matter, what it is, how to use it, what it scored."""
    config = metadata["config"]
    rows = "\n".join(f"| {k} | {v:.4g} |" for k, v in metadata["metrics"].items())
    return f"""---
library_name: ce-align
pipeline_tag: image-feature-extraction
---
# {name}

{config["backbone"]} trained for {metadata["epochs"]} epochs with the
{config["objective"]} objective at equivariance weight {config["equivariance_weight"]}
(contrastive-equivariant self-supervised learning), at {metadata["input_size"]} pixels.

The weights have torchvision's names; the metadata of the file hold normalisation,
layers, settings and the digest of the images. To score them:

    ce-align score --model {name}/{EXPORTED} --recording simulated

| measure at the end of training | value |
|---|---|
{rows}
"""
