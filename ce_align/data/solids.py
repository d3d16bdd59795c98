"""Simple solids, their rotation, and casting parallel rays at them.

A pixel is made by additions, products, quotients and square roots only: IEEE 754 fixes
each of them to the last bit, so an image is the same on every machine. Sines and
cosines, which no standard fixes, enter as single numbers that are rounded first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Hits", "Solid", "box", "cast", "cylinder", "ellipsoid", "rotation"]

Vector = tuple[float, float, float]
Position = tuple[float, float]
Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]

UNBOUNDED = (-math.inf, math.inf)
#: Decimals kept of whatever a sine or cosine went into.
DECIMALS = 9


@dataclass(frozen=True)
class Solid:
    """Points q of the solid's own frame that meet all of its constraints.

    These are: q₁² + q₂² + q₃² ≤ radius² over the `round_axes`, and low ≤ qᵢ ≤ high for
    the `bounds` of each axis.

    Attributes
    ----------
    centre, half : position and half-axes in the frame of the object, whose radius is
        about 1; x to the right, y up, z towards the viewer
    paint : which of the object's colours it has
    turn : axis and angle in degrees by which the solid is rotated about its centre
    """

    centre: Vector
    half: Vector
    paint: str
    round_axes: tuple[int, ...]
    radius: float = 1.0
    bounds: tuple[tuple[float, float], ...] = (UNBOUNDED, UNBOUNDED, UNBOUNDED)
    turn: tuple[int, float] = (0, 0.0)

    def turned(self, axis: int, degrees: float) -> "Solid":
        """The same solid, rotated about its centre."""
        return replace(self, turn=(axis, degrees))

    def cut(self, axis: int, low: float, high: float) -> "Solid":
        """The part between two planes, given in half-axes."""
        bounds = list(self.bounds)
        bounds[axis] = (low, high)
        return replace(self, bounds=tuple(bounds))


def ellipsoid(centre: Vector, half: Vector, paint: str) -> Solid:
    """An ellipsoid."""
    return Solid(centre, half, paint, (0, 1, 2))


def box(centre: Vector, half: Vector, paint: str, *, radius: float = 1.5) -> Solid:
    """A box whose corners are rounded where `radius` is below √3."""
    return Solid(centre, half, paint, (0, 1, 2), radius, ((-1, 1),) * 3)


def cylinder(centre: Vector, half: Vector, paint: str, *, axis: int) -> Solid:
    """A cylinder along one axis."""
    across = tuple(other for other in range(3) if other != axis)
    return Solid(centre, half, paint, across).cut(axis, -1, 1)


def rotation(axis: int, degrees: float) -> Matrix:
    """Matrix (3, 3) of the rotation about a coordinate axis."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = cosine
    matrix[second, first], matrix[first, second] = sine, -sine
    return matrix.round(DECIMALS)


@dataclass(frozen=True)
class Hits:
    """What each ray of a rectangle of the image meets first.

    Attributes
    ----------
    rows, columns : the rectangle of rays that can meet something
    solid : (height, width), number of the solid, −1 for none
    depth : (height, width), coordinate towards the viewer
    normal : (3, height, width), outward unit vector; arbitrary where nothing is met
    """

    rows: slice
    columns: slice
    solid: NDArray[np.int8]
    depth: Floats
    normal: Floats


def cast(
    solids: Sequence[Solid], pose: Matrix, position: Position, size: float, grid: Floats
) -> Hits:
    """First solid along every ray of a square grid.

    Parameters
    ----------
    solids : parts of one object
    pose : (3, 3) rotation of the object
    position : of the object, in half image widths, rightwards and upwards
    size : what 1 in the frame of the object is in half image widths
    grid : (n,) coordinates of the rays, rising; the same for columns (rightwards) and
        rows (upwards)

    Returns
    -------
    Rows count downwards from the top, as in an image.
    """
    axes, centres = _frames(solids, pose, position, size)
    # The axes are orthogonal but unequally long.
    to_solids = (axes / (axes**2).sum(axis=1, keepdims=True)).round(DECIMALS)
    below, above = _extents(solids, axes, centres)
    low, high = below.min(axis=0), above.max(axis=0)
    columns, rows = (_span(grid, low[i], high[i]) for i in (0, 1))
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    which = np.full(shape, -1, np.int8)
    depth = np.full(shape, -np.inf, np.float32)
    normal = np.zeros((3, *shape), np.float32)
    here = centres.astype(np.float32)
    for number, solid in enumerate(solids):
        inner_columns, inner_rows = (
            _span(grid, below[number, i], above[number, i]) for i in (0, 1)
        )
        x, y = grid[inner_columns] - here[number, 0], grid[inner_rows] - here[number, 1]
        if not (len(x) and len(y)):
            continue
        near, met, found = _meet(solid, to_solids[number].T, x[None, :], y[:, None])
        near += here[number, 2]
        place = (_within(inner_rows, rows), _within(inner_columns, columns))
        met &= near > depth[place]
        np.copyto(depth[place], near, where=met)
        np.copyto(which[place], np.int8(number), where=met)
        np.copyto(normal[:, place[0], place[1]], found, where=met)
    normal /= np.sqrt(_squares(normal) + np.float32(1e-12))
    downwards = slice(len(grid) - rows.stop, len(grid) - rows.start)
    return Hits(downwards, columns, which[::-1], depth[::-1], normal[:, ::-1])


