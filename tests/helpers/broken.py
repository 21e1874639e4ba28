"""Texts and values that no program wrote, for whatever reads a file of ours."""

from __future__ import annotations

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


def deep(levels: int) -> str:
    """A JSON object with so many lists within each other."""
    return '{"a": ' + "[" * levels + "]" * levels + "}"
