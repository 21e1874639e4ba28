"""Which cases train and which test: folds and nested label fractions (R18, Table 1).

Nothing here depends on the order in which cases are given, on the machine, or on the version of a library:
cases are ordered by a SHA-256 of the seed and their name.
"""

import hashlib
from collections.abc import Iterable
from fractions import Fraction

from mixcl.config.settings import Experiment
from mixcl.data.store import Case
from mixcl.errors import InputError


def folds(case_ids: Iterable[str], n_folds: int = 5, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """Cross-validation: for each fold its training and its test cases, sorted by name (Sec. 3.2).

    The test parts are disjoint, together they are all cases, and their sizes differ by one at most.

    Raises
    ------
    ValueError
        A case twice, fewer than 2 folds, or fewer cases than folds.

    >>> train, test = folds(["a", "b", "c", "d", "e", "f"], n_folds=3)[0]
    >>> len(train), len(test), sorted(train + test)
    (4, 2, ['a', 'b', 'c', 'd', 'e', 'f'])
    """
    order = _shuffled(case_ids, "folds", seed)
    if n_folds < 2:
        raise ValueError(f"n_folds is {n_folds}; cross-validation needs at least 2")
    if len(order) < n_folds:
        raise ValueError(f"{len(order)} cases cannot make {n_folds} folds; give more cases or fewer folds")
    tests = [set(order[k::n_folds]) for k in range(n_folds)]
    return [(sorted(set(order) - test), sorted(test)) for test in tests]


def fraction(case_ids: Iterable[str], pct: float, seed: int = 0) -> list[str]:
    """``ceil(pct / 100 * n)`` of the cases, sorted by name; a smaller part lies in every larger one (R18).

    Parameters
    ----------
    case_ids
        The training cases of a fold.
    pct
        Percent, above 0 and up to 100; taken as the decimal number it is written as, so that 15 % of 20 is 3.
    seed
        Which cases.

    Raises
    ------
    ValueError
        A percentage out of range, a case twice, or no cases.

    >>> len(fraction([f"case{k}" for k in range(20)], 15))
    3
    """
    if not 0 < pct <= 100:
        raise ValueError(f"pct is {pct}; it is a percentage above 0 and up to 100")
    order = _shuffled(case_ids, "fraction", seed)
    if not order:
        raise ValueError("there are no cases to take a fraction of")
    exact = Fraction(str(pct)) * len(order) / 100
    return sorted(order[: -(-exact.numerator // exact.denominator)])


def split(cases: tuple[Case, ...], config: Experiment, fold: int, percent: float) -> tuple[list[Case], list[Case]]:
    """Training cases (``percent`` of them, R18) and test cases of one fold."""
    by_id = {case.id: case for case in cases}
    try:
        train, test = folds(list(by_id), config.grid.n_folds, seed=0)[fold]
        kept = fraction(train, percent, seed=0)
    except (ValueError, IndexError) as error:
        raise InputError(f"fold {fold} at {percent} % of {len(by_id)} cases cannot be made: {error}") from None
    return [by_id[i] for i in sorted(kept)], [by_id[i] for i in sorted(test)]


def _shuffled(case_ids: Iterable[str], purpose: str, seed: int) -> list[str]:
    """The cases in the order of their hashes; another order for every seed and purpose."""
    ids = [case_ids] if isinstance(case_ids, str) else list(case_ids)
    twice = sorted({str(case) for case in ids if ids.count(case) > 1})
    if twice:
        raise ValueError(f"cases appear twice: {', '.join(twice[:5])}")
    return sorted(ids, key=lambda case: (hashlib.sha256(f"{purpose}/{seed}/{case}".encode()).digest(), str(case)))
