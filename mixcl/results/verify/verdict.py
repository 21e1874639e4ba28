"""What a verification says: check by check, and what it did not look at."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Check:
    """One line of the verdict: ``what`` was compared, the two values, whether it holds, and the job that made it.

    Where ``compared`` is false nothing was compared; ``what`` says what was left out.
    """

    what: str
    expected: str
    actual: str
    holds: bool
    job: str = ""
    note: str = ""
    compared: bool = True


def same(what: str, expected: object, actual: object, job: str) -> Check:
    """Two values, of which the verdict shows the beginning."""
    return Check(what, str(expected)[:12], str(actual)[:12], actual == expected, job)


def agrees(what: str, faults: Iterable[str], job: str, expected: str = "as recorded") -> Check:
    """What holds unless something speaks against it; the first fault is shown, and how many there are."""
    faults = list(faults)
    more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
    return Check(what, expected, f"{faults[0]}{more}" if faults else expected, not faults, job)


def not_compared(what: str) -> Check:
    """What was not looked at."""
    return Check(what, "", "", True, compared=False)


def sampled(what: str, compared: int, of: int) -> Iterator[Check]:
    """What a sample left out."""
    if compared < of:
        yield not_compared(f"{what}: {of - compared} of {of}; --full takes all")


def report(checks: Iterable[Check]) -> str:
    """The checks as a table: what is off at the top, cells next, what was not looked at, and the count of the rest."""
    given = list(checks)
    rows = sorted((check for check in given if check.compared), key=lambda check: check.holds)
    shown = [check for check in rows if not check.holds or check.what.startswith("Dice")]
    table = pd.DataFrame(
        [[c.what, c.expected, c.actual, "ok" if c.holds else "OFF", c.note or c.job] for c in shown],
        columns=["what", "expected", "found", "", "job"],
    )
    off = sum(not check.holds for check in rows)
    lines = [table.to_string(index=False)] if len(table) else []
    lines += [f"not looked at: {check.what}" for check in given if not check.compared]
    return "\n".join([*lines, f"{len(rows)} checks: {f'{off} off' if off else 'all equal or within tolerance'}"])
