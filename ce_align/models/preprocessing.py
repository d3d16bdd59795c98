"""How an image becomes a network's input."""

import math
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import (
    BaseModel,
    ConfigDict,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from ce_align.digests import digest_json
from ce_align.errors import ConfigError

__all__ = ["Preprocessing"]

#: Longest edge of an input, in pixels: networks take at most this, and a file that
#: states more would take gigabytes.
MAX_EDGE = 1024

#: Share of red, green and blue in luminance (ITU-R 601), as in Pillow's mode L.
LUMINANCE = (0.299, 0.587, 0.114)


class Preprocessing(BaseModel):
    """How an image becomes a network's input.

    The image is resized to `input_size` pixels (a square, or height and width) whatever
    its shape, scaled to [0, 1], and normalised with `mean` and `std` of red, green and
    blue; one value stands for all three. The defaults are ImageNet's, and those of
    Brain-Score for networks in torch.

    With `crop_pct` it is cropped, as timm does: the image's shorter edge becomes
    `input_size` / `crop_pct` pixels (with ``squash`` both edges do), and the centre is
    the input.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input_size: int | tuple[int, int] = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    crop_pct: PositiveFloat | None = None
    crop_mode: Literal["center", "squash"] = "center"

    @field_validator("input_size", mode="before")
    @classmethod
    def _edges(cls, given: Any) -> int | tuple[int, int]:
        edges = given if isinstance(given, tuple | list) else (given, given)
        try:
            height, width = (int(edge) for edge in edges)
        except (TypeError, ValueError, OverflowError):
            height, width = 0, 0
        known = 1 <= height <= MAX_EDGE and 1 <= width <= MAX_EDGE
        if not (known and all(float(edge) == int(edge) for edge in edges)):
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

    @model_serializer(mode="wrap")
    def _stated(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = dump(self)
        # Identities and files of before know of no crop.
        unsaid = ("crop_pct", "crop_mode") if self.crop_pct is None else ()
        return {name: value for name, value in found.items() if name not in unsaid}

    @model_validator(mode="after")
    def _crops_squares(self) -> Self:
        square = isinstance(self.input_size, int)
        if self.crop_pct is not None and self.crop_mode == "center" and not square:
            raise ValueError("a crop of the centre needs a square input")
        return self

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
        if self.crop_pct is not None:
            return np.asarray(self._cropped(image, self.crop_pct), dtype=np.uint8)
        if image.size != (width, height):
            method = Image.Resampling[self.interpolation.upper()]
            image = image.resize((width, height), method)
        return np.asarray(image, dtype=np.uint8)

    def _cropped(self, image: Image.Image, crop_pct: float) -> Image.Image:
        from ce_align.vision import InterpolationMode, functional

        edges = [math.floor(edge / crop_pct) for edge in self.size]
        # One number is the shorter edge, whatever the shape.
        target = edges if self.crop_mode == "squash" else edges[:1]
        mode = InterpolationMode(self.interpolation)
        resized = functional.resize(image, target, mode)
        found: Image.Image = functional.center_crop(resized, list(self.size))
        return found

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
