"""Write a file whole or not at all, and say in one sentence why it cannot be written; names that make paths."""

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mixcl.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
LONGEST_NAME, LONGEST_CASE = 120, 200
MOST_JSON, DEEPEST = 64_000_000, 32
SEAL = "sha256"  # the key of a JSON object's own checksum


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a disk refuses, such as for want of room or permission, into an InputError of the kind ``machine``."""
    try:
        yield
    except (ConnectionError, TimeoutError):  # a server's doing, not the disk's
        raise
    except (OSError, SafetensorError) as error:
        inner = re.search(r"os error (\d+)", str(error))  # safetensors tells the number in its text alone
        number = int(inner[1]) if inner else getattr(error, "errno", None)
        cut = " requested and " in str(error)  # numpy's words for an array that did not fit
        if number is None and not cut:
            raise
        if cut or number in FULL:
            mend = "the disk is full; make room, or choose another --out or data.store, and run the same command again"
        elif number in FORBIDDEN:
            mend = "must not be written; mend its permissions, or choose another place (--out, --to, data.store)"
        else:
            why = os.strerror(number or 0)
            mend = f"cannot be written ({why}); mend it, or choose another place (--out, --to, data.store)"
        raise InputError(f"{path}: {mend}", "machine") from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new path beside ``path``, with its suffixes, to write to; at the end it takes the place of ``path``.

    Whoever opens ``path`` meanwhile, or after a kill or a power cut, finds the old file or the new one, whole; where
    the block fails, the old one stays and what was written is taken away.  Who may read it is what the umask says,
    whatever the writer thinks (safetensors lets the owner alone).  Faults are told as by `writing`.
    """
    draft = path.with_name(f".{os.getpid()}-{_here()}.{path.name}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tidy(path)
        try:
            draft.touch()
            mode = draft.stat().st_mode
            yield draft
            draft.chmod(mode)
            sync(draft)
            draft.replace(path)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
        with suppress(OSError):  # some file systems do not sync a folder
            sync(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder that one process at a time writes: a new one beside ``path``, then in its place.

    Where the block fails, the old one stays.  A kill between two renames leaves none at ``path``; what a kill leaves,
    ``.tmp-NAME`` or ``.old-NAME``, goes when ``path`` is next written.  Files in it are synced by their writers alone.
    """
    draft, old = (path.with_name(f".{state}-{path.name}") for state in ("tmp", "old"))
    with writing(path):
        for left in (draft, old):
            shutil.rmtree(left, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
            yield draft
            if path.exists():
                path.rename(old)
            draft.rename(path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        with suppress(OSError):
            sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def tidy(path: Path) -> None:
    """Take away what killed writers of ``path`` have left: at once those of this machine, others after an hour."""
    for left in path.parent.glob(f".[0-9]*.{glob.escape(path.name)}"):
        writer = re.match(r"\.(\d+)-(\w+)\.", left.name)
        with suppress(OSError):
            dead = writer is not None and writer[2] == _here() and not Path("/proc", writer[1]).exists()
            if dead or left.stat().st_mtime < time.time() - 3600:
                left.unlink()


@cache
def _here() -> str:
    """A name of the processes that this one can see: of the machine since its start, or of a container on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
        return hashlib.sha256(f"{boot}{os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:8]
    except OSError:  # a system without /proc
        return ""


def sync(path: Path) -> None:
    """Wait until the system has put a file or folder on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON, a key a line, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that a program wrote: at most `MOST_JSON` bytes and `DEEPEST` levels; else OSError, ValueError."""
    if path.exists() and not path.is_file():
        raise ValueError("is no file")
    if path.stat().st_size > MOST_JSON:
        raise ValueError(f"has more than {human(MOST_JSON)}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}, not an object")
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [part for part in level if isinstance(part, dict | list)]
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
    if level:
        raise ValueError(f"is nested more than {DEEPEST} levels deep")
    return value


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON with a checksum of its own, ``sha256``, for `read_sealed`."""
    write_json(path, {**value, SEAL: _digest(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote, without the checksum; OSError, ValueError as `read_json`, or where it is not that."""
    value = read_json(path)
    if SEAL not in value:
        raise ValueError("it has no checksum; another version of mixcl may have written it")
    if value.pop(SEAL) != _digest(value):
        raise ValueError("its checksum is not that of its content")
    return value


def _digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object as it is read again, however it is laid out."""
    plain = json.loads(json.dumps(value))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk cannot hold: InputError; ``needed`` in bytes, ``what`` for or by what."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        text = f"{folder}: about {human(needed)} are needed {what}, but {human(free)} are free"
        raise InputError(f"{text}; make room, or choose another --out or data.store", "machine")


def human(size: float) -> str:
    """A size for people.

    >>> human(1_234_567_890), human(999)
    ('1.2 GB', '999 B')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def checked_name(kind: str, name: str) -> str:
    """``name`` of a job, arm, task, profile or collection (``kind``), where it can name a folder inside another one,
    else InputError.

    >>> checked_name("job", "pretrain-id_2.1")
    'pretrain-id_2.1'
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or ".." in name or len(name) > LONGEST_NAME:
        raise InputError(
            f"{kind} {name[:LONGEST_NAME]!r}: give a name of letters, digits, '.', '_' and '-' that begins with a"
            f" letter or digit, has no '..' and at most {LONGEST_NAME} characters, as it names a folder"
        )
    return name


def file_name(case: str) -> str:
    """A case's name as people have it, as one that every file system takes; `urllib.parse.unquote` gives it back.

    Letters, digits, ``.``, ``_`` and ``-`` stay, but for a dot or dash in front; each byte of anything else becomes
    ``%`` and two hexadecimal digits.  Different names stay different; one that is empty, too long or no Unicode is
    refused.

    >>> file_name("liver_10"), file_name("Anna (2)/a"), file_name("..")
    ('liver_10', 'Anna%20%282%29%2Fa', '%2E.')
    """
    try:
        name = re.sub(r"^[.-]|[^A-Za-z0-9._-]", lambda m: "".join(f"%{byte:02X}" for byte in m[0].encode()), case)
    except UnicodeEncodeError:
        raise InputError(f"case {case!a}: its name is not UTF-8; rename its files") from None
    if not 0 < len(name) <= LONGEST_CASE:
        raise InputError(f"case {case[:LONGEST_CASE]!r}: its name is empty or too long; rename its files")
    return name
