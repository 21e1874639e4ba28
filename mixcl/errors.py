"""The one exception that a user meets; too little memory becomes one that says what to lower."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

WORDS = ("out of memory", "can't allocate memory", "Cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""By which torch's errors of too little memory, of a CPU and of a GPU, are known; they are RuntimeErrors."""


class InputError(Exception):
    """Something the user gave is wrong; the message is one sentence that names it and says how to mend it.

    What a file has put into it moves no terminal: control characters are shown as Python spells them.  ``kind`` is a
    short name of the fault, for ``mixcl data check``.
    """

    def __init__(self, message: str, kind: str = "other") -> None:
        super().__init__(visible(message))
        self.kind = kind


def visible(text: str) -> str:
    """Text that moves no terminal: control characters, but for tabs and line breaks, as Python spells them."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda match: ascii(match[0])[1:-1], text)


def needs(extra: str, *modules: str) -> None:
    """Raise `InputError` where a module that an extra of pyproject.toml brings is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise InputError(f"{module} is not installed; pip install -e '.[{extra}]' in the repository")


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn too little memory into an InputError of the kind ``machine``; also a decorator."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not too_little(error):
            raise
        mend = "lower model.patch, the batch (pretrain.batch, finetune.batch, evaluate.windows) or model.hidden"
        raise InputError(f"too little memory; {mend}, or use a machine with more", "machine") from error


def too_little(error: BaseException) -> bool:
    """Whether an error, of torch or of the system, tells of too little memory."""
    of_torch = isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)
    return of_torch or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
