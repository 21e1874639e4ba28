"""Which cases train and which test: folds and nested label fractions (R18, Table 1); and what networks have seen (R24).

No split depends on the order in which cases are given, on the machine, or on the version of a library: cases are
ordered by a SHA-256 of the seed and their name.
"""

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from mixcl.config.settings import Experiment
from mixcl.data.registry import collections
from mixcl.data.store import Case, Store
from mixcl.errors import InputError

MARK = 16  # hexadecimal digits by which a scan is known, of the SHA-256 of its prepared voxels


def folds(case_ids: Iterable[str], n_folds: int = 5, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """Cross-validation: for each fold its training and its test cases, sorted by name (Sec. 3.2).

    The test parts are disjoint, together they are all cases, and their sizes differ by one at most.

    Raises ValueError: a case twice, fewer than 2 folds, or fewer cases than folds.

    >>> train, test = folds(["a", "b", "c", "d", "e", "f"], n_folds=3)[0]
    >>> len(train), len(test), sorted(train + test)
    (4, 2, ['a', 'b', 'c', 'd', 'e', 'f'])
    """
    order = _shuffled(case_ids, "folds", seed)
    if n_folds < 2:
        raise ValueError(f"n_folds is {n_folds}; cross-validation needs at least 2")
    if len(order) < n_folds:
        mend = f"set grid.n_folds to {len(order)} or less" if len(order) > 1 else "cross-validation needs at least 2"
        raise ValueError(f"{len(order)} cases cannot make {n_folds} folds; give more cases, or {mend}")
    tests = [set(order[k::n_folds]) for k in range(n_folds)]
    return [(sorted(set(order) - test), sorted(test)) for test in tests]


def fraction(case_ids: Iterable[str], pct: float, seed: int = 0) -> list[str]:
    """``ceil(pct / 100 * n)`` of the cases, sorted by name; a smaller part lies in every larger one (R18).

    ``pct`` is above 0 and up to 100, and taken as the decimal number it is written as, so that 15 % of 20 is 3.

    Raises ValueError: a percentage out of range, a case twice, or no cases.

    >>> len(fraction([f"case{k}" for k in range(20)], 15))
    3
    """
    return _first(_shuffled(case_ids, "fraction", seed), pct)


def split(
    cases: tuple[Case, ...], config: Experiment, fold: int, percent: float, seed: int
) -> tuple[list[Case], list[Case]]:
    """Training cases (``percent`` of them, R18) and test cases of one fold, sorted by name.

    Test cases depend on the fold alone, training cases on fold and seed (:func:`draw`), so that all arms have the same.
    Raises `InputError` for a fold that there is not, or too few cases.
    """
    by_id = {case.id: case for case in cases}
    try:
        parts = [test for _, test in folds(by_id, config.grid.n_folds)]
        if not 0 <= fold < len(parts):
            raise ValueError(f"folds are numbered 0 to {len(parts) - 1}, as grid.n_folds is {len(parts)}")
        kept = _first(draw(parts, fold, seed), percent)
    except ValueError as error:
        raise InputError(f"fold {fold} at {percent} % of {len(by_id)} cases cannot be made: {error}") from None
    return [by_id[i] for i in kept], [by_id[i] for i in parts[fold]]


def draw(parts: Sequence[Sequence[str]], fold: int, seed: int) -> list[str]:
    """The training cases of a fold in the order in which a share of them is filled, another one for every seed.

    The test parts of the other folds give a case each in turn, the one after the fold's own first; a seed begins one
    case further in each part, and when all have been first, with another part and anew shuffled.  So shares of two
    folds always differ, and so do two seeds' smallest ones, as long as there are cases enough.  Over folds and seeds
    all cases are used about equally often.

    >>> [draw([["a", "b"], ["c", "d"], ["e", "f"]], fold, seed)[0] for fold in range(3) for seed in range(2)]
    ['c', 'd', 'f', 'e', 'a', 'b']
    """
    other_parts = [*parts[fold + 1 :], *parts[:fold]]
    lap, first = divmod(seed, min(map(len, parts)))
    turns = [_turned(_shuffled(part, f"draw/{fold}", lap), first) for part in _turned(other_parts, lap)]
    return [case for row in itertools.zip_longest(*turns) for case in row if case is not None]


def start(fold: int, seed: int) -> int:
    """The seed of a fine-tuning's fresh weights, patches and distortions: another one for every fold and seed.

    All arms and shares have the same.  Below 2^32, which is all that torch's generator looks at.

    >>> start(0, 0) != start(1, 0) != start(0, 1)
    True
    """
    return int.from_bytes(hashlib.sha256(f"start/{fold}/{seed}".encode()).digest()[:4])


def seen_by(config: Experiment, cases: Sequence[Case], card: Mapping[str, Any]) -> dict[str, Any]:
    """What a run on ``cases`` and the weights that it starts from have seen; ``card`` is its run.json.

    Its weights file says it: ``trained_on``, by collection its role and licence; ``phantoms``, whether all of it is
    made up; ``scans``, their marks in one line.
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
    before = card.get("pretraining") or {}
    if card["decides"]["init"] == "none" or store is None:
        return [0] * len(cases)
    if "scans" in before:
        marks = set(before["scans"].split())
        return [int(case.content[0][:MARK] in marks) for case in cases]
    names = [name for name in config.data.pretrain if name in store.collections]
    if before.get("data", "") not in ("", store.fingerprint(names)):
        return [-1] * len(cases)
    contents = store.contents(names)
    return [int(case.content[0] in contents) for case in cases]


def _first(order: list[str], pct: float) -> list[str]:
    """``ceil(pct / 100 * n)`` of the cases in the order given, sorted by name."""
    if not 0 < pct <= 100:
        raise ValueError(f"pct is {pct}; it is a percentage above 0 and up to 100")
    if not order:
        raise ValueError("there are no cases to take a fraction of")
    return sorted(order[: math.ceil(Fraction(str(pct)) * len(order) / 100)])


def _turned(items: Sequence[Any], by: int) -> list[Any]:
    """The items from the ``by``-th on, then those before it, round and round."""
    by %= len(items)
    return [*items[by:], *items[:by]]


def _shuffled(case_ids: Iterable[str], purpose: str, seed: int) -> list[str]:
    """The cases in the order of their hashes; another order for every seed and purpose."""
    ids = [case_ids] if isinstance(case_ids, str) else list(case_ids)
    if twice := sorted({str(case) for case in ids if ids.count(case) > 1}):
        raise ValueError(f"cases appear twice: {', '.join(twice[:5])}")
    return sorted(ids, key=lambda case: (hashlib.sha256(f"{purpose}/{seed}/{case}".encode()).digest(), str(case)))