def _squares(vectors: Floats) -> Floats:
    total: Floats = vectors[0] * vectors[0] + vectors[1] * vectors[1]
    total += vectors[2] * vectors[2]
    return total


def _frames(
    solids: Sequence[Solid], pose: Matrix, position: Position, size: float
) -> tuple[Matrix, Matrix]:
    """Axes (n, 3, 3; columns) and centres (n, 3) of solids in the image's frame."""
    turns = np.array([rotation(*solid.turn) for solid in solids])
    halves = np.array([solid.half for solid in solids])
    centres = np.array([solid.centre for solid in solids])
    axes = size * (pose @ turns) * halves[:, None, :]
    return (
        axes.round(DECIMALS),
        (size * centres @ pose.T + (*position, 0.0)).round(DECIMALS),
    )


def _extents(
    solids: Sequence[Solid], axes: Matrix, centres: Matrix
) -> tuple[Matrix, Matrix]:
    """Corners (n, 3) of boxes of the image's frame that hold the solids."""
    radius = np.array([solid.radius for solid in solids])[:, None]
    bounds = np.array([solid.bounds for solid in solids])
    # Round axes end at the radius, the others at their bounds, which are inside it.
    edges = np.clip(bounds, -radius[:, None], radius[:, None])
    reach = np.sort(axes[..., None] * edges[:, None], axis=3).sum(axis=2)
    ball = radius * np.sqrt((axes**2).sum(axis=2))
    ball[[len(solid.round_axes) < 3 for solid in solids]] = np.inf
    low, high = np.maximum(reach[..., 0], -ball), np.minimum(reach[..., 1], ball)
    return centres + low, centres + high


def _span(grid: Floats, low: float, high: float) -> slice:
    start, stop = np.searchsorted(grid, [low, high])
    return slice(int(start), int(stop))


def _within(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _meet(
    solid: Solid, to_solid: Matrix, x: Floats, y: Floats
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Depth at which rays enter a solid, whether they do, and the normal there.

    Along a ray, each constraint holds in one interval of depths: the solid is entered
    at the smallest of the near ends, provided it is nearer than all of the far ends.
    """
    towards = to_solid.astype(np.float32)
    q = [row[0] * x + row[1] * y for row in towards]
    # A slab parallel to the rays has no near end: tilt it by less than is visible.
    slope = [row[2] if abs(row[2]) > 1e-4 else np.float32(1e-4) for row in towards]
    a = np.float32(sum(float(slope[i]) ** 2 for i in solid.round_axes))
    b = sum(q[i] * slope[i] for i in solid.round_axes) / a
    c = (sum(q[i] * q[i] for i in solid.round_axes) - np.float32(solid.radius**2)) / a
    root = b * b - c
    met = root > 0
    root = np.sqrt(np.maximum(root, 0))
    near, far = root - b, -root - b
    normal = np.zeros((3, *near.shape), np.float32)
    for i in solid.round_axes:
        local = q[i] + slope[i] * near
        for j in range(3):
            normal[j] += towards[i, j] * local
    for i, (low, high) in enumerate(solid.bounds):
        if (low, high) == UNBOUNDED:
            continue
        ends = (np.float32(high) - q[i]) / slope[i], (np.float32(low) - q[i]) / slope[i]
        nearer, further = ends if slope[i] > 0 else ends[::-1]
        np.maximum(far, further, out=far)
        first = nearer < near
        np.copyto(near, nearer, where=first)
        sign = np.float32(1 if slope[i] > 0 else -1)
        np.copyto(normal, (sign * towards[i])[:, None, None], where=first)
    met &= near > far
    return near, met, normal
