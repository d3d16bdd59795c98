"""How an image becomes a network's input."""

from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from ce_align.digests import digest_json

__all__ = ["Preprocessing"]

#: Share of red, green and blue in luminance (ITU-R 601), as in Pillow's mode L.
LUMINANCE = (0.299, 0.587, 0.114)


class Preprocessing(BaseModel):
    """How an image becomes a network's input.

    The image is resized to a square of `input_size` pixels whatever its shape, scaled
    to [0, 1], and normalised with `mean` and `std` of red, green and blue. The defaults
    are ImageNet's, and those of Brain-Score for networks in torch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input_size: Annotated[PositiveInt, Field(le=4096)] = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"

    @property
    def fingerprint(self) -> str:
        """Digest of the settings."""
        return digest_json(self.model_dump(mode="json"))

    def resize(self, image: Image.Image) -> NDArray[np.uint8]:
        """Pixels (input_size, input_size, 3) of an RGB image."""
        size = (self.input_size, self.input_size)
        if image.size != size:
            image = image.resize(size, Image.Resampling[self.interpolation.upper()])
        return np.asarray(image, dtype=np.uint8)

    def normalise(
        self, pixels: torch.Tensor, *, luminance: bool = False
    ) -> torch.Tensor:
        """Input (n, 3, height, width) of the network from uint8 (n, height, width, 3).

        It keeps the memory order of `pixels`, which torch calls channels-last.

        Parameters
        ----------
        luminance
            give one channel, 0.299 R + 0.587 G + 0.114 B (ITU-R 601, unrounded);
            `mean` and `std` are weighted alike
        """
        mean, std = (
            torch.tensor(values, device=pixels.device).view(1, 3, 1, 1)
            for values in (self.mean, self.std)
        )
        scaled = pixels.permute(0, 3, 1, 2).float().div_(255)
        if luminance:
            weights = torch.tensor(LUMINANCE, device=pixels.device).view(1, 3, 1, 1)
            scaled, mean, std = (
                (values * weights).sum(1, keepdim=True)
                for values in (scaled, mean, std)
            )
        return scaled.sub_(mean).div_(std)
