"""The body that phantoms are cut from: shapes in millimetres in a patient frame, varied from case to case.

The frame is RAS: x grows to the patient's right, y to the front, z to the head; the origin lies before the first
lumbar vertebra.  Everything is a smooth implicit shape, so that the same body can be rasterised at any voxel size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Labels 1 to 13 are BTCV's; the others exist in the full truth of a phantom alone.
LUNG, BONE, MUSCLE, FAT, BOWEL, HEART, GAS, TISSUE = 14, 15, 16, 17, 18, 19, 20, 21
LIVER_TUMOUR, LUNG_TUMOUR, PANCREAS_TUMOUR, KIDNEY_TUMOUR = 31, 32, 33, 34
PARENT = {LIVER_TUMOUR: 6, LUNG_TUMOUR: LUNG, PANCREAS_TUMOUR: 11, KIDNEY_TUMOUR: 2}


class Ellipsoid(NamedTuple):
    """``label`` inside the ellipsoid with this centre and these half axes, mm, turned about z by ``turn`` radians."""

    label: int
    centre: Array | Sequence[float]
    radii: Array | Sequence[float]
    turn: float = 0.0


class Tube(NamedTuple):
    """``label`` within ``radii`` mm of the smooth curve through ``points``, one radius a point."""

    label: int
    points: Array | Sequence[Sequence[float]]
    radii: Array | Sequence[float]


Shape = Ellipsoid | Tube

# Painted in this order, so that vessels and small organs lie over large ones.  Adrenal glands are half as large again
# as real ones, because they would vanish on the coarse grid of the default profile.
ORGANS: tuple[Shape, ...] = (
    Ellipsoid(LUNG, (80, -8, 150), (62, 78, 88)),
    Ellipsoid(LUNG, (-80, -8, 150), (60, 78, 88)),
    Ellipsoid(HEART, (-18, 32, 138), (52, 44, 40), 0.4),
    Ellipsoid(6, (72, 6, 42), (60, 66, 66), 0.2),
    Ellipsoid(6, (8, 44, 56), (58, 30, 30), -0.2),
    Ellipsoid(1, (-92, -34, 52), (27, 40, 46), -0.5),
    Ellipsoid(2, (60, -46, -12), (27, 26, 54), 0.3),
    Ellipsoid(3, (-62, -46, 0), (27, 26, 55), -0.3),
    Tube(
        7, ((-18, -8, 76), (-52, 10, 66), (-72, 28, 40), (-62, 46, 10), (-28, 54, -6), (12, 48, 0)),
        (15, 26, 29, 26, 21, 13),
    ),
    Ellipsoid(4, (56, 48, 2), (15, 16, 28), 0.2),
    Tube(
        11, ((36, 2, -22), (34, 8, 0), (8, 16, 8), (-22, 8, 18), (-52, -8, 30), (-74, -22, 40)),
        (16, 16, 11, 12, 13, 10),
    ),
    Tube(9, ((20, -36, -160), (20, -36, 20), (24, -30, 70), (14, -12, 120)), (12, 12, 13, 13)),
    Tube(8, ((-6, -40, -160), (-8, -42, 20), (-14, -48, 90), (-18, -46, 170)), (9, 10, 12, 13)),
    Tube(10, ((48, 8, 44), (24, 2, 20), (4, -2, 10), (-30, -10, 22), (-74, -30, 48)), (8, 8, 7, 6, 6)),
    Tube(5, ((-6, -26, 170), (-10, -24, 110), (-16, -10, 78)), (10, 10, 11)),
    Ellipsoid(12, (38, -40, 50), (8, 11, 18), 0.4),
    Ellipsoid(13, (-36, -38, 46), (8, 11, 18), -0.4),
)  # fmt: skip


@dataclass(frozen=True)
class Body:
    """One patient: shapes, size and deformation."""

    shapes: tuple[Shape, ...]  # in painting order
    scale: Array  # size along x, y, z relative to the reference body
    waves: Array  # [n, 3, 5], by wave and axis of displacement: amplitude, mm, wave vector, 1/mm (three), and phase
    half: tuple[float, float]  # width and depth of the trunk, mm, in the reference frame
    fat: float  # thickness of subcutaneous fat, as a fraction of the way from skin to centre
    muscle: float  # thickness of the muscle wall, likewise


def draw_body(rng: np.random.Generator, difficulty: float, tumour: int | None) -> Body:
    """A body with its own sizes, places, bends, bowel loops and, when asked for, a tumour of one kind."""
    spread = min(difficulty, 3.0)
    organs = [_vary(shape, rng, spread) for shape in ORGANS]
    loops = _bowel(rng)
    tumours = [] if tumour is None else _tumours(tumour, organs, rng)
    waves = np.empty((4, 3, 5))
    waves[..., 0] = rng.uniform(0.5, 2.0, (4, 3)) * spread
    waves[..., 1:4] = rng.normal(0.0, 1.0 / 60.0, (4, 3, 3))
    waves[..., 4] = rng.uniform(0.0, 2 * np.pi, (4, 3))
    return Body(
        shapes=(*loops, *organs, *tumours),
        scale=1.0 + rng.uniform(-0.1, 0.1, 3),
        waves=waves,
        half=(rng.uniform(150, 168), rng.uniform(104, 118)),
        fat=rng.uniform(0.05, 0.12),
        muscle=rng.uniform(0.07, 0.10),
    )


def to_reference(body: Body, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
    """Patient positions in mm (broadcastable) -> positions in the reference frame, bent and scaled."""
    moved = [x / body.scale[0], y / body.scale[1], z / body.scale[2]]
    for axis in range(3):
        for wave in body.waves[:, axis]:
            moved[axis] = moved[axis] + wave[0] * np.sin(wave[1] * x + wave[2] * y + wave[3] * z + wave[4])
    return moved[0], moved[1], moved[2]


def bounds(body: Body, shape: Shape) -> tuple[Array, Array]:
    """Lower and upper corner, in patient mm, of a box that holds the shape."""
    points = np.array([shape.centre] if isinstance(shape, Ellipsoid) else shape.points, float)
    # An ellipsoid may be turned about z; a curve may leave the hull of its points by a little.
    radius = max(shape.radii) + (0.0 if isinstance(shape, Ellipsoid) else 12.0)
    slack = np.abs(body.waves[..., 0]).sum(0) + 1.0
    low, high = points.min(0) - radius - slack, points.max(0) + radius + slack
    return low * body.scale, high * body.scale


def inside(shape: Shape, x: Array, y: Array, z: Array) -> NDArray[np.bool_]:
    """Which reference positions lie in the shape."""
    if isinstance(shape, Ellipsoid):
        dx, dy, dz = x - shape.centre[0], y - shape.centre[1], z - shape.centre[2]
        c, s = np.cos(shape.turn), np.sin(shape.turn)
        u, v = c * dx + s * dy, c * dy - s * dx
        return (u / shape.radii[0]) ** 2 + (v / shape.radii[1]) ** 2 + (dz / shape.radii[2]) ** 2 < 1
    points, radii = _curve(shape)
    covered = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), bool)
    for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        d = b - a
        px, py, pz = x - a[0], y - a[1], z - a[2]
        t = np.clip((px * d[0] + py * d[1] + pz * d[2]) / (d * d).sum(), 0, 1)
        distance = (px - t * d[0]) ** 2 + (py - t * d[1]) ** 2 + (pz - t * d[2]) ** 2
        covered |= distance < (ra + t * (rb - ra)) ** 2
    return covered


def trunk(body: Body, x: Array, y: Array, z: Array) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Skin fat, muscle wall with ribs, spine, psoas, and fat between the organs; and where organs can be."""
    p = 2.5
    # How far out a place is: 0 at the axis of the trunk, 1 at the skin.
    depth = (np.abs(x / body.half[0]) ** p + np.abs(y / body.half[1]) ** p) ** (1 / p)
    wall, cavity = 1 - body.fat, 1 - body.fat - body.muscle
    slanted = np.sin((z + 0.35 * y) * (2 * np.pi / 27)) > 0.45
    ribs = (depth < wall - 0.01) & (depth > cavity + 0.01) & slanted & (z > -10)
    layers = [(depth < 1, FAT), ((depth < wall) & (depth > cavity), MUSCLE), (ribs & (np.abs(x) > 12), BONE)]
    for side in (-1, 1):
        psoas = ((x - side * 36) / 17) ** 2 + ((y + 58) / 20) ** 2 < 1
        erector = ((x - side * 30) / 26) ** 2 + ((y + 88) / 17) ** 2 < 1
        layers += [(psoas & (z < 10), MUSCLE), (erector & (depth < wall), MUSCLE)]
    height = np.sin(z * (2 * np.pi / 34))  # along a vertebra
    vertebra = (x / 22) ** 2 + ((y + 66) / 17) ** 2 < 1
    process = (np.abs(x) < 4) & (y < -84) & (y > -104) & (height < 0.3)
    canal = (x / 8) ** 2 + ((y + 88) / 6) ** 2 < 1
    layers += [(vertebra, BONE), (vertebra & (height > 0.9), TISSUE), (process & (depth < wall), BONE), (canal, TISSUE)]
    full = np.zeros(np.broadcast_shapes(depth.shape, z.shape), np.uint8)
    for where, label in layers:
        full[np.broadcast_to(where, full.shape)] = label
    return full, depth < cavity


