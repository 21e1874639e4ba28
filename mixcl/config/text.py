"""YAML that somebody wrote, in bounded memory and time, and values as a few words."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from mixcl.files import DEEPEST

MOST = 1_000_000  # characters of a text, and of what it stands for when every alias is written out


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml is eight times as fast
    """Refuses what YAML takes without a word and nobody means: a key twice, 010 for 8, 1:30 for 90."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, number in keys.items():
            if number > 1:
                raise ValueError(f"the key {words(key)} is there twice from line {node.start_mark.line + 1} on")
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if number and re.fullmatch(r"[-+]?0[0-9_]+|.*:.*", str(node.value)):
            raise ValueError(
                f"YAML reads {words(node.value)} to the base 8 or 60; write it without leading 0 and colon"
            )
        return super().construct_scalar(node)


def read_text(path: Path) -> str:
    """A small text file; an OSError or ValueError where it is none, cannot be read, or has more than `MOST` bytes."""
    if not path.is_file():
        raise ValueError("is no file")
    if path.stat().st_size > MOST:
        raise ValueError(f"has more than {MOST:,} bytes")
    return path.read_text(encoding="utf-8")


def read_yaml(text: str) -> Any:
    """What a YAML text says; a ValueError where it is none, or too large or deep, before anything is made of it.

    >>> read_yaml("{a: [1, 2.5], b: null}")
    {'a': [1, 2.5], 'b': None}
    """
    with _checked(text):
        _check_size(text)
        return yaml.load(text, Loader)


def read_value(text: str) -> Any:
    """What a value typed after ``=`` is: YAML where it begins like a list, a section or a quotation.

    Else it is one plain scalar to its end: in ``data.root=/data/run #2: new`` neither ``#`` nor ``: `` means anything.

    >>> read_value("[1, 2]"), read_value("0.1"), read_value("null"), read_value("/data/run #2: new")
    ([1, 2], 0.1, None, '/data/run #2: new')
    """
    text = text.strip()
    if text[:1] in ("[", "{", '"', "'"):
        return read_yaml(text)
    if text == "~":  # a folder, as in a shell
        return text
    with _checked(text):
        loader = Loader("")
        return loader.construct_object(yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text))


@contextmanager
def _checked(text: str) -> Iterator[None]:
    """Refuse what is too long, and turn all that yaml raises into a ValueError of one line."""
    try:
        if len(text) > MOST:
            raise ValueError(f"has more than {MOST:,} characters")
        yield
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _check_size(text: str) -> None:
    """Go over the events, which takes no memory to speak of, and count levels, and characters with aliases in full."""
    known: dict[str | None, int] = {}  # characters of what an anchor names
    begun: list[tuple[str | None, int]] = []  # of each open part its anchor, and the characters before it
    size = 0
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, size))
            if len(begun) >= DEEPEST:
                raise ValueError(f"is nested more than {DEEPEST} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            known[anchor] = size - before
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in known:
                raise ValueError(f"the alias *{event.anchor} names nothing that is complete")
            size += known[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            known[event.anchor] = 1 + len(event.value)
            size += 1 + len(event.value)
        if size > MOST:
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
