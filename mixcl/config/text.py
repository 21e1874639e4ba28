"""YAML that somebody wrote, in bounded memory and time, and values as a few words."""

from pathlib import Path
from typing import Any

import yaml

from mixcl.files import DEEPEST

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is there, is eight times as fast
MOST = 1_000_000
"""Characters of a text, and of what it stands for when every alias is written out."""


def read_text(path: Path) -> str:
    """A small text file.

    Raises
    ------
    OSError, ValueError
        It is no file, cannot be read, is not UTF-8 or has more than `MOST` bytes.
    """
    if not path.is_file():
        raise ValueError("is no file")
    with path.open("rb") as file:
        raw = file.read(MOST + 1)
    if len(raw) > MOST:
        raise ValueError(f"has more than {MOST:,} bytes")
    return raw.decode("utf-8")


def read_yaml(text: str) -> Any:
    """What a YAML text says.

    It is gone over event by event first, which takes no memory to speak of: nested deeper than `DEEPEST` levels, or
    longer than `MOST` characters with every alias written out, it is refused before anything is made of it.

    Raises
    ------
    ValueError
        It is no YAML, too large or deep, or holds a value that is none, such as the date 2001-99-99.

    >>> read_yaml("{a: [1, 2.5], b: null}")
    {'a': [1, 2.5], 'b': None}
    """
    try:
        _check_size(text)
        return yaml.load(text, LOADER)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _check_size(text: str) -> None:
    if len(text) > MOST:
        raise ValueError(f"has more than {MOST:,} characters")
    known: dict[str, int] = {}
    open_parts: list[tuple[str | None, int]] = [(None, 0)]  # anchor, and characters so far
    for event in yaml.parse(text, LOADER):
        anchor, size = getattr(event, "anchor", None), 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_parts.append((anchor, 0))
            if len(open_parts) > DEEPEST:
                raise ValueError(f"is nested more than {DEEPEST} levels deep")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_parts.pop()
        elif isinstance(event, yaml.ScalarEvent):
            size = 1 + len(event.value)
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in known:
                raise ValueError(f"the alias *{anchor} names nothing that is complete")
            size, anchor = known[str(anchor)], None
        if anchor is not None:
            known[anchor] = size
        outer, before = open_parts[-1]
        open_parts[-1] = outer, before + size
        if before + size > MOST:
            raise ValueError(f"stands for more than {MOST:,} characters")


def words(value: object, most: int = 80) -> str:
    """A value as it is written in Python, cut where it is long.

    >>> words("x" * 100, 10), words(10**5000)
    ("'xxxxxx...", 'a number of more than 4300 digits')
    """
    try:
        text = repr(value)
    except ValueError:  # Python writes no longer ones
        return "a number of more than 4300 digits"
    return text if len(text) <= most else f"{text[: most - 3]}..."
