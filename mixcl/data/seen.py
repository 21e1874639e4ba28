"""What a network has seen, said in its weights file: collections with their licences, and which scans (R24)."""

from collections.abc import Mapping, Sequence
from typing import Any

from mixcl.config.settings import Experiment
from mixcl.data.registry import collections
from mixcl.data.store import Case, Store

MARK = 16  # hexadecimal digits by which a scan is known, of the SHA-256 of its prepared voxels


def seen_by(config: Experiment, cases: Sequence[Case], card: Mapping[str, Any]) -> dict[str, Any]:
    """What a run on ``cases`` and the weights that it starts from have seen; ``card`` is its run.json.

    ``trained_on``, by collection its role and licence; ``phantoms``, whether all of it is made up; ``scans``, their
    marks in one line.
    """
    before, sets = card.get("pretraining") or {}, collections(config.data)
    role = "fine-tuning" if "task" in card else "pre-training"
    names = dict.fromkeys(case.collection for case in cases)
    marks = {case.content[0][:MARK] for case in cases} | set(before.get("scans", "").split())
    return {
        "trained_on": before.get("trained_on", {}) | {n: {"for": role, "licence": sets[n].licence} for n in names},
        "phantoms": config.data.source == "phantom" and before.get("phantoms", True),
        "scans": " ".join(sorted(marks)),
    }


def seen_before(config: Experiment, store: Store | None, card: Mapping[str, Any], cases: Sequence[Case]) -> list[int]:
    """Of each case 1 where the weights that a fine-tuning starts from have seen its scan, 0 where not, -1 if unknown.

    Weights that do not say it, of an older version, count as trained on ``data.pretrain`` where its scans are theirs.
    """
    start = card.get("pretraining") or {}
    if card["decides"]["init"] == "none" or store is None:
        return [0] * len(cases)
    if "scans" in start:
        marks = set(start["scans"].split())
        return [int(case.content[0][:MARK] in marks) for case in cases]
    names = [name for name in config.data.pretrain if name in store.collections]
    if start.get("data", "") not in ("", store.fingerprint(names)):
        return [-1] * len(cases)
    contents = store.contents(names)
    return [int(case.content[0] in contents) for case in cases]
