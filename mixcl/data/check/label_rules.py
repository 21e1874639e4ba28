"""Does a label map fit its scan?  Rules of thumb, so warnings, not errors; axes are RAS+, every few voxels."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mixcl.config.settings import Collection
from mixcl.data.check.findings import Checked, Finding
from mixcl.data.check.image_rules import AIR, BODY, Scene
from mixcl.data.files import Doubt, Severity
from mixcl.data.files.align import spread

HOLLOW = ("lung", "airway", "trachea", "bronch", "air", "gas", "colon", "bowel", "stomach", "duoden", "intestin",
          "esophag", "oesophag")  # fmt: skip
RIGHT, LEFT = ("liver", "gallbladder", "gall bladder", "right"), ("spleen", "left")
MOST_ML = {"liver": 6000, "spleen": 4000, "pancreas": 500, "kidney": 2500, "gallbladder": 600, "aorta": 1500}
MOST_HU = {"liver": 60, "spleen": 60, "pancreas": 80, "kidney": 80}
"""How much HU may vary within an organ (`spread`); 15 to 45 on real scans, 50 to 350 where the map is flipped."""
LESIONS = ("tumo", "cyst", "lesion", "cancer", "metast", "nodul")  # which a healthy patient does not have
NOT_ORGANS = (*LESIONS, "vein", "vess", "duct")
MISSING = (
    "what is in the scan and was not drawn passes for background in Eq. 6: draw it, or put such scans into a "
    "collection without that name; what the patient or the field of view does not have is rightly absent"
)


def doubts(view: Scene) -> Iterator[Doubt]:
    """Everything odd about the label map of a scene."""
    yield from _laterality(view)
    yield from list(_in_air(view)) or list(_flipped(view)) or list(_varied(view))
    yield from _sparse(view)


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


def missing_organs(cases: Iterable[Checked], name: str, collection: Collection) -> Iterator[Finding]:
    """What the scans of a collection lack of the organs that it declares: the trap of Eq. 6.

    Where such an organ is in the scan and was only not drawn, its voxels are taken for background, so that training
    pushes it away from the same organ in the other scans.  An organ that most scans have is told scan by scan, one that
    at most half of them have, once for the collection.  A lesion that some scans have is a note at most: not every
    patient has one.
    """
    read = [(case.case, case.organs) for case in cases if case.organs is not None]
    having = {organ: sum(organ in organs for _, organs in read) for organ in collection.organs.values()}
    for number in sorted(set(having.values())):
        rare = [o for o, k in having.items() if k == number and 2 * k <= len(read) and not (k and _has(o, LESIONS))]
        if read and rare:
            few = "its only scan does not have" if len(read) == 1 else f"none of its {len(read)} scans has"
            who = f"only {number} of its {len(read)} scans {'has' if number == 1 else 'have'}" if number else few
            text = f"{name}: declares {', '.join(rare)}, of which {who} a voxel; {MISSING}"
            yield Finding("missing organ", "warning", name, "", text)
    for case, organs in read:
        lacking: dict[Severity, list[str]] = {}
        for organ, number in having.items():
            if 2 * number > len(read) and organ not in organs:
                lacking.setdefault("note" if _has(organ, LESIONS) else "warning", []).append(organ)
        for severity, some in lacking.items():
            what = f"has no voxel of {', '.join(some)}, which most scans of its collection have"
            yield Finding("missing organ", severity, name, case, f"{name}/{case}: {what}; {MISSING}")


def _has(name: str, words: Sequence[str]) -> bool:
    return any(word in name.lower() for word in words)


def _organ(name: str) -> str:
    """The organ of `MOST_ML` that a label names, or nothing."""
    return "" if _has(name, NOT_ORGANS) else next((organ for organ in MOST_ML if organ in name.lower()), "")


def _laterality(view: Scene) -> Iterator[Doubt]:
    """Organs whose side is known, against the middle of the body."""
    middle = float(np.median(np.argwhere(view.image > BODY)[:, 0])) * view.edges[0]
    right, wrong, far = [], [], []
    for value, name in view.names.items():
        side = 0 if _has(name, ("lobe", "tumo", "vein")) else -1 if _has(name, LEFT) else int(_has(name, RIGHT))
        places = np.argwhere(view.label == value)
        if side and len(places) * math.prod(view.edges) > 1000:
            offset = side * (float(np.mean(places[:, 0])) * view.edges[0] - middle)
            right += [name] if offset > 10 else []
            wrong += [name] if offset < -10 else []
            far += [name] if offset < -25 and _has(name, ("left", "right")) else []
    if len(wrong) > len(right):
        yield Doubt("laterality", f"{', '.join(wrong)} on the other side; left and right may be flipped")
    elif far:
        yield Doubt("laterality", f"{', '.join(far)} on the other side; label values may be swapped")


def _in_air(view: Scene) -> Iterator[Doubt]:
    """Labels of solid organs that lie in air, and whether a flip or a swap would mend it."""
    solid = np.isin(view.label, [value for value, name in view.names.items() if not _has(name, HOLLOW)])
    share = _air_share(view.image, solid)
    if share < 0.1:
        return
    turned = {f"flipping axis {axis}": np.flip(solid, axis) for axis in range(3)}
    for a, b in ((0, 1), (0, 2), (1, 2)):
        if solid.shape[a] == solid.shape[b]:
            turned[f"swapping axes {a} and {b}"] = np.swapaxes(solid, a, b)
    better = {how: _air_share(view.image, where) for how, where in turned.items()}
    how = min(better, key=better.__getitem__)
    mend = f"; {how} of the label leaves {100 * better[how]:.0f} %" if better[how] < share / 3 else ""
    yield Doubt("label off image", f"{100 * share:.0f} % of the labelled voxels lie in air{mend}; check its axes")


def _air_share(image: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    return float((image[where] < AIR).mean()) if where.any() else 0.0


def _flipped(view: Scene) -> Iterator[Doubt]:
    """A map that would fit much better with one axis flipped: organs are about as bright everywhere."""
    organs = np.where(np.isin(view.label, [value for value, name in view.names.items() if _organ(name)]), view.label, 0)
    if not organs.any() or (variation := spread(view.image, organs)) < 60:
        return
    flips = [spread(view.image, np.flip(organs, axis)) for axis in range(3)]
    axis = int(np.argmin(flips))
    if flips[axis] < 0.5 * variation:
        text = f"HU within an organ vary by {variation:.0f}, and by {flips[axis]:.0f} with its axis {axis} flipped"
        yield Doubt("label off image", f"{text}; check the axes of the label")


def _varied(view: Scene) -> Iterator[Doubt]:
    """Organs that span many kinds of tissue: the label may be another patient's, or moved."""
    varied = []
    for value, name in view.names.items():
        most, inside = MOST_HU.get(_organ(name)), view.label == value
        if most is not None and inside.sum() * math.prod(view.edges) > 20000:
            variation = spread(view.image, inside)
            varied += [f"{variation:.0f} within {name}"] if variation > most else []
    if varied:
        yield Doubt("label off image", f"HU vary by {', '.join(varied)}; is it this scan's label map, in its place?")


def _sparse(view: Scene) -> Iterator[Doubt]:
    """Organs drawn in some slices only, or sprinkled."""
    sparse: dict[str, list[str]] = {"in one slice only": [], "in some slices and not between them": [], "in specks": []}
    for value, name in view.names.items():
        if not _organ(name) or not (inside := view.label == value).any():
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
