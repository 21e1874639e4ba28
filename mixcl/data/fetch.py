"""One file over HTTP: resumed from ``NAME.part`` after a break or kill -9, checked, and named only when it is whole."""

import gzip
import hashlib
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mixcl.errors import InputError
from mixcl.files import check_room, human, writing

CHUNK = 2**20
TRIES = 5  # in a row without a new byte
WAIT = 2.0  # seconds before the second try, doubled each time
TIMEOUT = 60.0
LARGEST = 4 * 10**9  # bytes of a scan, unpacked


def fetch(url: str, to: Path, md5: str | None = None, *, progress: bool = True, shown: str = "") -> Path:
    """Download one file, going on from ``to``.part where there is one.

    The folder of ``to`` is made.  Without an ``md5`` to compare with, a ``.gz`` is read through, which checks its own.
    Raises InputError: no room on the disk, a server that does not give the file, a file that is not what it should be.
    """
    part, failed = to.with_name(f"{to.name}.part"), 0
    with writing(to):
        to.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(desc=shown or to.name, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress) as bar:
        before = _size(part)
        while problem := _go_on(url, part, bar):
            failed = 0 if _size(part) > before else failed + 1
            if failed >= TRIES:
                raise InputError(f"{url}: {problem}, {TRIES} times; what came is kept in {part}, try again later")
            time.sleep(WAIT * 2 ** max(0, failed - 1))
            before = _size(part)
    _check(part, url, md5)
    with writing(to):
        part.replace(to)
    return to


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _go_on(url: str, part: Path, bar: Any) -> str | None:
    """One connection: append to ``part`` what is missing.  None when the file is whole, else what went wrong."""
    have = _size(part)
    headers = {"User-Agent": "mixcl"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
            start = have if answer.status == 206 else 0
            length = answer.headers.get("Content-Length") or ""
            total = start + int(length) if length.isdigit() else None
            check_room(part.parent, (total or 0) - start, f"for {part.stem}")
            bar.total, bar.n = total, start
            bar.refresh()
            with writing(part):
                file = part.open("r+b" if start else "wb")
                file.seek(start)
                file.truncate()
            with file:
                while chunk := answer.read(CHUNK):
                    with writing(part):
                        file.write(chunk)
                        file.flush()
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        return _refused(url, part, error)
    except (OSError, http.client.HTTPException) as error:  # of the connection: those of the disk are told by `writing`
        return f"no connection{_by_proxy(url)} ({getattr(error, 'reason', error)})"
    if total is not None and _size(part) < total:
        return f"the connection broke off at {_size(part)} of {total} bytes"
    return None


def _by_proxy(url: str) -> str:
    """Which proxy stands between here and the server, so that nobody looks for the fault at the wrong one."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.netloc):
        return ""
    place = proxy.rpartition("@")[2].rpartition("//")[2].rstrip("/")  # without a password
    return f" through the proxy {place} that {parts.scheme}_proxy names"


def _refused(url: str, part: Path, error: urllib.error.HTTPError) -> str | None:
    """What an answer that is none means; None where nothing was missing.  ``Content-Range: bytes */N`` tells that."""
    if error.code == 416:
        if (error.headers.get("Content-Range") or "").endswith(f"/{_size(part)}"):
            return None
        part.unlink()
        return "the server's file has changed"
    if error.code in (408, 429) or error.code >= 500:
        return f"the server answers {error.code}{_by_proxy(url)}"
    text = f"{url}: the server answers {error.code} {error.reason}{_by_proxy(url)}"
    raise InputError(f"{text}; get the file by hand") from None


def _check(part: Path, url: str, md5: str | None) -> None:
    """Compare the checksum, or read a .gz through; a wrong file is taken away."""
    wrong = ""
    if md5 is not None:
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
        wrong = f"its MD5 is {digest}, not {md5}" if digest != md5 else ""
    elif part.stem.endswith(".gz"):
        try:
            with gzip.open(part) as file:
                while file.read(CHUNK):
                    if file.tell() > LARGEST:
                        raise EOFError(f"it unpacks to more than {human(LARGEST)}")
        except (OSError, EOFError, zlib.error) as error:
            wrong = f"it is not a whole .gz file ({error})"
    if wrong:
        part.unlink()
        raise InputError(f"{url}: what came is not the file: {wrong}; it was taken away, get it again")
