"""Write a file whole or not at all, and say in one sentence why it cannot be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from mixcl.errors import InputError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into one sentence; what was there before stays."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = getattr(error, "errno", None)
        text = str(error)
        if number == errno.ENOSPC or "No space left" in text:
            raise InputError(
                f"{path}: the disk is full; free some space and run the same command again, it goes on where it stopped"
            ) from error
        if number in (errno.EACCES, errno.EROFS, errno.EPERM) or "Permission denied" in text:
            raise InputError(f"{path}: cannot be written; check its permissions or choose another --out") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
