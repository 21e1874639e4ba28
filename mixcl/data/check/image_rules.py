"""Does a scan look like a patient the right way round, its slices in order?  Rules of thumb, so warnings, not errors.

All work on axes turned to RAS+ (x to the patient's right, y to the front, z to the head), those of a `Scene` on every
few voxels.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mixcl.data.files import Doubt

STEP_MM = 4.0
AIR, BODY, BONE = -400, -300, 250  # HU
HIGHEST = 65536.0  # HU; scanners that widen their scale for implants go so far
CUT = 0.25  # of a side face in the body: the rest of the body is outside
BLOCK = 8  # voxels of a slice, averaged so that noise does not count
OUT_OF_ORDER, JUMP = 0.85, 3.5
FEW = 8  # slices too few to say more about their order
THICKEST = 6.6  # mm between slices that still change little by little


class Scene(NamedTuple):
    """A coarse view: ``image`` HU and ``label`` of one shape, ``edges`` mm, ``names`` by label value."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    edges: NDArray[np.float64]
    names: Mapping[int, str]


def scene(
    image: NDArray[np.generic], label: NDArray[np.uint8], spacing: tuple[float, ...], names: Mapping[int, str]
) -> Scene:
    """Every few voxels of an image [X, Y, Z] in RAS+ and of its label map, about 4 mm apart."""
    steps = [max(1, min(round(STEP_MM / edge), n // 24)) for edge, n in zip(spacing, image.shape, strict=True)]
    every = tuple(slice(step // 2 if n > step else 0, None, step) for n, step in zip(image.shape, steps, strict=True))
    edges = np.array([edge * step for edge, step in zip(spacing, steps, strict=True)])
    return Scene(np.ascontiguousarray(image[every], np.float32), np.ascontiguousarray(label[every]), edges, names)


def doubts(view: Scene) -> Iterator[Doubt]:
    """Everything odd about one scan."""
    body = view.image > BODY
    if body.mean() < 0.01:
        kind = "intercept" if view.image.min() < -1500 else "range"
        yield Doubt(kind, "hardly anything is denser than -300 HU; the intercept may have been added twice")
        return
    yield from _values(view.image)
    size = np.array(view.image.shape) * view.edges
    extent = " x ".join(f"{edge:.0f}" for edge in size)
    if not (min(size[:2]) >= 80 and max(size[:2]) <= 900 and 20 <= size[2] <= 2500):
        yield Doubt("field of view", f"it covers {extent} mm, which no CT of a patient does; check the voxel size")
    yield from _way_round(view, body)


def slice_doubts(image: NDArray[Any], label: NDArray[np.uint8], thickness: float) -> Iterator[Doubt]:
    """Do slices follow each other?  Blank, repeated, missing or shuffled ones, from head to feet.

    They are those of an image [X, Y, Z] in RAS+ with ``label`` of the same shape; ``thickness`` is in mm.  Measured on
    real and drawn scans, neighbouring slices differ about 0.6 times as much as every other one does (drawn lots give
    1), and the largest step is at most 2.6 times the usual one around it, where slices are up to 6 mm apart; 9 mm apart
    it is up to 4.7 times, so of thick slices nothing is said.
    """
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    blank = low == high
    yield from _blank(blank, low, label)
    same = [k for k in np.flatnonzero(~blank[:-1]).tolist() if np.array_equal(image[:, :, k], image[:, :, k + 1])]
    if same:
        yield Doubt("repeated slices", f"{len(same)} slices are copies of the slice below them{_where(same)}")
    steps, skips = _steps(image[:, :, ~blank])
    if not len(steps):
        return
    if steps.mean() > OUT_OF_ORDER * skips.mean():
        yield Doubt("slice order", "neighbouring slices differ as much as others do; they may be out of order")
        return
    usual = ndimage.median_filter(steps, 9, mode="nearest")
    jumps = np.flatnonzero(steps > JUMP * np.maximum(usual, 1.0))
    if jumps.size and thickness <= THICKEST:
        at = np.flatnonzero(~blank)[jumps].tolist()
        yield Doubt("slice jump", f"the body changes abruptly between slices{_where(at)}; some may be missing")


def _values(image: NDArray[np.float32]) -> Iterator[Doubt]:
    """Air is at -1000 HU and lungs above -900, most of a body near 0; padding, the lowest value, is left out."""
    low, high = float(image.min()), float(image.max())
    below = (image < -1100).mean()
    if below > 0.001:
        yield Doubt("padding", f"{100 * below:.1f} % of it is padding of {low:.0f} HU; the window clips it", "note")
    if high > HIGHEST or low < -20000:
        yield Doubt("range", f"its values lie between {low:.6g} and {high:.6g}, which is no CT; check the rescaling")
        return
    air = image[(image < AIR) & (image > max(low, -1100.0))]
    deep = image[(image < -1100) & (image > low)]
    around, middle = float(np.median(_sides(image))), float(np.median(image[image > BODY]))
    if around > BONE:
        yield Doubt("range", f"the air around the body is at {around:.0f} HU; values may be inverted")
    elif deep.size > max(air.size, 0.02 * image.size):
        yield Doubt("range", f"its air is at {np.median(deep):.0f} HU, not -1000; check slope and intercept")
    elif low < AIR and (darkest := float(np.percentile(image[image < AIR], 10))) > -700:
        yield Doubt("range", f"its air is at {darkest:.0f} HU, not -1000; check slope and intercept")
    elif abs(middle) > 200:
        yield Doubt("range", f"half of the body is above {middle:.0f} HU; check slope and intercept")


def _way_round(view: Scene, body: NDArray[np.bool_]) -> Iterator[Doubt]:
    """Wide from side to side, the spine at the back, the lungs towards the head; a part of a body tells nothing."""
    faces = [[float(body.take(end, axis).mean()) for end in (0, -1)] for axis in range(3)]
    if max(faces[0] + faces[1]) > CUT:
        if max(faces[2]) < 0.02 and min(faces[0] + faces[1]) < CUT:
            yield Doubt("axes", "the body is cut at its sides, not at head and feet; axes may be swapped")
        return
    places = np.argwhere(body) * view.edges
    ends = np.percentile(places, (2, 98), axis=0)
    width, depth, _ = ends[1] - ends[0]
    if depth > 1.2 * width:
        yield Doubt("axes", f"the body is {width:.0f} mm wide and {depth:.0f} mm deep; axes may be swapped")
    middle = np.median(places, axis=0)
    if _spine_in_front(view, middle):
        yield Doubt("front and back", "the spine lies in front of the body's middle; front and back may be flipped")
    lungs = _lungs(view)
    height = view.image.shape[2] * view.edges[2]
    if len(lungs) and np.mean(lungs[:, 2]) < 0.4 * height and np.percentile(lungs[:, 2], 90) < 0.75 * height:
        yield Doubt("head and feet", "the lungs lie at the lower end; head and feet may be flipped")


def _spine_in_front(view: Scene, middle: NDArray[np.float64]) -> bool:
    """Whether bone near the midline lies in front of the middle in most slices that have some."""
    places = np.argwhere((view.image > BONE) & (view.image < 3000))
    places = places[np.abs(places[:, 0] * view.edges[0] - middle[0]) < 25]
    slices = [places[places[:, 2] == z, 1] * view.edges[1] for z in np.unique(places[:, 2])]
    front = [float(np.mean(y)) > middle[1] for y in slices]
    return len(front) >= 8 and float(np.mean(front)) > 0.7


def _lungs(view: Scene) -> NDArray[np.float64]:
    """Places, mm, of air inside the body in pieces of 200 ml or more."""
    parts, _ = ndimage.label(view.image < -500)
    sizes = np.bincount(parts.ravel()) * math.prod(view.edges) / 1000
    outside = [0, *_sides(parts)]
    return np.argwhere(np.isin(parts, np.setdiff1d(np.flatnonzero(sizes > 200), outside))) * view.edges


def _sides(array: NDArray[Any]) -> NDArray[Any]:
    """The values on the four faces right, left, back and front."""
    return np.concatenate([array[[0, -1]].ravel(), array[:, [0, -1]].ravel()])


def _blank(blank: NDArray[np.bool_], values: NDArray[Any], label: NDArray[np.uint8]) -> Iterator[Doubt]:
    """Slices of one value: harmless air at the ends, else a gap, or voxels that never were."""
    if not blank.any() or blank.all():
        return
    inner = np.flatnonzero(~blank)
    gap = blank & (np.arange(blank.size) > inner[0]) & (np.arange(blank.size) < inner[-1])
    bad = gap | (blank & (label.any(axis=(0, 1)) | (values > AIR)))
    where = _where(np.flatnonzero(bad if bad.any() else blank).tolist())
    if bad.any():
        yield Doubt("blank slices", f"{bad.sum()} slices have one value throughout{where}; get the scan again")
    else:
        yield Doubt("padding", f"{blank.sum()} slices at its ends hold nothing{where}", "note")


def _steps(image: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How much slices differ from the next, and from the one after it: mean over blocks of clipped HU."""
    n, m, depth = (image.shape[0] // BLOCK, image.shape[1] // BLOCK, image.shape[2])
    if min(n, m) < 4 or depth < FEW:
        return np.empty(0, np.float32), np.empty(0, np.float32)
    blocks = np.empty((n, m, depth), np.float32)
    for k in range(depth):
        plane = np.clip(image[: n * BLOCK, : m * BLOCK, k], -1000, 400).astype(np.float32)
        blocks[:, :, k] = plane.reshape(n, BLOCK, m, BLOCK).mean(axis=(1, 3))
    near, far = (np.abs(blocks[:, :, step:] - blocks[:, :, :-step]).mean(axis=(0, 1)) for step in (1, 2))
    return near, far


def _where(slices: list[int]) -> str:
    """Numbers of slices, from the feet."""
    listed = ", ".join(map(str, slices[:5])) + (", ..." if len(slices) > 5 else "")
    return f" (number {listed}, counted from the feet)"
