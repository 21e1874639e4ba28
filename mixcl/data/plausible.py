"""Does a scan look like a patient the right way round, with its labels on it?  Rules of thumb, so warnings, not errors.

All work on axes turned to RAS+ (x to the patient's right, y to the front, z to the head) and on every few voxels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

STEP_MM = 4.0
AIR, BODY, BONE = -400, -300, 250  # HU
CUT = 0.25  # of a side face in the body: the rest of the body is outside
HOLLOW = ("lung", "airway", "trachea", "bronch", "air", "gas", "colon", "bowel", "stomach", "duoden", "intestin",
          "esophag", "oesophag")  # fmt: skip
RIGHT, LEFT = ("liver", "gallbladder", "gall bladder", "right"), ("spleen", "left")
MOST_ML = {"liver": 6000, "spleen": 4000, "pancreas": 500, "kidney": 2500, "gallbladder": 600, "aorta": 1500}


class Doubt(NamedTuple):
    """A short name of what is odd, and a sentence."""

    kind: str
    text: str


class Scene(NamedTuple):
    """A coarse view: ``image`` HU and ``label`` of one shape, ``edges`` mm, ``names`` by label value."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8] | None
    edges: NDArray[np.float64]
    names: Mapping[int, str]


def scene(
    image: NDArray[np.generic], label: NDArray[np.uint8] | None, spacing: tuple[float, ...], names: Mapping[int, str]
) -> Scene:
    """Every few voxels of an image [X, Y, Z] in RAS+ and of its label map, about 4 mm apart."""
    steps = [max(1, min(round(STEP_MM / edge), n // 24)) for edge, n in zip(spacing, image.shape, strict=True)]
    every = tuple(slice(step // 2 if n > step else 0, None, step) for n, step in zip(image.shape, steps, strict=True))
    edges = np.array([edge * step for edge, step in zip(spacing, steps, strict=True)])
    small = np.ascontiguousarray(image[every], np.float32)
    return Scene(small, None if label is None else np.ascontiguousarray(label[every]), edges, names)


def doubts(view: Scene) -> Iterator[Doubt]:
    """Everything odd about one scan."""
    body = view.image > BODY
    if body.mean() < 0.01:
        kind = "intercept" if view.image.min() < -1500 else "range"
        yield Doubt(kind, "hardly anything is denser than -300 HU; the intercept may have been added twice")
        return
    yield from _values(view)
    yield from _field_of_view(view)
    yield from _way_round(view, body)
    if view.label is not None:
        yield from _sides(view, body)
        yield from _in_air(view, view.label)


def too_large(millilitres: Mapping[str, float]) -> Iterator[Doubt]:
    """Organs larger than any patient's, by name: the voxel size may be wrong."""
    for name, volume in millilitres.items():
        most = next((most for organ, most in MOST_ML.items() if organ in name.lower() and "tumo" not in name), None)
        if most is not None and volume > most:
            yield Doubt("organ size", f"{name} has {volume:.0f} ml, more than {most} ml; check the voxel size")


def _values(view: Scene) -> Iterator[Doubt]:
    low, high = float(view.image.min()), float(view.image.max())
    below = (view.image < -1100).mean()
    if below > 0.001:
        yield Doubt("padding", f"{100 * below:.1f} % of it is padding of {low:.0f} HU; the window clips it")
    if high > 20000 or low < -20000:
        yield Doubt("range", f"its values lie between {low:.6g} and {high:.6g}, which is no CT; check the rescaling")


def _field_of_view(view: Scene) -> Iterator[Doubt]:
    size = np.array(view.image.shape) * view.edges
    told = " x ".join(f"{edge:.0f}" for edge in size)
    if not (min(size[:2]) >= 80 and max(size[:2]) <= 900 and 20 <= size[2] <= 2500):
        yield Doubt("field of view", f"it covers {told} mm, which no CT of a patient does; check the voxel size")


def _way_round(view: Scene, body: NDArray[np.bool_]) -> Iterator[Doubt]:
    """Wide from side to side, the spine at the back, the lungs towards the head; a part of a body tells nothing."""
    if max(float(body.take(end, axis).mean()) for axis in (0, 1) for end in (0, -1)) > CUT:
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
    parts, number = ndimage.label(view.image < -500)
    outside = np.unique(np.concatenate([parts[[0, -1]].ravel(), parts[:, [0, -1]].ravel()]))
    sizes = np.bincount(parts.ravel(), minlength=number + 1) * math.prod(view.edges) / 1000
    kept = [part for part in range(1, number + 1) if sizes[part] > 200 and part not in outside]
    return np.argwhere(np.isin(parts, kept)) * view.edges if kept else np.empty((0, 3))


def _sides(view: Scene, body: NDArray[np.bool_]) -> Iterator[Doubt]:
    """Organs whose side is known, against the middle of the body."""
    middle = float(np.median(np.argwhere(body)[:, 0])) * view.edges[0]
    right, wrong = [], []
    for value, name in view.names.items():
        side = _side(name)
        places = np.argwhere(view.label == value) if side else ()
        if side and len(places) * math.prod(view.edges) > 1000:
            offset = side * (float(np.mean(places[:, 0])) * view.edges[0] - middle)  # type: ignore[call-overload]
            right += [name] if offset > 10 else []
            wrong += [name] if offset < -10 else []
    if len(wrong) > len(right):
        yield Doubt("laterality", f"{', '.join(wrong)} on the other side; left and right may be flipped")


def _side(name: str) -> int:
    """+1 for organs on the patient's right, -1 left, 0 either."""
    words = name.lower()
    if "lobe" in words or "tumo" in words or "vein" in words:
        return 0
    if any(word in words for word in LEFT):
        return -1
    return 1 if any(word in words for word in RIGHT) else 0


def _in_air(view: Scene, label: NDArray[np.uint8]) -> Iterator[Doubt]:
    """Labels of solid organs that lie in air, and whether a flip or a swap would mend it."""
    solid = [value for value, name in view.names.items() if not any(word in name.lower() for word in HOLLOW)]
    share = _air_share(view.image, np.isin(label, solid))
    if share < 0.1:
        return
    turned = {f"flipping axis {axis}": np.flip(label, axis) for axis in range(3)}
    for a, b in ((0, 1), (0, 2), (1, 2)):
        if label.shape[a] == label.shape[b]:
            turned[f"swapping axes {a} and {b}"] = np.swapaxes(label, a, b)
    better = {how: _air_share(view.image, np.isin(one, solid)) for how, one in turned.items()}
    how = min(better, key=better.__getitem__)
    mend = f"; {how} of the label leaves {100 * better[how]:.0f} %" if better[how] < share / 3 else ""
    yield Doubt("label off image", f"{100 * share:.0f} % of the labelled voxels lie in air{mend}; check its axes")


def _air_share(image: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    return float((image[where] < AIR).mean()) if where.any() else 0.0
