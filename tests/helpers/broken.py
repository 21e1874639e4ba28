"""Texts and values that no program wrote, for whatever reads a file of ours."""

from __future__ import annotations

import os
from pathlib import Path

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 10)
)
"""442 bytes of YAML that stand for 10^10 values."""
DEEP = "[" * 100_000
DIGITS = "1" * 4301
BROKEN_JSON = [
    "",
    "{",
    "[]",
    "null",
    "7",
    '"x"',
    "[" * 100_000,
    '{"a":' * 100_000,
    DIGITS,
    f'{{"a": {DIGITS}}}',
    "\x00" * 64,
]
"""What a JSON file of ours is not, whatever it is for."""


def flip(path: Path, place: int | None = None) -> None:
    """Turn one bit of a file, in its middle unless told otherwise; its size and date stay."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 16
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def deep(levels: int) -> str:
    """A JSON object with so many lists within each other."""
    return '{"a": ' + "[" * levels + "]" * levels + "}"
