"""Solids, rays that are cast at them, and objects that are built of them.

A pixel is made by additions, products, quotients and square roots only: IEEE 754 fixes
each of them to the last bit, so an image is the same on every machine. Sines and
cosines, which no standard fixes, enter as single numbers that are rounded first.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DECIMALS",
    "N_PROPORTIONS",
    "OBJECTS",
    "Floats",
    "Hits",
    "Matrix",
    "Solid",
    "box",
    "cast",
    "cylinder",
    "ellipsoid",
    "rotation",
]

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
    the `bounds` of each axis. `centre` and `half` (half-axes) are in the frame of the
    object, whose radius is about 1, with x to the right, y up and z towards the viewer;
    `turn` is an axis and an angle in degrees, of a rotation about the centre.
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
    length = normal[0] * normal[0] + normal[1] * normal[1]
    length += normal[2] * normal[2]
    normal /= np.sqrt(length + np.float32(1e-12))
    downwards = slice(len(grid) - rows.stop, len(grid) - rows.start)
    return Hits(downwards, columns, which[::-1], depth[::-1], normal[:, ::-1])


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


#: Numbers in [0, 1] that state the proportions of one object.
N_PROPORTIONS = 4

Proportions = Sequence[float]


def _scaled(shares: Proportions, *ranges: tuple[float, float]) -> list[float]:
    """Lengths within ranges, from the share of each range."""
    return [
        low + (high - low) * share
        for (low, high), share in zip(ranges, shares, strict=False)
    ]


def _post(centre: Vector, thick: float, height: float, paint: str) -> Solid:
    """An upright cylinder."""
    return cylinder(centre, (thick, height, thick), paint, axis=1)


def _pair(solid: Solid, axis: int = 2) -> list[Solid]:
    """A solid that is not turned and its mirror image, that one first."""
    x, y, z = (-c if i == axis else c for i, c in enumerate(solid.centre))
    return [replace(solid, centre=(x, y, z)), solid]


def _four(solid: Solid) -> list[Solid]:
    """A solid and its mirror images to the left and to the back."""
    return [part for half in _pair(solid, 0) for part in _pair(half)]


def _legs(
    x: float, z: float, top: float, bottom: float, thick: float, paint: str
) -> list[Solid]:
    height = (top - bottom) / 2
    return _four(_post((x, bottom + height, z), thick, height, paint))


def _animal(p: Proportions) -> list[Solid]:
    length, leg, neck, ear = _scaled(
        p, (0.42, 0.6), (0.3, 0.55), (0.15, 0.5), (0.08, 0.24)
    )
    x, y = length + 0.2, 0.22 + neck  # of the head
    throat = ellipsoid(
        (length, 0.1 + neck / 2, 0), (0.13, 0.2 + neck / 2, 0.12), "body"
    )
    tail = ellipsoid((-length - 0.1, 0.12, 0), (0.22, 0.045, 0.045), "accent")
    return [
        ellipsoid((0, 0.05, 0), (length, 0.27, 0.24), "body"),
        throat.turned(2, -22),
        ellipsoid((x, y, 0), (0.22, 0.17, 0.16), "body"),
        ellipsoid((x + 0.18, y - 0.05, 0), (0.14, 0.09, 0.09), "accent"),
        *_pair(
            ellipsoid((x - 0.08, y + 0.12 + ear / 2, 0.11), (0.05, ear, 0.05), "accent")
        ),
        *_pair(ellipsoid((x + 0.1, y + 0.07, 0.12), (0.035, 0.035, 0.03), "dark")),
        *_legs(length - 0.16, 0.13, 0.0, -0.15 - leg, 0.075, "body"),
        tail.turned(2, -50),
    ]


def _boat(p: Proportions) -> list[Solid]:
    deep, wide = _scaled(p, (0.3, 0.5), (0.24, 0.36))
    hull = [
        ellipsoid((0, -0.15, 0), (0.95, deep, wide), "body").cut(1, -1, 0),
        ellipsoid((0, -0.15, 0), (0.9, 0.05, wide * 0.92), "light").cut(1, -1, 1),
    ]
    if p[2] < 0.5:
        (tall,) = _scaled(p[3:], (0.75, 1.0))
        sail = ellipsoid((-0.06, -0.02, 0), (0.62, tall - 0.05, 0.03), "light")
        jib = ellipsoid((0.06, -0.02, 0), (0.5, tall * 0.7, 0.03), "accent")
        return [
            *hull,
            _post((0, tall / 2 - 0.1, 0), 0.03, tall / 2 + 0.05, "dark"),
            sail.cut(0, -1, 0).cut(1, 0, 1),
            jib.cut(0, 0, 1).cut(1, 0, 1),
        ]
    (tall,) = _scaled(p[3:], (0.12, 0.24))
    return [
        *hull,
        box((-0.1, tall - 0.12, 0), (0.46, tall, wide * 0.66), "light"),
        box((-0.08, tall - 0.06, 0), (0.4, 0.05, wide * 0.68), "glass"),
        *(_post((x, 2 * tall + 0.08, 0), 0.08, 0.22, "accent") for x in (-0.3, 0.06)),
    ]


def _car(p: Proportions) -> list[Solid]:
    tall, cabin, back, wheel = _scaled(
        p, (0.16, 0.25), (0.34, 0.6), (-0.25, 0.08), (0.17, 0.24)
    )
    roof, hub = tall + 0.12, wheel * 0.5
    place = (0.56, -0.3, 0.38)
    return [
        box((0, -0.08, 0), (0.95, tall, 0.42), "body", radius=1.55),
        box((back, roof, 0), (cabin, 0.17, 0.36), "glass", radius=1.4),
        box((back, roof + 0.13, 0), (cabin * 0.86, 0.055, 0.34), "body"),
        *_four(cylinder(place, (wheel, wheel, 0.09), "dark", axis=2)),
        *_four(cylinder(place, (hub, hub, 0.1), "light", axis=2)),
        *_pair(ellipsoid((0.86, -0.04, 0.25), (0.07, 0.07, 0.09), "light")),
    ]


def _chair(p: Proportions) -> list[Solid]:
    wide, leg, back = _scaled(p, (0.36, 0.5), (0.4, 0.65), (0.35, 0.55))
    parts = [
        box((0, 0, 0), (wide, 0.07, 0.42), "accent", radius=1.55),
        *_legs(wide - 0.07, 0.34, 0, -leg, 0.06, "body"),
        *_pair(_post((wide - 0.07, back, -0.38), 0.05, back, "body"), 0),
    ]
    if p[3] < 0.5:
        slat = (wide - 0.05, 0.07, 0.035)
        heights = (0.55, 1.0, 1.5, 1.9)
        return parts + [box((0, back * h, -0.38), slat, "body") for h in heights]
    rest = (wide - 0.04, back * 0.75, 0.06)
    return [*parts, box((0, back * 1.25, -0.38), rest, "accent")]


def _face(p: Proportions) -> list[Solid]:
    wide, tall, eye, nose = _scaled(
        p, (0.52, 0.68), (0.68, 0.84), (0.2, 0.29), (0.1, 0.2)
    )
    front = 0.64
    behind = ellipsoid((0, 0.1, -0.09), (wide + 0.07, tall, front + 0.02), "hair")
    above = ellipsoid((0, 0.08, 0), (wide + 0.04, tall, front + 0.03), "hair")
    sides = [
        part
        for x, ear in ((-eye, -wide), (eye, wide))
        for part in (
            ellipsoid((x, 0.1, front * 0.83), (0.12, 0.075, 0.08), "light"),
            ellipsoid((x, 0.1, front * 0.93), (0.055, 0.06, 0.05), "dark"),
            box((x, 0.25, front * 0.86), (0.15, 0.028, 0.06), "hair"),
            ellipsoid((ear, 0, 0), (0.08, 0.17, 0.12), "body"),
        )
    ]
    return [
        ellipsoid((0, 0, 0), (wide, tall, front), "body"),
        behind.cut(2, -1, 0.35),
        above.cut(1, 0.5, 1),
        *sides,
        ellipsoid((0, -0.08, front), (nose * 0.65, 0.17, nose), "body"),
        ellipsoid((0, -0.38, front * 0.84), (0.22, 0.06, 0.08), "mouth"),
        _post((0, -0.75, -0.08), 0.27, 0.25, "body"),
    ]


def _fruit(p: Proportions) -> list[Solid]:
    tall, slim = _scaled(p, (0.5, 0.85), (0.45, 0.66))
    if p[2] < 0.35:  # a pair, like cherries
        ball = (0.42, 0.42, 0.42)
        return [
            ellipsoid((-0.4, -0.3, 0), ball, "body"),
            ellipsoid((0.4, -0.38, 0.1), ball, "body"),
            _post((-0.2, 0.35, 0), 0.03, 0.45, "dark").turned(2, -27),
            _post((0.2, 0.32, 0.05), 0.03, 0.48, "dark").turned(2, 27),
            ellipsoid((0.22, 0.76, 0), (0.24, 0.04, 0.12), "leaf").turned(2, 15),
        ]
    stalk = [
        _post((0.04, tall + 0.1, 0), 0.04, 0.18, "dark").turned(2, -15),
        ellipsoid((0.24, tall + 0.12, 0.02), (0.22, 0.035, 0.11), "leaf").turned(2, 25),
    ]
    if p[2] < 0.7:  # a bulge at the top, like a pear
        bulge = (slim * 0.6, tall * 0.5, slim * 0.6)
        top = ellipsoid((0, tall * 0.5, 0), bulge, "body")
        return [ellipsoid((0, -0.25, 0), (slim, slim, slim), "body"), top, *stalk]
    return [ellipsoid((0, 0, 0), (slim + 0.1, tall, slim + 0.1), "body"), *stalk]


def _plane(p: Proportions) -> list[Solid]:
    thick, sweep, span, fin = _scaled(
        p, (0.12, 0.18), (5, 32), (0.6, 0.85), (0.2, 0.36)
    )
    parts = [
        ellipsoid((0, 0, 0), (1.0, thick, thick), "body"),
        ellipsoid((0.68, thick * 0.55, 0), (0.17, 0.07, 0.09), "glass"),
        box((-0.85, fin * 0.8, 0), (0.11, fin * 0.8, 0.025), "accent").turned(2, 20),
    ]
    for side in (-1, 1):
        place = (0.05 - sweep / 110, 0, side * span / 2)
        wing = box(place, (0.18, 0.025, span / 2 + 0.05), "accent", radius=1.6)
        tail = box((-0.86, 0.05, side * 0.2), (0.09, 0.02, 0.2), "accent")
        engine = (0.08, -0.09, side * span * 0.5)
        parts += [
            wing.turned(1, -side * sweep),
            tail.turned(1, -side * sweep),
            cylinder(engine, (0.17, 0.07, 0.07), "dark", axis=0),
        ]
    return parts


def _table(p: Proportions) -> list[Solid]:
    wide, deep, leg = _scaled(p, (0.65, 0.95), (0.4, 0.62), (0.4, 0.75))
    plate, foot = (wide, 0.06, deep), (wide * 0.5, 0.05, deep * 0.55)
    if p[3] < 0.5:
        return [
            box((0, 0.2, 0), plate, "body", radius=1.65),
            box((0, 0.1, 0), (wide * 0.86, 0.07, deep * 0.84), "accent"),
            *_legs(wide * 0.83, deep * 0.78, 0.2, 0.2 - leg, 0.065, "accent"),
        ]
    return [
        cylinder((0, 0.2, 0), plate, "body", axis=1),
        _post((0, 0.2 - leg / 2, 0), 0.1, leg / 2, "accent"),
        cylinder((0, 0.2 - leg, 0), foot, "accent", axis=1),
    ]


#: Parts of an object of each class, from its proportions. All lie about the origin,
#: with a radius of about 1; new classes go to the end, so that old scenes stay.
OBJECTS: dict[str, Callable[[Proportions], list[Solid]]] = {
    "animal": _animal,
    "boat": _boat,
    "car": _car,
    "chair": _chair,
    "face": _face,
    "fruit": _fruit,
    "plane": _plane,
    "table": _table,
}
