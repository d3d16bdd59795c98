"""Drawing of one scene: a shaded object of solids before a background.

As in `ce_align.data.objects`, nothing but additions, products, quotients and square
roots touches a pixel, so that a scene has the same pixels, hence digest, everywhere.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ce_align.data.objects import (
    DECIMALS,
    OBJECTS,
    Floats,
    Hits,
    Matrix,
    Solid,
    box,
    cast,
    cylinder,
    ellipsoid,
    rotation,
)

__all__ = ["BACKGROUNDS", "TEXTURES", "Scene", "hsv_colour", "render_scene"]

#: Hue, brightness and contrast of a background, each in [0, 1].
Look = tuple[float, float, float]

N_CLUTTER = 14


def hsv_colour(hue: float, saturation: float, brightness: float) -> Floats:
    """Colour (3,) in [0, 1] from hue (any real number, period 1) and the like."""
    corner = [(6 * hue + offset) % 6 for offset in (5, 3, 1)]
    strength = [max(0.0, min(k, 4 - k, 1.0)) for k in corner]
    return np.array([brightness * (1 - saturation * s) for s in strength], np.float32)


def wave(phase: Floats) -> Floats:
    """Smooth wave of period 1 in [0, 1], 1 at whole numbers."""
    rise = np.abs((phase - np.floor(phase)) * 2 - 1)
    smooth: Floats = rise * rise * (3 - 2 * rise)
    return smooth


def shade(colour: Floats, hits: Hits, azimuth: float) -> Floats:
    """Colours (3, height, width) as lit from an azimuth (degrees), with gloss."""
    angle = math.radians(azimuth)
    across, up, towards = 0.68 * math.cos(angle), 0.68 * math.sin(angle), 0.73
    facing = _along(hits.normal, (across, up, towards))
    # Half-way between the light and the viewer, who is at (0, 0, 1).
    norm = math.sqrt(across**2 + up**2 + (1 + towards) ** 2)
    gloss = _along(hits.normal, (across / norm, up / norm, (1 + towards) / norm))
    np.maximum(gloss, 0, out=gloss)
    for _ in range(4):  # to the 16th power, by squaring
        gloss *= gloss
    light = np.maximum(facing, 0) * np.float32(0.75) + (
        hits.normal[1] + 2
    ) * np.float32(0.16)
    lit: Floats = colour * light + gloss * np.float32(0.22)
    return lit


def _along(vectors: Floats, direction: tuple[float, float, float]) -> Floats:
    a, b, c = (np.float32(round(value, DECIMALS)) for value in direction)
    product: Floats = vectors[0] * a + vectors[1] * b
    product += vectors[2] * c
    return product


@lru_cache(maxsize=32)
def _weights(cells: int, size: int) -> tuple[NDArray[np.intp], Floats]:
    position = (np.arange(size) + 0.5) * cells / size
    cell = position.astype(np.intp)
    share = position - cell
    return cell, (share * share * (3 - 2 * share)).astype(np.float32)


def _patches(rng: np.random.Generator, cells: int, size: int) -> Floats:
    """Noise (size, size) in [0, 1], smooth between random values on a grid."""
    grid = rng.random((cells + 1, cells + 1)).astype(np.float32)
    cell, share = _weights(cells, size)
    rows = grid[cell] + (grid[cell + 1] - grid[cell]) * share[:, None]
    smooth: Floats = rows[:, cell] + (rows[:, cell + 1] - rows[:, cell]) * share
    return smooth


def _noise(rng: np.random.Generator, size: int, cells: int, octaves: int) -> Floats:
    """Noise (size, size) about 0 with less power at finer scales."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        scale = np.float32(0.55**octave)
        total += (_patches(rng, cells << octave, size) - np.float32(0.5)) * scale
    return total


def _mix(first: Floats, second: Floats, share: Floats) -> Floats:
    mixed: Floats = first[:, None, None] + (second - first)[:, None, None] * share
    return mixed


def _tones(rng: np.random.Generator, look: Look) -> tuple[Floats, Floats]:
    """A dark and a light colour of a background."""
    hue, brightness, contrast = look
    dark = hsv_colour(hue, 0.15 + 0.3 * rng.random(), brightness * (1 - 0.6 * contrast))
    light = min(1.0, brightness * (1 + 0.5 * contrast))
    return dark, hsv_colour(hue + 0.2 * (rng.random() - 0.5), 0.25, light)


def _plane(rng: np.random.Generator, size: int) -> tuple[Floats, Floats]:
    """Coordinates in half image widths, turned by a random angle."""
    angle = math.pi * rng.random()
    cosine = np.float32(round(math.cos(angle), DECIMALS))
    sine = np.float32(round(math.sin(angle), DECIMALS))
    axis = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    x, y = axis[None, :], axis[:, None]
    return cosine * x + sine * y, cosine * y - sine * x


def _clouds(rng: np.random.Generator, size: int, look: Look) -> Floats:
    share = _noise(rng, size, 3, 5) * np.float32(1.3) + np.float32(0.5)
    return _mix(*_tones(rng, look), np.clip(share, 0, 1))


def _horizon(rng: np.random.Generator, size: int, look: Look) -> Floats:
    ground, sky = _tones(rng, look)
    height = np.float32(0.3 + 0.45 * rng.random())
    down = ((np.arange(size) + 0.5) / size).astype(np.float32)[:, None]
    ridge = _patches(rng, 6, size)[:1] - np.float32(0.5)
    ridge = height + ridge * np.float32(0.15)
    fade = np.clip((down - ridge) * np.float32(size / 2) + np.float32(0.5), 0, 1)
    haze = np.clip(down / ridge, 0, 1) * np.float32(0.4)
    sky_image = _mix(sky, np.ones(3, np.float32), haze)
    sky_image = sky_image + _noise(rng, size, 3, 3) * np.float32(0.15)
    near = np.float32(0.95) + np.clip(down - height, 0, 1) * np.float32(0.6)
    soil = near + _noise(rng, size, 8, 4) * np.float32(0.6)
    return sky_image + (ground[:, None, None] * soil - sky_image) * fade


