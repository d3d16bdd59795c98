"""Drawing of one scene: a shaded object of solids before a background.

As in `ce_align.data.solids`, nothing but additions, products, quotients and square
roots touches a pixel, so that a scene has the same pixels, hence digest, everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ce_align.data.backgrounds import BACKGROUNDS, hsv_colour, shade, wave
from ce_align.data.objects import OBJECTS
from ce_align.data.solids import DECIMALS, Floats, Hits, Matrix, Solid, cast, rotation

__all__ = ["TEXTURES", "Scene", "render_scene"]

TEXTURES = ("plain", "stripes", "spots")

#: Rays for each pixel, in each direction, where the object is.
OVERSAMPLING = 2
#: Yaw at which most objects show their most telling side.
FRONT_YAW = -30.0


@dataclass(frozen=True)
class Scene:
    """All that determines one image, apart from its number of pixels.

    Attributes
    ----------
    object_name : class
    x, y : position of the object in half image widths, rightwards and upwards
    size : radius of the object in half image widths
    yaw, pitch, roll : degrees by which the object is turned about the vertical, towards
        the viewer, and in the image plane; applied in this order
    hue, saturation, brightness : of the object's main colour, in [0, 1]
    texture : pattern on the main colour
    light : azimuth of the light in degrees, counterclockwise from the right
    background : kind
    background_hue, background_brightness, background_contrast : in [0, 1]
    proportions : shape within the class, in [0, 1]
    seed : of the details of the background
    """

    object_name: str
    x: float
    y: float
    size: float
    yaw: float
    pitch: float
    roll: float
    hue: float
    saturation: float
    brightness: float
    texture: str
    light: float
    background: str
    background_hue: float
    background_brightness: float
    background_contrast: float
    proportions: tuple[float, ...]
    seed: tuple[int, ...]


def render_scene(scene: Scene, size: int) -> NDArray[np.uint8]:
    """Image of a scene.

    Parameters
    ----------
    scene : what to draw
    size : height and width in pixels

    Returns
    -------
    (size, size, 3)
    """
    image = BACKGROUNDS[scene.background](
        np.random.default_rng(scene.seed),
        size,
        (
            scene.background_hue,
            scene.background_brightness,
            scene.background_contrast,
        ),
    )
    n_rays = size * OVERSAMPLING
    rays = ((np.arange(n_rays) + 0.5) * 2 / n_rays - 1).astype(np.float32)
    pose = rotation(2, scene.roll) @ rotation(0, scene.pitch)
    pose = (pose @ rotation(1, FRONT_YAW + scene.yaw)).round(DECIMALS)
    solids = OBJECTS[scene.object_name](scene.proportions)
    hits = cast(solids, pose, (scene.x, scene.y), scene.size, rays)
    if hits.solid.size:
        colour = _paint(scene, solids, hits, rays, pose)
        _compose(image, hits, shade(colour, hits, scene.light))
    np.clip(image, 0, 1, out=image)
    pixels = (image * 255 + np.float32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _paint(
    scene: Scene, solids: Sequence[Solid], hits: Hits, rays: Floats, pose: Matrix
) -> Floats:
    """Colours (3, height, width) of what the rays meet, before any light."""
    main = (scene.saturation, scene.brightness)
    paints = {
        "body": hsv_colour(scene.hue, *main),
        "accent": hsv_colour(scene.hue + 0.08, main[0] * 0.8, main[1] * 0.75),
        "hair": hsv_colour(scene.hue + 0.05, 0.6, 0.3),
        "mouth": hsv_colour(0.98, 0.7, 0.6),
        "leaf": hsv_colour(0.3, 0.6, 0.5),
        "glass": hsv_colour(0.58, 0.35, 0.35),
        "dark": hsv_colour(0.6, 0.15, 0.17),
        "light": hsv_colour(0.13, 0.08, 0.92),
    }
    colour = np.array([paints[solid.paint] for solid in solids], np.float32).T
    painted: Floats = colour[:, hits.solid]
    if scene.texture != "plain":
        patterned = np.array([solid.paint == "body" for solid in solids])[hits.solid]
        pattern = _pattern(scene, hits, rays, pose)
        painted *= 1 - patterned * (1 - pattern) * np.float32(0.45)
    return painted


def _pattern(scene: Scene, hits: Hits, rays: Floats, pose: Matrix) -> Floats:
    """Pattern in [0, 1] that is fixed to the object."""
    n = len(rays)
    x = rays[hits.columns][None, :] - np.float32(scene.x)
    y = rays[n - hits.rows.stop : n - hits.rows.start][::-1, None] - np.float32(scene.y)
    depth = np.where(hits.solid >= 0, hits.depth, 0)
    frequency = 3.5 / scene.size
    to_object = (pose.T * frequency).round(DECIMALS).astype(np.float32)
    x, y, z = (row[0] * x + row[1] * y + row[2] * depth for row in to_object)
    if scene.texture == "stripes":
        return _sharpen(wave(x))
    return _sharpen(wave(x) * wave(y) * wave(z) * 3)


def _sharpen(pattern: Floats) -> Floats:
    sharp: Floats = np.clip(pattern * 3 - 1, 0, 1)
    return sharp


def _compose(image: Floats, hits: Hits, colour: Floats) -> None:
    """Put an object that was drawn with finer rays on an image, in place."""
    step = OVERSAMPLING
    rows, columns = (
        slice(span.start // step, -(-span.stop // step))
        for span in (hits.rows, hits.columns)
    )
    height, width = rows.stop - rows.start, columns.stop - columns.start
    layers = np.zeros((4, height * step, width * step), np.float32)
    inner = layers[
        :,
        hits.rows.start - rows.start * step :,
        hits.columns.start - columns.start * step :,
    ][:, : hits.solid.shape[0], : hits.solid.shape[1]]
    covered = hits.solid >= 0
    np.clip(colour, 0, 1, out=colour)
    np.copyto(inner[:3], colour, where=covered)
    inner[3] = covered
    total = layers[:, ::step, ::step] + layers[:, ::step, 1::step]
    total += layers[:, 1::step, ::step] + layers[:, 1::step, 1::step]
    total *= np.float32(0.25)
    place = image[:, rows, columns]
    place *= 1 - total[3]
    place += total[:3]
