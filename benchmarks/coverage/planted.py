"""Planted responses: images, classes, views and crops drawn anew every time.

A network answers to view v of image i with z_i + (W + g_i U) p_iv + noise: content, and
an effect of the augmentation's parameters of which a part differs from image to image.
Two networks see the same images and draws, as a network and its baseline do.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ce_align.augment import AugmentationLedger, sample
from ce_align.stages.variability import Clouds
from ce_align.stages.views import block_means

__all__ = ["Draw", "Sizes", "World"]

FloatArray = NDArray[np.float64]

#: Parameters of an augmentation.
N_PARAMETERS = 12


@dataclass(frozen=True)
class Sizes:
    """How much of everything is drawn.

    Attributes
    ----------
    images, views : images, and views of each
    crops, photometrics : whose combinations are shown
    classes, of_class : classes, and images of each
    features : dimensions of the responses
    """

    images: int
    views: int
    crops: int
    photometrics: int
    classes: int
    of_class: int
    features: int


@dataclass(frozen=True)
class Draw:
    """Images and draws that all networks see.

    Attributes
    ----------
    content : (n_images, n_features)
    amount : (n_images,), how strongly the image's own part of the effect applies
    views : (n_images, n_views, n_parameters)
    crops, photometrics : (n_images, n, n_parameters)
    classes : (n_classes, n_of_class, n_features), content of images of each class
    noise : (n_images, n_views, n_features)
    """

    content: FloatArray
    amount: FloatArray
    views: FloatArray
    crops: FloatArray
    photometrics: FloatArray
    classes: FloatArray
    noise: FloatArray


@dataclass(frozen=True)
class World:
    """Everything that stays the same from one draw to the next.

    Attributes
    ----------
    sizes : of a draw
    readout : (n_features, n_features), of the network, from content to responses
    effects : (2, n_parameters, n_features), common effect and the images' own
    """

    sizes: Sizes
    readout: FloatArray
    effects: FloatArray

    @classmethod
    def of(cls, sizes: Sizes, network: int = 0) -> "World":
        """The world of one network, the same for the same arguments."""
        rng = np.random.default_rng([network, sizes.features])
        scale = 1 / np.sqrt(sizes.features)
        mixing = rng.normal(size=(sizes.features, sizes.features)) * scale
        spread = np.arange(1, N_PARAMETERS + 1)[:, None] ** -0.5
        effects = rng.normal(size=(2, N_PARAMETERS, sizes.features)) * scale * spread
        readout = np.eye(sizes.features) + 0.5 * network * mixing
        return cls(sizes, readout, effects * (1 + network))

    def draw(self, rng: np.random.Generator) -> Draw:
        """Images, classes, views and crops, all anew."""
        n, spread = self.sizes, np.arange(1, self.sizes.features + 1) ** -0.5
        # Classes differ in their mean and in the directions in which they spread.
        centre = rng.normal(size=(n.classes, 1, n.features))
        stretch = np.exp(0.5 * rng.normal(size=(n.classes, 1, n.features)))
        within = rng.normal(size=(n.classes, n.of_class, n.features))
        return Draw(
            content=rng.normal(size=(n.images, n.features)) * spread,
            amount=np.exp(0.5 * rng.normal(size=n.images)),
            views=rng.normal(size=(n.images, n.views, N_PARAMETERS)),
            crops=rng.normal(size=(n.images, n.crops, N_PARAMETERS)),
            photometrics=rng.normal(size=(n.images, n.photometrics, N_PARAMETERS)),
            classes=(centre + stretch * within) * spread,
            noise=0.05 * rng.normal(size=(n.images, n.views, n.features)),
        )

    def respond(self, draw: Draw) -> Clouds:
        """What the comparisons need of this network's responses."""
        half = N_PARAMETERS // 2
        spatial = self._moved(draw.crops, draw.amount, slice(None, half))
        photometric = self._moved(draw.photometrics, draw.amount, slice(half, None))
        grid = spatial[:, :, None] + photometric[:, None]
        # What a crop leaves to see changes what a photometric transformation does.
        grid = (
            grid
            + 0.3
            * np.roll(spatial, 1, axis=-1)[:, :, None]
            * np.roll(photometric, 2, axis=-1)[:, None]
        )
        return Clouds(
            self.strong(draw),
            np.stack([block_means(views) for views in grid.astype(np.float32)]),
            (draw.classes @ self.readout).astype(np.float32),
        )

    def strong(self, draw: Draw) -> NDArray[np.float32]:
        """Responses (n_images, n_views, n_features) to the views."""
        moved = self._moved(draw.views, draw.amount) + draw.noise
        return (self.clean(draw)[:, None] + moved).astype(np.float32)

    def clean(self, draw: Draw) -> FloatArray:
        """Responses (n_images, n_features) to the images themselves."""
        return np.asarray(draw.content @ self.readout)

    def augmented(
        self, draw: Draw, rng: np.random.Generator, *, shared: bool = False
    ) -> tuple[NDArray[np.float32], AugmentationLedger]:
        """Responses (n_images, n_views, n_features) to the paper's augmentations.

        Parameters
        ----------
        draw : gives the images
        rng : draws the augmentations
        shared : whether all images go through the same
        """
        n_images, n_views, n_features = draw.noise.shape
        n = n_views if shared else n_images * n_views
        ledger = sample("strong", n, rng)
        if shared:
            ledger = AugmentationLedger.concat([ledger] * n_images)
        centre, scale = _typical_parameters()
        parameters = (ledger.parameters() - centre) / scale
        parameters = parameters.reshape(n_images, n_views, N_PARAMETERS)
        # The images' own part is no linear readout of the parameters.
        common = parameters @ self.effects[0]
        own = np.tanh(np.roll(parameters, 1, axis=2)) @ self.effects[1]
        moved = common + 0.5 * draw.amount[:, None, None] * own
        noise = 3 * rng.normal(size=draw.noise.shape) / np.sqrt(n_features)
        responses = self.clean(draw)[:, None] + moved + 0.1 * noise
        return responses.astype(np.float32), ledger

    def _moved(
        self, parameters: FloatArray, amount: FloatArray, of: slice = slice(None)
    ) -> FloatArray:
        common, own = (effect[of] for effect in self.effects)
        some = parameters[..., of]
        return np.asarray(some @ common + amount[:, None, None] * (some @ own))


@cache
def _typical_parameters() -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of the parameters of the paper's augmentations."""
    drawn = sample("strong", 5000, np.random.default_rng(0)).parameters()
    return drawn.mean(axis=0), drawn.std(axis=0)
