"""Organs that a collection declares and a scan's label map does not have: the trap of Eq. 6.

Where such an organ is in the scan and was only not drawn, its voxels are taken for background, so that training
pushes it away from the same organ in the other scans.
"""

from collections.abc import Iterator, Sequence

from mixcl.config.settings import Collection
from mixcl.data.check.findings import Checked, Finding
from mixcl.data.files import Severity

LESIONS = ("tumo", "cyst", "lesion", "cancer", "metast", "nodul")  # which a healthy patient does not have
MEND = (
    "what is in the scan and was not drawn passes for background in Eq. 6: draw it, or put such scans into a "
    "collection without that name; what the patient or the field of view does not have is rightly absent"
)


def missing_organs(cases: Sequence[Checked], name: str, collection: Collection) -> Iterator[Finding]:
    """What the scans of a collection lack of what it declares.

    An organ that most scans have is told scan by scan, under the name of each that lacks it; one that at most half of
    them have, once for the collection.  A lesion that some scans have is a note at most: not every patient has one.
    """
    read = [(case.case, case.organs) for case in cases if case.organs is not None]
    having = {organ: sum(organ in organs for _, organs in read) for organ in collection.organs.values()}
    for number in sorted(set(having.values())):
        rare = [o for o, k in having.items() if k == number and 2 * k <= len(read) and not (k and _is_lesion(o))]
        if read and rare:
            few = "its only scan does not have" if len(read) == 1 else f"none of its {len(read)} scans has"
            who = f"only {number} of its {len(read)} scans {'has' if number == 1 else 'have'}" if number else few
            text = f"{name}: declares {', '.join(rare)}, of which {who} a voxel; {MEND}"
            yield Finding("missing organ", "warning", name, "", text)
    for case, organs in read:
        lacking = [organ for organ, number in having.items() if 2 * number > len(read) and organ not in organs]
        for severity, some in _by_severity(lacking).items():
            text = f"{name}/{case}: has no voxel of {', '.join(some)}, which most scans of its collection have; {MEND}"
            yield Finding("missing organ", severity, name, case, text)


def _by_severity(organs: Sequence[str]) -> dict[Severity, list[str]]:
    """Organs to warn of, and lesions to note."""
    parts: dict[Severity, list[str]] = {}
    for organ in organs:
        parts.setdefault("note" if _is_lesion(organ) else "warning", []).append(organ)
    return parts


def _is_lesion(organ: str) -> bool:
    return any(word in organ.lower() for word in LESIONS)
