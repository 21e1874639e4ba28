"""CSV that comes back as it was written, and in which no spreadsheet program finds a formula."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
FORMULA = re.compile(r"\s*[=+@＝＋－＠'-]|[\t\r\n]")


def cell(text: str) -> str:
    """A text as a cell that is shown and not computed: one that begins like a formula gets an apostrophe in front.

    So does one that begins with an apostrophe, so that `plain` has one answer.  Numbers stay as they are.

    >>> cell("=1+1"), cell("-0.5"), cell("-a"), cell("'a"), cell("liver")
    ("'=1+1", '-0.5', "'-a", "''a", 'liver')
    """
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def plain(text: str) -> str:
    """What a cell was made from.

    >>> [plain(cell(text)) for text in ("=1+1", "-0.5", "'a", "liver")]
    ['=1+1', '-0.5', "'a", 'liver']
    """
    return text.removeprefix("'")


def to_csv(table: pd.DataFrame) -> str:
    """A table as CSV, without its index; texts by `cell`, missing numbers as empty cells."""
    return table.map(lambda value: cell(value) if isinstance(value, str) else value).to_csv(index=False)


def read_csv(path: Path | str, texts: Iterable[str] = ()) -> pd.DataFrame:
    """What `to_csv` wrote; OSError, ValueError where it cannot be read.

    ``texts`` are columns that hold texts, whatever they look like: ``007``, ``NA`` and ``null`` are names of cases.
    """
    table = pd.read_csv(path, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=[""])
    return table.map(lambda value: plain(value) if isinstance(value, str) else value)
