"""Does a label map fit its scan?  Rules of thumb, so warnings, not errors; axes are RAS+, every few voxels."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mixcl.data.check.image_rules import AIR, BODY, Scene
from mixcl.data.files import Doubt
from mixcl.data.files.align import spread

HOLLOW = ("lung", "airway", "trachea", "bronch", "air", "gas", "colon", "bowel", "stomach", "duoden", "intestin",
          "esophag", "oesophag")  # fmt: skip
RIGHT, LEFT = ("liver", "gallbladder", "gall bladder", "right"), ("spleen", "left")
MOST_ML = {"liver": 6000, "spleen": 4000, "pancreas": 500, "kidney": 2500, "gallbladder": 600, "aorta": 1500}
MOST_HU = {"liver": 60, "spleen": 60, "pancreas": 80, "kidney": 80}
"""How much HU may vary within an organ (`spread`); 15 to 45 on real scans, 50 to 350 where the map is flipped."""
NOT_ORGANS = ("tumo", "cyst", "lesion", "cancer", "metast", "vein", "vess", "duct")


def doubts(view: Scene, label: NDArray[np.uint8]) -> Iterator[Doubt]:
    """Everything odd about a label map of the scene's shape."""
    yield from _sides(view)
    off = list(_in_air(view, label)) or list(_flipped(view, label)) or list(_varied(view, label))
    yield from off
    yield from _sparse(view, label)


def too_large(millilitres: Mapping[str, float]) -> Iterator[Doubt]:
    """Organs larger than any patient's, by name, or than the liver: voxel size or label values may be wrong."""
    for name, volume in millilitres.items():
        most = MOST_ML.get(_organ(name), math.inf)
        if volume > most:
            yield Doubt("organ size", f"{name} has {volume:.0f} ml, more than {most} ml; check the voxel size")
    liver = millilitres.get("liver", math.inf)
    larger = [name for name, volume in millilitres.items() if volume > liver and _organ(name) not in ("", "liver")]
    if larger:
        yield Doubt("organ size", f"{', '.join(larger)} larger than the liver ({liver:.0f} ml); check the label values")


def _organ(name: str) -> str:
    """The organ of `MOST_ML` that a label names, or nothing."""
    words = name.lower()
    organ = next((organ for organ in MOST_ML if organ in words), "")
    return "" if any(word in words for word in NOT_ORGANS) else organ


def _sides(view: Scene) -> Iterator[Doubt]:
    """Organs whose side is known, against the middle of the body."""
    middle = float(np.median(np.argwhere(view.image > BODY)[:, 0])) * view.edges[0]
    right, wrong, far = [], [], []
    for value, name in view.names.items():
        side = _side(name)
        places = np.argwhere(view.label == value) if side else ()
        if side and len(places) * math.prod(view.edges) > 1000:
            offset = side * (float(np.mean(places[:, 0])) * view.edges[0] - middle)  # type: ignore[call-overload]
            right += [name] if offset > 10 else []
            wrong += [name] if offset < -10 else []
            far += [name] if offset < -25 and ("left" in name.lower() or "right" in name.lower()) else []
    if len(wrong) > len(right):
        yield Doubt("laterality", f"{', '.join(wrong)} on the other side; left and right may be flipped")
    elif far:
        yield Doubt("laterality", f"{', '.join(far)} on the other side; label values may be swapped")


def _side(name: str) -> int:
    """+1 for organs on the patient's right, -1 left, 0 either."""
    words = name.lower()
    if any(word in words for word in ("lobe", "tumo", "vein")):
        return 0
    return -1 if any(word in words for word in LEFT) else int(any(word in words for word in RIGHT))


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
    better = {how: _air_share(view.image, np.isin(labels, solid)) for how, labels in turned.items()}
    how = min(better, key=better.__getitem__)
    mend = f"; {how} of the label leaves {100 * better[how]:.0f} %" if better[how] < share / 3 else ""
    yield Doubt("label off image", f"{100 * share:.0f} % of the labelled voxels lie in air{mend}; check its axes")


def _air_share(image: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    return float((image[where] < AIR).mean()) if where.any() else 0.0


def _flipped(view: Scene, label: NDArray[np.uint8]) -> Iterator[Doubt]:
    """A map that would fit much better with one axis flipped: organs are about as bright everywhere."""
    organs = np.where(np.isin(label, [value for value, name in view.names.items() if _organ(name)]), label, 0)
    if not organs.any() or (now := spread(view.image, organs)) < 60:
        return
    flips = [spread(view.image, np.flip(organs, axis)) for axis in range(3)]
    axis = int(np.argmin(flips))
    if flips[axis] < 0.5 * now:
        text = f"HU within an organ vary by {now:.0f}, and by {flips[axis]:.0f} with its axis {axis} flipped"
        yield Doubt("label off image", f"{text}; check the axes of the label")


def _varied(view: Scene, label: NDArray[np.uint8]) -> Iterator[Doubt]:
    """Organs that span many kinds of tissue: the label may be another patient's, or moved."""
    varied = []
    for value, name in view.names.items():
        most = MOST_HU.get(_organ(name))
        inside = label == value
        if most is not None and inside.sum() * math.prod(view.edges) > 20000:
            now = spread(view.image, inside)
            varied += [f"{now:.0f} within {name}"] if now > most else []
    if varied:
        yield Doubt("label off image", f"HU vary by {', '.join(varied)}; is it this scan's label map, in its place?")


def _sparse(view: Scene, label: NDArray[np.uint8]) -> Iterator[Doubt]:
    """Organs drawn in some slices only, or sprinkled."""
    sparse: dict[str, list[str]] = {"in one slice only": [], "in some slices and not between them": [], "in specks": []}
    for value, name in view.names.items():
        if not _organ(name) or not (inside := label == value).any():
            continue
        slices = np.flatnonzero(inside.any(axis=(0, 1)))
        if len(slices) == 1 and inside.sum() * math.prod(view.edges[:2]) > 400:
            sparse["in one slice only"].append(name)
        elif 1 - len(slices) / (slices[-1] - slices[0] + 1) > 0.2:
            sparse["in some slices and not between them"].append(name)
        pieces, number = ndimage.label(inside, np.ones((3, 3, 3)))
        alone = int((np.bincount(pieces.ravel())[1:] == 1).sum())
        if alone > 25 and alone > number // 2:
            sparse["in specks"].append(name)
    for how, names in sparse.items():
        if names:
            yield Doubt("sparse label", f"{', '.join(names)} labelled {how}; clean or complete the label map")
