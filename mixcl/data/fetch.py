"""One file over HTTP, as often as it takes: resumed, checked, and under its name only when it is whole.

A file is written as ``NAME.part``.  A download that was broken off, by the server or by kill -9, goes on where it was.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mixcl.errors import InputError

CHUNK = 2**20
TRIES = 5  # in a row without a new byte
WAIT = 2.0  # seconds before the second try, doubled each time
TIMEOUT = 60.0


def fetch(url: str, to: Path, md5: str | None = None, *, progress: bool = True, shown: str = "") -> Path:
    """Download one file, going on from ``to``.part where there is one.

    Parameters
    ----------
    url
        http or https.
    to
        The file; its folder is made.
    md5
        Checked before the file gets its name; without one a ``.gz`` is read through, which checks its own sum.

    Raises
    ------
    InputError
        No room on the disk, a server that does not give the file, a file that is not what it should be.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    part, failed = to.with_name(f"{to.name}.part"), 0
    with tqdm(desc=shown or to.name, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress) as bar:
        while True:
            before = part.stat().st_size if part.is_file() else 0
            problem = _go_on(url, part, bar)
            if problem is None:
                break
            failed = 0 if part.is_file() and part.stat().st_size > before else failed + 1
            if failed >= TRIES:
                raise InputError(f"{url}: {problem}, {TRIES} times; what came is kept in {part}, try again later")
            time.sleep(WAIT * 2 ** max(0, failed - 1))
    _check(part, url, md5)
    part.replace(to)
    _note(part).unlink(missing_ok=True)
    return to


def _go_on(url: str, part: Path, bar: Any) -> str | None:
    """One connection: append to ``part`` what is missing.  None when the file is whole, else what went wrong."""
    have, tag = (part.stat().st_size if part.is_file() else 0), _tag(part)
    request = urllib.request.Request(url, headers={"User-Agent": "mixcl"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag:
            request.add_header("If-Range", tag)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            start = have if answer.status == 206 else 0
            total = _total(answer, start)
            _note(part).write_text(json.dumps({"tag": answer.headers.get("ETag", "")}), encoding="utf-8")
            room(part.parent, (total or 0) - start, f"for {part.stem}")
            bar.total, bar.n = total, start
            bar.refresh()
            _write(answer, part, start, bar.update)
    except urllib.error.HTTPError as error:
        if error.code == 416 and _total_416(error) == have:
            return None  # nothing was missing
        if error.code == 416:
            part.unlink()
            return "the server's file has changed"
        if error.code < 500:
            raise InputError(f"{url}: the server answers {error.code} {error.reason}; get the file by hand") from None
        return f"the server answers {error.code}"
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        return f"no connection ({getattr(error, 'reason', error)})"
    now = part.stat().st_size
    if total is not None and now < total:
        return f"the connection broke off at {now} of {total} bytes"
    return None


def _write(answer: Any, part: Path, start: int, told: Callable[[int], Any]) -> None:
    """Copy the answer's body behind the first ``start`` bytes of the file."""
    try:
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            with suppress(http.client.IncompleteRead):
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    told(len(chunk))
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise InputError(f"{part}: cannot be written ({error.strerror}); make room or mend its permissions") from None


def _total(answer: Any, start: int) -> int | None:
    """Size of the whole file as the server tells it."""
    length = answer.headers.get("Content-Length")
    return start + int(length) if length and length.isdigit() else None


def _total_416(error: urllib.error.HTTPError) -> int | None:
    """``Content-Range: bytes */N`` of an answer that has nothing to give."""
    text = (error.headers.get("Content-Range") or "").rpartition("/")[2]
    return int(text) if text.isdigit() else None


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _tag(part: Path) -> str:
    """The server's mark of the version that ``part`` is a piece of."""
    try:
        return str(json.loads(_note(part).read_text(encoding="utf-8"))["tag"])
    except (OSError, ValueError, KeyError):
        return ""


def _check(part: Path, url: str, md5: str | None) -> None:
    """Compare the checksum, or read a .gz through; a wrong file is taken away."""
    wrong = ""
    if md5 is not None:
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        wrong = f"its MD5 is {found}, not {md5}" if found != md5 else ""
    elif part.stem.endswith(".gz"):
        try:
            with gzip.open(part) as file:
                while file.read(CHUNK):
                    pass
        except (OSError, EOFError, zlib.error) as error:
            wrong = f"it is not a whole .gz file ({error})"
    if wrong:
        part.unlink()
        _note(part).unlink(missing_ok=True)
        raise InputError(f"{url}: what came is not the file: {wrong}; it was taken away, get it again")


def room(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk cannot hold; ``needed`` in bytes.

    Raises
    ------
    InputError
        Less is free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: {needed / 1e9:.1f} GB are needed {what} and {free / 1e9:.1f} GB are free; make room"
        )
