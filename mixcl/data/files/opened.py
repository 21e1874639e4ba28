"""Open what was given as a file, packed or not, and read no more of it than its header promises."""

import gzip
import hashlib
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from mixcl.data.files import Doubt
from mixcl.errors import InputError

GZIP = b"\x1f\x8b"
LARGEST = 10**9
"""Bytes of a file that is read as a whole: no slice and no frames of a CT take as many."""
BEHIND = 2**20
"""Bytes that may follow the voxels of a file."""
PACKED = 1100
"""No packer of images makes less than a byte of this many: what promises more is cut off, or a trap for the memory."""


def first_bytes(path: Path, size: int = 4096) -> bytes:
    """The first bytes of a file as it lies there.

    Raises
    ------
    InputError
        Missing, unreadable, no regular file, empty, or what downloads leave in the place of a scan.
    """
    with reading(path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: is a folder, a pipe or a device, no file; give the scan's file", "unreadable")
        with path.open("rb") as file:
            head = file.read(size)
    if not head:
        raise InputError(f"{path}: is empty; download or copy it again", "damaged")
    if head.startswith(b"version https://git-lfs") or b"/annex/objects" in head[:200]:
        raise InputError(f"{path}: a pointer of Git LFS or git-annex, not the scan; fetch its content", "pointer")
    if head[:200].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(f"{path}: a web page, not the scan; sign in where it comes from and get it again", "web page")
    return head


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A file to read from its beginning, unpacked on the way, and the most bytes that it can hold.

    Packed is what begins as gzip does, whatever its name; reading to the end verifies the checksum.
    """
    packed = first_bytes(path).startswith(GZIP)
    if path.name.lower().endswith(".gz") and not packed:
        text = f"{path}: not a gzip file although it ends in .gz; compress it, or name it .nii"
        raise InputError(text, "format")
    size = path.stat().st_size
    with reading(path):
        if packed:
            with gzip.open(path) as file:
                yield cast(BinaryIO, file), PACKED * size
        else:
            with path.open("rb") as plain:
                yield plain, size


def fill(file: BinaryIO, array: NDArray[np.uint8]) -> int:
    """Read until a flat array of bytes is full or the file is at its end; the bytes read."""
    view, done = memoryview(array), 0  # type: ignore[arg-type]
    while done < len(view) and (more := file.readinto(view[done : done + 2**24])):  # type: ignore[attr-defined]
        done += more
    return done


def behind(path: Path, more: int) -> tuple[Doubt, ...]:
    """What to think of bytes that follow the voxels that a header announces; up to `BEHIND` may be a program's notes.

    Raises
    ------
    InputError
        There are more.
    """
    if more > BEHIND:
        raise InputError(f"{path}: holds far more bytes than its header announces; convert the scan anew", "header")
    text = f"{path}: holds more bytes than its header announces; is all of the scan read?"
    return (Doubt("header", text),) if more > 0 else ()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a disk or a packed file refuses into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; add it, or take its partner away", "missing") from None
    except (IsADirectoryError, PermissionError) as error:
        text = f"{path}: cannot be read ({error.strerror}); mend the file or its permissions"
        raise InputError(text, "unreadable") from None
    except gzip.BadGzipFile as error:
        if "Not a gzipped file" in str(error):
            text = f"{path}: something that is not gzip follows what is; get it again, or pack it again"
            raise InputError(text, "format") from None
        raise _damaged(path, error) from None
    except (EOFError, zlib.error) as error:
        raise _damaged(path, error) from None
    except OSError as error:
        text = f"{path}: cannot be read ({error}); check the disk, then download or copy it again"
        raise InputError(text, "unreadable") from None


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cut off or damaged ({error}); download or copy it again", "damaged")


def files_of(path: Path) -> list[Path]:
    """The files that a scan is made of: itself, those below its folder by name, or a header and its voxels."""
    if path.is_dir():
        return sorted(part for part in path.rglob("*") if part.is_file() and not part.name.startswith("."))
    return list(pair(path)) if path.suffix.lower() in (".img", ".hdr") else [path]


def pair(path: Path) -> tuple[Path, Path]:
    """Header and voxels of a volume in two files, by the name of either."""
    upper = path.suffix.isupper()
    header, voxels = (path.with_suffix(end.upper() if upper else end) for end in (".hdr", ".img"))
    return header, voxels


def digest(path: Path) -> str:
    """SHA-256 of a file, or over the names and bytes of all files of a scan that has several.

    Raises
    ------
    InputError
        As `reading`.
    """
    files: Sequence[Path] = files_of(path)
    with reading(path):
        if list(files) == [path]:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha256()
        for part in files:
            total.update(part.relative_to(path if path.is_dir() else path.parent).as_posix().encode())
            for piece in pieces(part):
                total.update(piece)
        return total.hexdigest()


def pieces(path: Path) -> Iterator[bytes]:
    """The bytes of a file in a scan's folder, a megabyte at a time; its size alone where that passes `LARGEST`."""
    if (size := path.stat().st_size) > LARGEST:
        yield f"{size} bytes".encode()
        return
    with path.open("rb") as file:
        while piece := file.read(2**20):
            yield piece