def _vary(shape: Shape, rng: np.random.Generator, spread: float) -> Shape:
    """The shape at a slightly other place, of another size and turn."""
    move, size = rng.normal(0.0, 3.5 * spread, 3), np.clip(1 + rng.normal(0.0, 0.08 * spread, 3), 0.75, 1.3)
    if isinstance(shape, Ellipsoid):
        limit = 0.5 * min(shape.radii) + 4  # small organs stay near where they belong
        centre = np.array(shape.centre) + np.clip(move, -limit, limit)
        turn = shape.turn + rng.normal(0.0, 0.15 * spread)
        return Ellipsoid(shape.label, centre, np.array(shape.radii) * size, float(turn))
    limit = 0.5 * max(shape.radii)
    bends = rng.normal(0.0, 1.5 * spread, (len(shape.points), 3))
    points = np.array(shape.points, float) + np.clip(move, -limit, limit) + np.clip(bends, -limit, limit)
    return Tube(shape.label, points, np.array(shape.radii) * size[0])


def _bowel(rng: np.random.Generator) -> list[Shape]:
    """Loops of bowel in front and below, some with gas, and blobs that look like organs and are none."""
    shapes: list[Shape] = []
    for _ in range(int(rng.integers(18, 28))):
        centre = np.array([rng.uniform(-95, 95), rng.uniform(-15, 65), rng.uniform(-150, -25)])
        radii = rng.uniform(12, 24, 3)
        shapes.append(Ellipsoid(BOWEL, centre, radii, float(rng.uniform(0, 3))))
        if rng.random() < 0.35:
            gas = centre + np.array([0, 0.4 * radii[1], 0])
            shapes.append(Ellipsoid(GAS, gas, radii * 0.5))
    for _ in range(int(rng.integers(3, 7))):
        centre = np.array([rng.uniform(-80, 80), rng.uniform(-40, 50), rng.uniform(-60, 90)])
        shapes.append(Ellipsoid(TISSUE, centre, rng.uniform(7, 18, 3), float(rng.uniform(0, 3))))
    return shapes


