"""The same scan twice, within a collection or across two, whatever its file (R24)."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from mixcl.data.findings import Checked, Finding
from mixcl.data.grid import to_ras
from mixcl.data.volume import Volume


def content_of(image: Volume) -> tuple[str, ...]:
    """Hashes of the voxels as stored and as turned to RAS+, whatever header or compression they came in."""
    hashes = []
    for data in (image.data, to_ras(image.data, image.affine)[0]):
        whole = np.ascontiguousarray(np.rint(data), np.int32)
        hashes.append(hashlib.sha256(str(whole.shape).encode() + whole.tobytes()).hexdigest())
    return tuple(dict.fromkeys(hashes))


def duplicates(cases: Iterable[Checked], before: set[str], after: set[str]) -> list[Finding]:
    """Scans that are there twice; an error where one is for pre-training and one for fine-tuning (R24)."""
    groups = defaultdict(list)
    for case in cases:
        for content in case.content:
            groups[content].append(case)
    found = {}
    for group in groups.values():
        for case in group[1:]:
            first = group[0]
            sets = {first.collection, case.collection}
            leak = bool(sets & before and sets & after and len(sets) > 1)
            text = f"{case.collection}/{case.case}: the same scan as {first.collection}/{first.case}"
            text += "; it would be learnt before it is tested: take one away" if leak else "; take one away"
            one = Finding(
                "leak" if leak else "duplicate", "error" if leak else "warning", case.collection, case.case, text
            )
            found[first.collection, first.case, case.collection, case.case] = one
    return list(found.values())
