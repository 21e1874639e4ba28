"""The same scan twice, within a collection or across two, whatever its file (R24).

Equal voxels are known by their hash.  Copies that were cropped, mirrored or rewritten are known by their profile: body
area and mean brightness along the body.  Profiles of copies differed by 0.00 to 0.02, those of different bodies by 0.06
or more (630 pairs of drawn scans); a copy on another grid differs by 0.03 to 0.05 and is not told.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mixcl.data.arrays import content_of
from mixcl.data.check.findings import Checked, Finding
from mixcl.data.check.image_rules import BODY
from mixcl.data.files import Severity, Volume
from mixcl.data.files.grid import spacing_of, to_ras

STEP_MM = 2.5
SHORTEST = 30  # steps of a profile, 75 mm
ALIKE = 0.025


def contents_of(image: Volume) -> tuple[str, ...]:
    """Hashes of the voxels as stored and as turned to RAS+, whatever header or compression they came in."""
    both = (image.data, to_ras(image.data, image.affine)[0])
    far = 2**31 - 2**8  # float32 has no larger whole number that int32 has
    whole = (np.ascontiguousarray(np.rint(data, dtype=np.float32).clip(-far, far), np.int32) for data in both)
    return tuple(dict.fromkeys(map(content_of, whole)))


def duplicates(cases: Sequence[Checked], before: set[str], after: set[str], leak: Severity = "error") -> list[Finding]:
    """Scans that are there twice; worse, a ``leak``, where one is for pre-training and one for fine-tuning (R24)."""
    groups = defaultdict(list)
    for number, case in enumerate(cases):
        for content in case.content:
            groups[content].append(number)
    equal = {(group[0], number) for group in groups.values() for number in group[1:]}
    pairs = itertools.combinations(range(len(cases)), 2)
    alike = [pair for pair in pairs if pair not in equal and _alike(cases[pair[0]], cases[pair[1]])]
    findings = []
    for pair in (*sorted(equal), *alike):
        first, case = (cases[number] for number in pair)
        sets = {first.collection, case.collection}
        leaks = bool(sets & before and sets & after and len(sets) > 1)
        if pair in equal:
            kind, severity = ("leak", leak) if leaks else ("duplicate", "warning")
            how, mend = "the same scan as", "take one away"
        else:
            kind, severity = "near duplicate", "warning"
            how, mend = "looks like the same patient's scan as", "compare the two"
        why = "; it would be learnt before it is tested" if leaks else ""
        text = f"{case.collection}/{case.case}: {how} {first.collection}/{first.case}{why}; {mend}"
        findings.append(Finding(kind, severity, case.collection, case.case, text))
    return findings


def profile_of(image: Volume) -> NDArray[np.float32]:
    """Body area, cm2, and mean HU of the body, [2, k], every 2.5 mm from the feet."""
    turned, affine = to_ras(image.data, image.affine)
    edges = spacing_of(affine)
    area, mean = np.zeros(turned.shape[2]), np.zeros(turned.shape[2])
    for k, plane in enumerate(np.moveaxis(turned, 2, 0)):
        body = plane[plane > BODY]
        area[k] = body.size * edges[0] * edges[1] / 100
        mean[k] = np.clip(body, -150, 250).mean() if body.size else 0.0
    heights = np.arange(area.size) * edges[2]
    at = np.arange(0.0, heights[-1] + 1e-6, STEP_MM)
    return np.stack([np.interp(at, heights, area), np.interp(at, heights, mean)]).astype(np.float32)


def _alike(first: Checked, case: Checked) -> bool:
    """Whether two profiles agree over four fifths of the shorter one, either way up."""
    a, b = first.profile, case.profile
    if a is None or b is None or min(a.shape[1], b.shape[1]) < SHORTEST or min(a[0].mean(), b[0].mean()) < 20:
        return False
    if abs(np.median(a[1]) - np.median(b[1])) > 40:
        return False
    near = [way for way in (b, b[:, ::-1]) if profile_distance(a[:, ::4], way[:, ::4]) < 4 * ALIKE]  # quick, first
    return any(profile_distance(a, way) < ALIKE for way in near)


def profile_distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Smallest mean difference of two profiles when one is shifted along the other: share of area + HU / 100."""
    n, m = a.shape[1], b.shape[1]
    beyond = n - int(0.8 * min(n, m))  # by so much b may stand out at either end of a
    inside = sliding_window_view(np.pad(np.ones(m, np.float32), beyond), n)  # [shifts, n]
    moved = sliding_window_view(np.pad(b, ((0, 0), (beyond, beyond))), n, axis=1)  # [2, shifts, n]
    count = inside.sum(axis=1)
    area, mean = (np.abs(moved - a[:, None]) * inside).sum(axis=2) / count
    return float((area / np.maximum(inside @ a[0] / count, 1.0) + mean / 100).min())
