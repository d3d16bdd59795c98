"""How an image becomes a network's input."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, PositiveFloat, field_validator

from ce_align.digests import digest_json
from ce_align.errors import ConfigError

__all__ = ["Preprocessing"]

#: Longest edge of an input, in pixels.
MAX_EDGE = 4096

#: Share of red, green and blue in luminance (ITU-R 601), as in Pillow's mode L.
LUMINANCE = (0.299, 0.587, 0.114)


class Preprocessing(BaseModel):
    """How an image becomes a network's input.

    The image is resized to `input_size` pixels (a square, or height and width) whatever
    its shape, scaled to [0, 1], and normalised with `mean` and `std` of red, green and
    blue; one value stands for all three. The defaults are ImageNet's, and those of
    Brain-Score for networks in torch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input_size: int | tuple[int, int] = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"

    @field_validator("input_size", mode="before")
    @classmethod
    def _edges(cls, given: Any) -> int | tuple[int, int]:
        edges = given if isinstance(given, tuple | list) else (given, given)
        try:
            height, width = (int(edge) for edge in edges)
        except (TypeError, ValueError, OverflowError):
            height, width = 0, 0
        whole = all(float(e) == int(e) for e in edges) if height else False
        if not (whole and 1 <= height <= MAX_EDGE and 1 <= width <= MAX_EDGE):
            raise ValueError(
                f"expected pixels from 1 to {MAX_EDGE}, or [height, width], found "
                f"{given!r}"
            )
        # A square has one name, whichever way it was said.
        return height if height == width else (height, width)

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _colours(cls, given: Any) -> Any:
        alone = isinstance(given, tuple | list) and len(given) == 1
        return tuple(given) * 3 if alone else given

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input, in pixels."""
        edges = self.input_size
        return edges if isinstance(edges, tuple) else (edges, edges)

    def edge(self, what: str) -> int:
        """Edge of a square input, which `what` needs.

        Raises
        ------
        ConfigError
            If the input is no square.
        """
        if isinstance(self.input_size, int):
            return self.input_size
        height, width = self.input_size
        raise ConfigError(
            f"{what} needs a network with square inputs, found {height} × {width} "
            "(height × width) pixels"
        )

    @property
    def fingerprint(self) -> str:
        """Digest of the settings."""
        return digest_json(self.model_dump(mode="json"))

    def resize(self, image: Image.Image) -> NDArray[np.uint8]:
        """Pixels (height, width, 3) of an RGB image."""
        height, width = self.size
        if image.size != (width, height):
            method = Image.Resampling[self.interpolation.upper()]
            image = image.resize((width, height), method)
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
