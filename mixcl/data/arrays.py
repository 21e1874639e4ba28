"""The arrays of a prepared case, believed by their content: mapped files are compared with their checksums once."""

import ctypes
import hashlib
import mmap
import os
import signal
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixcl.errors import InputError
from mixcl.labels import UNKNOWN

POINTS = 4096
"""Voxels a label in foreground.npz."""
MEND = "run mixcl prepare with the same --profile, --set and --out"
VERIFY = "run mixcl data prepare --verify with the same --profile, --set and --out"
_VERIFIED: set[tuple[Path, str]] = set()  # what this process, or the one it was forked from, has compared


def array(path: Path, content: str) -> NDArray[Any]:
    """A mapped array of a case, read-only, or an `InputError`: its file is missing, cut, or has another content.

    The content is compared at the first opening in this process, the file's size each time.  What is cut between this
    and the reading of the voxels a moment later ends the process (SIGBUS), with the same sentence.
    """
    array = _map(path, content)
    _watch()
    if fault := _wrong_size(path, array.offset + array.nbytes):
        raise InputError(fault)
    if (path, content) not in _VERIFIED:
        if content_of(array) != content:
            raise InputError(f"{path}: its voxels are not those that were stored; {VERIFY}")
        release_pages(array.base)
        _VERIFIED.add((path, content))
    return array


def content_of(array: NDArray[Any]) -> str:
    """SHA-256 over kind, shape and values of an array."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(array.data)
    return digest.hexdigest()


def release_pages(mapped: object) -> None:
    """Count the pages of a mapped file, which the system still has at hand, no longer as this process's memory."""
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _wrong_size(path: Path, whole: int) -> str:
    """A sentence where a file has not the size that it should have."""
    try:
        size = os.stat(path).st_size  # Path.stat takes longer, and every patch asks
    except OSError:
        size = 0
    if size == whole:
        return ""
    return f"{path}: cannot be read (has {size} bytes instead of {whole}); delete {path.parent} and {MEND}"


def cut() -> str:
    """A sentence on an array that this process has mapped, the last one first, and whose file is not whole any more."""
    return next((fault for path, whole in reversed(list(_OPENED.items())) if (fault := _wrong_size(path, whole))), "")


_OPENED: dict[Path, int] = {}  # arrays that this process has mapped, in that order, and the bytes of their files
_BEFORE: list[int | None] = []  # what handled SIGBUS before `_end`, once that does


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _end(number: int) -> None:
    """End the process, in which a mapped voxel is not there, with exit code 2 and a sentence.

    Python's own handlers would run after the instruction that fails, hence never.  Where it is no array of a store, the
    handler before gets its turn: the instruction is tried again.
    """
    if fault := cut():
        os.write(2, f"mixcl: {fault}\n".encode())
        os._exit(2)
    ctypes.CDLL(None).signal(number, ctypes.c_void_p(_BEFORE[0]))


def _watch() -> None:
    """Let `_end` handle SIGBUS in this process; in one that is forked from it others may, so that it is said anew."""
    if not _BEFORE:
        system = ctypes.CDLL(None)
        system.signal.restype = ctypes.c_void_p
        _BEFORE.append(system.signal(int(signal.SIGBUS), _end))


os.register_at_fork(after_in_child=_BEFORE.clear)


@lru_cache(maxsize=128)
def _map(path: Path, content: str) -> np.memmap[Any, Any]:
    """A memory map, kept open; with the hash in the key, so that a case made anew is opened anew."""
    try:
        mapped: np.memmap[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete {path.parent} and {MEND}") from None
    _OPENED[path] = mapped.offset + mapped.nbytes
    return mapped


@lru_cache(maxsize=1024)
def points(path: Path, content: str) -> dict[int, NDArray[np.int32]]:
    """What foreground.npz holds, kept for the next time."""
    return read_points(path)


def read_points(path: Path) -> dict[int, NDArray[np.int32]]:
    """What foreground.npz holds, or an `InputError`: voxels [k, 3] by label.  The archive has checksums of its own."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if sum(part.file_size for part in arrays.zip.infolist()) > 300 * POINTS * 12:  # more labels than there are
                raise ValueError("it unpacks to more than was ever stored")
            return {int(key): arrays[key] for key in sorted(arrays, key=int)}
    except Exception as error:  # zipfile and numpy raise many kinds
        raise InputError(f"{path}: cannot be read ({error}); delete {path.parent} and {MEND}") from None


def draw_foreground(labels: NDArray[np.uint8], content: str) -> dict[int, NDArray[np.int32]]:
    """Up to `POINTS` voxels of each organ present, in array order; seeded by ``content``, the hash of the label map."""
    inside = np.flatnonzero((labels != 0) & (labels != UNKNOWN))
    values, points = labels.ravel()[inside], {}
    for value in np.unique(values).tolist():
        candidates = inside[values == value]
        if candidates.size > POINTS:
            rng = np.random.Generator(np.random.PCG64([int(content[:16], 16), value]))
            chosen = np.argpartition(rng.random(candidates.size), POINTS)[:POINTS]
            candidates = np.sort(candidates[chosen])
        points[value] = np.stack(np.unravel_index(candidates, labels.shape), axis=1).astype(np.int32)
    return points


def content_fault(path: Path, content: dict[str, str]) -> str | None:
    """Which file of a case, as long as it should be, does not have what was stored."""
    try:
        image, label = (np.load(path / f"{kind}.npy", allow_pickle=False) for kind in ("image", "label"))
        stored, drawn = read_points(path / "foreground.npz"), draw_foreground(label, content["label"])
    except (InputError, OSError, ValueError, EOFError) as error:
        return f"{path}: cannot be read ({error})"
    for kind, array in (("image", image), ("label", label)):
        if content_of(array) != content[kind]:
            return f"{path / kind}.npy: its voxels are not those that were stored"
    same = stored.keys() == drawn.keys() and all(np.array_equal(stored[value], drawn[value]) for value in drawn)
    return None if same else f"{path / 'foreground.npz'}: its voxels are not those that were stored"