def _tumours(kind: int, organs: Sequence[Shape], rng: np.random.Generator) -> list[Shape]:
    """One to three tumours of a kind, inside or on the organ they belong to."""
    sizes = {LIVER_TUMOUR: (13, 28), LUNG_TUMOUR: (12, 22), PANCREAS_TUMOUR: (12, 18), KIDNEY_TUMOUR: (15, 28)}
    parents = (2, 3) if kind == KIDNEY_TUMOUR else (PARENT[kind],)
    hosts = [shape for shape in organs if shape.label in parents]
    number = int(rng.integers(1, 4)) if kind in (LIVER_TUMOUR, LUNG_TUMOUR) else 1
    shapes: list[Shape] = []
    for _ in range(number):
        host = hosts[int(rng.integers(len(hosts)))]
        if isinstance(host, Ellipsoid):
            offset = rng.uniform(-0.55, 0.55, 3)
            if kind == LUNG_TUMOUR:
                offset[2] = rng.uniform(-0.55, -0.25)  # in the part of the lung that the scans hold
            centre = np.array(host.centre) + offset * np.array(host.radii)
        else:
            centre = np.array(host.points[int(rng.integers(len(host.points)))])
        radii = rng.uniform(*sizes[kind]) * rng.uniform(0.85, 1.15, 3)
        shapes.append(Ellipsoid(kind, centre, radii, float(rng.uniform(0, 3))))
    return shapes


def _curve(tube: Tube) -> tuple[Array, Array]:
    """A Catmull-Rom curve through the points, four pieces a stretch, with radii between those given."""
    points, radii = np.array(tube.points, float), np.array(tube.radii, float)
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    curve, thick = [], []
    for k in range(len(points) - 1):
        p0, p1, p2, p3 = padded[k : k + 4]
        for t in (0.0, 0.25, 0.5, 0.75):
            square, cube = 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * p1 - p0 - 3 * p2 + p3
            curve.append(0.5 * (2 * p1 + (p2 - p0) * t + square * t**2 + cube * t**3))
            thick.append((1 - t) * radii[k] + t * radii[k + 1])
    return np.array([*curve, points[-1]]), np.array([*thick, radii[-1]])