def _stripes(rng: np.random.Generator, size: int, look: Look) -> Floats:
    across, _ = _plane(rng, size)
    phase = across * np.float32(1 + 3 * rng.random()) + np.float32(rng.random())
    share = wave(phase + _noise(rng, size, 2, 3) * np.float32(0.8))
    grain = 1 + _noise(rng, size, 8, 3) * np.float32(0.3)
    return _mix(*_tones(rng, look), share) * grain


def _tiles(rng: np.random.Generator, size: int, look: Look) -> Floats:
    across, down = _plane(rng, size)
    n_tiles = np.float32(1.5 + 2.5 * rng.random())
    row = np.floor(down * n_tiles)
    column_place = across * n_tiles / 2 + (row - 2 * np.floor(row / 2)) / 2
    column = np.floor(column_place)
    tint = rng.random((32, 32)).astype(np.float32)
    share = tint[row.astype(np.intp) % 32, column.astype(np.intp) % 32]
    # Waves are 1 at the seams, where there is mortar.
    seam = np.maximum(wave(down * n_tiles), wave(column_place))
    mortar = np.clip(seam * 12 - 11, 0, 1) * np.float32(0.6)
    grain = 1 + _noise(rng, size, 8, 3) * np.float32(0.35)
    return _mix(*_tones(rng, look), share) * (grain * (1 - mortar))


def _clutter(rng: np.random.Generator, size: int, look: Look) -> Floats:
    image = _clouds(rng, size, look)
    hue, brightness, contrast = look
    rays = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    solids, colours = [], []
    for _ in range(N_CLUTTER):
        x, y, a, b, c, kind, tone, spread = rng.random(8).tolist()
        make = (box, ellipsoid, lambda *args: cylinder(*args, axis=1))[int(3 * kind)]
        half = (0.08 + 0.3 * a, 0.08 + 0.3 * b, 0.08 + 0.2 * c)
        solids.append(make((2.4 * x - 1.2, 2.4 * y - 1.2, c), half, ""))
        value = brightness * (1 + contrast * (tone - 0.5))
        colours.append(hsv_colour(hue + 0.3 * (spread - 0.5), 0.35, min(1.0, value)))
    solids = [solid.turned(i % 3, 180 * rng.random()) for i, solid in enumerate(solids)]
    pose = rotation(0, 25) @ rotation(1, 35)
    hits = cast(solids, pose.round(DECIMALS), (0.0, 0.0), 1.0, rays)
    colour = np.array(colours, np.float32).T[:, hits.solid]
    lit = shade(colour, hits, 180 * rng.random())
    place = image[:, hits.rows, hits.columns]
    np.copyto(place, lit, where=hits.solid >= 0)
    return image


#: Painters of (3, size, size) in [0, 1] or little beyond; new kinds go to the end.
BACKGROUNDS: dict[str, Callable[[np.random.Generator, int, Look], Floats]] = {
    "clouds": _clouds,
    "horizon": _horizon,
    "stripes": _stripes,
    "tiles": _tiles,
    "clutter": _clutter,
}


TEXTURES = ("plain", "stripes", "spots")

#: Rays for each pixel, in each direction, where the object is.
OVERSAMPLING = 2
#: Yaw at which most objects show their most telling side.
FRONT_YAW = -30.0


@dataclass(frozen=True)
class Scene:
    """All that determines one image, apart from its number of pixels."""

    object_name: str
    # In half image widths: the object's place, rightwards and upwards, and radius.
    x: float
    y: float
    size: float
    # Degrees by which the object is turned about the vertical, towards the viewer, and
    # in the image plane; applied in this order.
    yaw: float
    pitch: float
    roll: float
    # The object's main colour, in [0, 1], and the pattern on it.
    hue: float
    saturation: float
    brightness: float
    texture: str
    # Azimuth of the light in degrees, counterclockwise from the right.
    light: float
    background: str
    background_hue: float
    background_brightness: float
    background_contrast: float
    # Shape within the class, in [0, 1].
    proportions: tuple[float, ...]
    # Of the details of the background.
    seed: tuple[int, ...]


def render_scene(scene: Scene, size: int) -> NDArray[np.uint8]:
    """Image (size, size, 3) of a scene."""
    look = scene.background_hue, scene.background_brightness, scene.background_contrast
    paint = BACKGROUNDS[scene.background]
    image = paint(np.random.default_rng(scene.seed), size, look)
    n_rays = size * OVERSAMPLING
    rays = ((np.arange(n_rays) + 0.5) * 2 / n_rays - 1).astype(np.float32)
    pose = rotation(2, scene.roll) @ rotation(0, scene.pitch)
    pose = (pose @ rotation(1, FRONT_YAW + scene.yaw)).round(DECIMALS)
    solids = OBJECTS[scene.object_name](scene.proportions)
    hits = cast(solids, pose, (scene.x, scene.y), scene.size, rays)
    if hits.solid.size:
        colour = _painted(scene, solids, hits, rays, pose)
        _compose(image, hits, shade(colour, hits, scene.light))
    np.clip(image, 0, 1, out=image)
    pixels = (image * 255 + np.float32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _painted(
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
    spots = wave(x) if scene.texture == "stripes" else wave(x) * wave(y) * wave(z) * 3
    sharp: Floats = np.clip(spots * 3 - 1, 0, 1)
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
