"""Embedded networks without weights to download: controls for any comparison."""

import math
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing

__all__ = ["GaborEnergy", "gabor", "pixels"]

REGIONS = ("V1", "V2", "V4", "IT")


def _raw(input_size: int) -> Preprocessing:
    """Inputs in [0, 1], as these controls have no statistics to normalise with."""
    return Preprocessing(input_size=input_size, mean=(0, 0, 0), std=(1, 1, 1))


def pixels() -> Network:
    """The image itself: 32×32 pixels of red, green and blue."""
    module = nn.Sequential(OrderedDict(pixels=nn.Identity()))
    layers = dict.fromkeys(REGIONS, "pixels")
    return Network("pixels", module, _raw(32), layers)


def gabor_filters(
    size: int, wavelengths: tuple[float, ...], n_orientations: int
) -> torch.Tensor:
    """Gabor filters in quadrature.

    Parameters
    ----------
    size : width of a filter, in pixels
    wavelengths : of the carrier, in pixels
    n_orientations : evenly over a half-turn

    Returns
    -------
    filters : (2 · n_wavelengths · n_orientations, 1, size, size); even ones (cosine)
        first; each has zero mean and unit norm. The Gaussian has a standard deviation
        of half a wavelength along the carrier and one wavelength across, near the
        bandwidth of simple cells in V1.
    """
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    bank = []
    for phase in (0.0, math.pi / 2):
        for wavelength in wavelengths:
            for index in range(n_orientations):
                angle = math.pi * index / n_orientations
                along = x * math.cos(angle) + y * math.sin(angle)
                across = y * math.cos(angle) - x * math.sin(angle)
                envelope = torch.exp(
                    -2 * (along / wavelength) ** 2 - (across / wavelength) ** 2 / 2
                )
                carrier = torch.cos(2 * math.pi * along / wavelength - phase)
                weights = envelope * carrier
                weights = weights - envelope * (weights.sum() / envelope.sum())
                bank.append(weights / weights.norm())
    return torch.stack(bank)[:, None].float()


class GaborEnergy(nn.Module):
    """Simple and complex cells of a V1-like filter bank on luminance.

    Input (n, 3, height, width) in [0, 1]; output (n, filters, 14, 14): the energy of
    each quadrature pair, averaged over places.
    """

    def __init__(
        self,
        wavelengths: tuple[float, ...] = (4.0, 6.0, 9.0, 13.5),
        n_orientations: int = 8,
        size: int = 27,
    ) -> None:
        super().__init__()
        filters = gabor_filters(size, wavelengths, n_orientations)
        self.filters = nn.Parameter(filters, requires_grad=False)
        luminance = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        self.luminance = nn.Parameter(luminance, requires_grad=False)
        self.simple = nn.ReLU()
        self.complex = nn.AdaptiveAvgPool2d(14)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Energies (n, filters, 14, 14)."""
        gray = (images * self.luminance).sum(1, keepdim=True)
        # The border is repeated: a black frame would be an edge.
        margin = self.filters.shape[-1] // 2
        padded = functional.pad(gray, [margin] * 4, mode="replicate")
        responses = functional.conv2d(padded, self.filters, stride=2)
        # Simple cells are half-wave rectified: four phases in two opposite pairs.
        cells = self.simple(torch.cat([responses, -responses], 1))
        even, odd = (cells**2).unflatten(1, (2, 2, -1)).sum(1).unbind(1)
        energy: torch.Tensor = self.complex((even + odd).sqrt())
        return energy


def gabor() -> Network:
    """A fixed bank of Gabor filters: 4 wavelengths × 8 orientations on 14×14 places."""
    layers = dict.fromkeys(REGIONS, "complex")
    return Network("gabor", GaborEnergy(), _raw(112), layers)
