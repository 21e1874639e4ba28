"""Files as they lie on the disk: opened, unpacked, hashed, and no more read of them than their headers promise."""

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from mixcl.data.files import Doubt
from mixcl.errors import InputError
from mixcl.files import sha256

GZIP = b"\x1f\x8b"
LARGEST = 10**9  # bytes of a file that is read as a whole: no slice and no frames of a CT take as many
TRAILING = 2**20  # bytes that may follow the voxels of a file
PACKED = 1100
"""No packer of images makes less than a byte of this many: what promises more is cut off, or a trap for the memory."""


def first_bytes(path: Path, size: int = 4096) -> bytes:
    """The first bytes of a file as it lies there.

    Raises InputError: missing, unreadable, no regular file, empty, or what downloads leave in the place of a scan.
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
        raise InputError(f"{path}: not a gzip file although it ends in .gz; compress it, or name it .nii", "format")
    with reading(path), gzip.open(path) if packed else path.open("rb") as file:
        yield cast(BinaryIO, file), path.stat().st_size * (PACKED if packed else 1)


def check_trailing(path: Path, surplus: int) -> tuple[Doubt, ...]:
    """What to think of bytes behind the voxels that a header announces; more than `TRAILING` are refused."""
    if surplus > TRAILING:
        raise InputError(f"{path}: holds far more bytes than its header announces; convert the scan anew", "header")
    text = "holds more bytes than its header announces; is all of the scan read?"
    return (Doubt("header", text),) if surplus > 0 else ()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a disk or a packed file refuses into one sentence, on ``path`` or the very file that it names."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; add it, or take its partner away", "missing") from None
    except (IsADirectoryError, PermissionError) as error:
        text = f"{error.filename or path}: cannot be read ({error.strerror}); mend the file or its permissions"
        raise InputError(text, "unreadable") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        if "Not a gzipped file" in str(error):
            text = f"{path}: something that is not gzip follows what is; get it again, or pack it again"
            raise InputError(text, "format") from None
        raise InputError(f"{path}: cut off or damaged ({error}); download or copy it again", "damaged") from None
    except OSError as error:
        text = f"{path}: cannot be read ({error}); check the disk, then download or copy it again"
        raise InputError(text, "unreadable") from None


def files_of(path: Path) -> list[Path]:
    """The files that a scan is made of: itself, those below its folder by name, or a header and its voxels.

    Raises as `reading` where a folder below cannot be read: a series without some of its slices is another scan.
    """
    if path.is_dir():
        below = (Path(at, name) for at, _, names in os.walk(path, onerror=_out_of_reach) for name in names)
        with reading(path):
            return sorted(part for part in below if part.is_file() and not part.name.startswith("."))
    return [part for part in pair(path) if part.exists()] or [path]


def _out_of_reach(error: OSError) -> None:
    raise error


def pair(path: Path) -> list[Path]:
    """Header and voxels of a volume in two files, by the name of either; else the file itself."""
    if path.suffix.lower() not in (".img", ".hdr"):
        return [path]
    return [path.with_suffix(end.upper() if path.suffix.isupper() else end) for end in (".hdr", ".img")]


def digest(path: Path) -> str:
    """SHA-256 of a file, or over the names and bytes of all files of a scan that has several.

    Of a file in a folder that passes `LARGEST`, which is no slice, the size stands for the bytes.  Raises as `reading`.
    """
    files = files_of(path)
    with reading(path):
        if files == [path]:
            return sha256(path)
        total = hashlib.sha256()
        for part in files:
            total.update(part.relative_to(path if path.is_dir() else path.parent).as_posix().encode())
            if path.is_dir() and (size := part.stat().st_size) > LARGEST:
                total.update(f"{size} bytes".encode())
                continue
            with part.open("rb") as file:
                hashlib.file_digest(file, lambda: total)
        return total.hexdigest()
