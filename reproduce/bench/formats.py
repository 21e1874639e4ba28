"""Ways to keep a prepared scan on disk: size, time to write, and random cubes from it, warm and cold.

Cold means that the system was asked to forget the files (``posix_fadvise``) and that they are opened anew for every
cube; what lies below the system, such as the cache of a virtual disk, cannot be emptied without its owner.
A format whose package is not installed is left out.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixcl.data.patches import prefetch


class Format(NamedTuple):
    """``save(path, array)`` and ``load(path)``, which gives something to cut boxes from."""

    package: str
    save: Callable[[Path, NDArray[Any]], None]
    load: Callable[[Path], Any]


class Fetched:
    """A mapped array of which a box is asked for as a whole before it is read, as the store does."""

    def __init__(self, path: Path) -> None:
        self.array = np.load(path, mmap_mode="r")

    def __getitem__(self, box: tuple[slice, slice, slice]) -> NDArray[Any]:
        prefetch(self.array, box)
        return self.array[box]


def _save_zarr(path: Path, array: NDArray[Any]) -> None:
    import zarr

    codec = zarr.codecs.BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle")
    zarr.create_array(path, data=array, chunks=(64, 64, 64), compressors=codec)


def _load_zarr(path: Path) -> Any:
    import zarr

    return zarr.open_array(path, mode="r")


def _save_blosc2(path: Path, array: NDArray[Any], codec: str, level: int) -> None:
    import blosc2

    cparams = {"codec": blosc2.Codec[codec], "clevel": level, "filters": [blosc2.Filter.BITSHUFFLE], "nthreads": 1}
    blosc2.asarray(array, urlpath=str(path), mode="w", chunks=(96,) * 3, blocks=(32,) * 3, cparams=cparams)


def _load_blosc2(path: Path) -> Any:
    import blosc2

    return blosc2.open(str(path), mode="r", dparams={"nthreads": 1}, mmap_mode="r")


FORMATS = {
    "npy, fetched": Format("numpy", np.save, Fetched),
    "npy, mapped": Format("numpy", np.save, lambda path: np.load(path, mmap_mode="r")),
    "zarr, zstd": Format("zarr", _save_zarr, _load_zarr),
    "blosc2, zstd": Format("blosc2", lambda path, array: _save_blosc2(path, array, "ZSTD", 5), _load_blosc2),
    "blosc2, lz4": Format("blosc2", lambda path, array: _save_blosc2(path, array, "LZ4", 5), _load_blosc2),
}


def compare(
    pairs: Sequence[Sequence[NDArray[Any]]], place: Path, patch: int, cubes: int
) -> dict[str, dict[str, float]]:
    """Of each format: bytes a voxel, seconds to write a scan, milliseconds of a cube from warm and from cold files.

    Parameters
    ----------
    pairs
        Image and label map of each scan, [X, Y, Z].
    place
        Folder to write to; what is there is written again.
    patch
        Edge of a cube.
    cubes
        How many are cut, the same ones from every format.
    """
    rng = np.random.default_rng(0)
    which = rng.integers(len(pairs), size=cubes)
    places = [[int(rng.integers(n - patch + 1)) for n in pairs[k][0].shape] for k in which]
    voxels = sum(image.size for image, _ in pairs)
    found = {}
    for name, way in FORMATS.items():
        if importlib.util.find_spec(way.package) is None:
            print(f"{name}: the package {way.package} is not installed, left out")
            continue
        home = place / name.replace(", ", "-")
        home.mkdir(parents=True, exist_ok=True)
        files = [(home / f"{k}-image.npy", home / f"{k}-label.npy") for k in range(len(pairs))]
        spent = _write(way, files, pairs)
        opened = [[way.load(path) for path in pair] for pair in files]
        _check(opened, pairs, which, places, patch)
        warm = _cut(lambda k, opened=opened: opened[k], which, places, patch)
        del opened
        cold = _cut(lambda k, way=way, files=files: _cold(way, files[k]), which, places, patch)
        size = sum(_bytes(path) for pair in files for path in pair)
        found[name] = {
            "bytes a voxel": size / voxels, "seconds to write": spent, "ms warm": 1e3 * warm, "ms cold": 1e3 * cold,
        }  # fmt: skip
        print(f"{name}: " + ", ".join(f"{what} {value:.3g}" for what, value in found[name].items()))
    return found


def _write(way: Format, files: Sequence[Sequence[Path]], pairs: Sequence[Sequence[NDArray[Any]]]) -> float:
    """Seconds a scan, down to the disk."""
    start = time.perf_counter()
    for paths, arrays in zip(files, pairs, strict=True):
        for path, array in zip(paths, arrays, strict=True):
            _remove(path)
            way.save(path, array)
            _each(path, os.fsync)
    return (time.perf_counter() - start) / len(pairs)


def _cut(
    scan: Callable[[int], Sequence[Any]], which: Sequence[int], places: Sequence[Sequence[int]], patch: int
) -> float:
    """Median seconds of a cube of image and label map."""
    times = []
    for k, origin in zip(which, places, strict=True):
        image, label = scan(k)
        box = tuple(slice(o, o + patch) for o in origin)
        start = time.perf_counter()
        np.array(image[box])
        np.array(label[box])
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _cold(way: Format, paths: Sequence[Path]) -> list[Any]:
    """A scan opened anew after the system was asked to forget it."""
    for path in paths:
        _each(path, lambda descriptor: os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED))
    return [way.load(path) for path in paths]


def _check(
    opened: Sequence[Sequence[Any]], pairs: Sequence[Sequence[NDArray[Any]]], which: Sequence[int],
    places: Sequence[Sequence[int]], patch: int,
) -> None:  # fmt: skip
    """Every format gives the same voxels; reads all that is timed, so that it is warm."""
    for k, origin in zip(which, places, strict=True):
        box = tuple(slice(o, o + patch) for o in origin)
        for stored, array in zip(opened[k], pairs[k], strict=True):
            if not np.array_equal(np.array(stored[box]), array[box]):
                raise SystemExit("a format gives other voxels than it was given")


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]


def _bytes(path: Path) -> int:
    """What a file or folder takes on the disk."""
    return sum(part.stat().st_blocks * 512 for part in _files(path))


def _remove(path: Path) -> None:
    for part in _files(path):
        part.unlink()


def _each(path: Path, act: Callable[[int], object]) -> None:
    for part in _files(path):
        descriptor = os.open(part, os.O_RDONLY)
        try:
            act(descriptor)
        finally:
            os.close(descriptor)
