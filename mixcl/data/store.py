"""The store of prepared scans.

A store is a folder a collection, with a folder a case in it::

    STORE/<collection>/index.json             the cases in order, label names, settings; written last
    STORE/<collection>/<case>/image.npy       int16 [X, Y, Z], RAS+, HU clipped to the window
    STORE/<collection>/<case>/label.npy       uint8 [X, Y, Z], 0 is background
    STORE/<collection>/<case>/foreground.npz  int32 [k, 3] for each label present: up to 4096 of its voxels
    STORE/<collection>/<case>/case.json       geometry, source files, hashes, settings

Arrays are plain ``.npy`` files and are mapped into memory, so a patch costs only the reading of its box
(`mixcl.data.patches`).  Chosen by measurement (``reproduce/bench/patches.py``): chunks of zarr or blosc2 take a fifth
of the disk, but 5 to 20 times as long for a patch from files in memory, and no less from files that are not.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixcl import files
from mixcl.config.settings import DataConfig
from mixcl.errors import InputError

SCHEMA = 1
"""Version of the layout above; a store of another version is made anew."""
POINTS = 4096
"""Voxels a label in foreground.npz."""
MEND = "run mixcl prepare with the same --profile, --set and --out"


def settings_hash(data: DataConfig, values: Iterable[int]) -> str:
    """Hash of all that decides how a scan is prepared: spacing, window, label values of its collection."""
    settings = {"schema": SCHEMA, "spacing": data.spacing, "hu": data.hu, "values": sorted(values)}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def expected_bytes(shape: Sequence[int], labels: int) -> int:
    """What a prepared scan of ``shape`` voxels and so many labels will take on disk, to a few per cent.

    >>> expected_bytes((256, 256, 200), 1)
    39374752
    """
    voxels = math.prod(shape)
    return 3 * voxels + 12 * min(POINTS * labels, voxels // 20) + 4000


@dataclass(frozen=True, eq=False)
class Case:
    """A prepared scan."""

    collection: str
    id: str
    path: Path  # its folder
    shape: tuple[int, int, int]  # of the prepared grid, voxels
    spacing: tuple[float, float, float]  # mm
    affine: NDArray[np.float64] = field(repr=False)  # [4, 4], from voxel indices to RAS+ mm
    source_affine: NDArray[np.float64] = field(repr=False)  # of the file it was made from
    source_shape: tuple[int, int, int]
    names: dict[int, str] = field(repr=False)  # label value -> name, for all labels of the collection
    content: tuple[str, str] = field(repr=False)  # SHA-256 of the prepared image and of the label map

    def image(self) -> NDArray[np.int16]:
        """The scan, int16 [X, Y, Z] in HU clipped to the window; a read-only memory map."""
        return _map(self.path / "image.npy", self.content[0])

    def label(self) -> NDArray[np.uint8]:
        """The label map, uint8 [X, Y, Z]; a read-only memory map."""
        return _map(self.path / "label.npy", self.content[1])

    def foreground(self) -> dict[int, NDArray[np.int32]]:
        """Up to 4096 voxels, int32 [k, 3], of each label present, in the order of the array (R14)."""
        return dict(_points(self.path / "foreground.npz", self.content[1]))


@lru_cache(maxsize=128)
def _map(path: Path, content: str) -> NDArray[Any]:
    """A memory map, kept open; the hash is part of the key so that a case made anew is opened anew."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete {path.parent} and {MEND}") from None


@lru_cache(maxsize=1024)
def _points(path: Path, content: str) -> dict[int, NDArray[np.int32]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {int(key): arrays[key] for key in sorted(arrays, key=int)}
    except Exception as error:  # zipfile and numpy raise many kinds
        raise InputError(f"{path}: cannot be read ({error}); delete {path.parent} and {MEND}") from None


def draw_foreground(labels: NDArray[np.uint8], content: str) -> dict[int, NDArray[np.int32]]:
    """Up to `POINTS` voxels of each label present, without replacement, in array order.

    The generator is seeded by ``content``, the hash of the label map: the same map gives the same voxels.
    """
    inside = np.flatnonzero(labels)
    values, points = labels.ravel()[inside], {}
    for value in np.unique(values).tolist():
        candidates = inside[values == value]
        if candidates.size > POINTS:
            rng = np.random.Generator(np.random.PCG64([int(content[:16], 16), value]))
            chosen = np.argpartition(rng.random(candidates.size), POINTS)[:POINTS]
            candidates = np.sort(candidates[chosen])
        points[value] = np.stack(np.unravel_index(candidates, labels.shape), axis=1).astype(np.int32)
    return points


class Store:
    """The prepared collections of a folder.

    Parameters
    ----------
    root
        The folder (``config.data.store_dir(out)``).
    collections
        Names of those wanted, all of which must be there; None is whatever the folder holds.
    settings
        When given, the store must have been made with this spacing and window.

    Raises
    ------
    InputError
        Here or at the first use of a collection: not prepared, made with other settings, or damaged.
    """

    def __init__(
        self, root: Path | str, collections: Iterable[str] | None = None, settings: DataConfig | None = None
    ) -> None:
        self.root, self.settings = Path(root), settings
        present = sorted(path.parent.name for path in self.root.glob("*/index.json"))
        self.collections: tuple[str, ...] = tuple(present if collections is None else collections)
        self._cases: dict[str, tuple[Case, ...]] = {}
        if not self.collections:
            raise InputError(f"{self.root}: nothing is prepared here; {MEND}")
        for name in self.collections if collections is not None else ():
            self.cases(name)

    def cases(self, collection: str) -> tuple[Case, ...]:
        """The cases of a collection in natural order; what else lies in its folder is not looked at."""
        try:
            return self._read(collection)
        except (KeyError, TypeError, ValueError, AttributeError):
            text = "index.json or a case.json in it is not what mixcl prepare writes"
            raise InputError(f"{self.root / collection}: {text}; delete {self.root / collection} and {MEND}") from None

    def _read(self, collection: str) -> tuple[Case, ...]:
        if collection in self._cases:
            return self._cases[collection]
        index, folder = self._index(collection), self.root / collection
        if index.get("schema") != SCHEMA:
            raise InputError(f"{folder}: was prepared by another version of mixcl; {MEND}")
        made = (tuple(index["spacing"]), tuple(index["hu"]))
        if self.settings is not None and made != (self.settings.spacing, self.settings.hu):
            text = f"spacing {made[0]} mm and window {made[1]} HU, not {self.settings.spacing} and {self.settings.hu}"
            raise InputError(f"{folder}: was prepared with {text}; {MEND}")
        names = {int(value): name for value, name in index["names"].items()}
        cases = tuple(_case(collection, folder / case, names, index["settings"]) for case in index["cases"])
        self._cases[collection] = cases
        return cases

    def fingerprint(self, collections: Iterable[str] | None = None) -> str:
        """SHA-256 over settings, case names and contents of some or all collections, not paths or dates."""
        parts = [
            (name, self._index(name).get("settings"), [(case.id, *case.content) for case in self.cases(name)])
            for name in sorted(self.collections if collections is None else collections)
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _index(self, collection: str) -> dict[str, Any]:
        folder = self.root / collection
        if not (folder / "index.json").is_file():
            raise InputError(f"{folder}: the collection {collection!r} is not prepared, or not to its end; {MEND}")
        return read_json(folder / "index.json")


def _case(collection: str, path: Path, names: dict[int, str], settings: str) -> Case:
    record = read_json(path / "case.json")
    if record.get("settings") != settings:
        raise InputError(f"{path}: was prepared with other settings than the rest of its collection; {MEND}")
    if fault := damage(path, record):
        raise InputError(f"{fault}; delete {path} and {MEND}")
    return Case(
        collection=collection,
        id=path.name,
        path=path,
        shape=tuple(record["shape"]),
        spacing=tuple(record["spacing"]),
        affine=np.array(record["affine"]),
        source_affine=np.array(record["source_affine"]),
        source_shape=tuple(record["source_shape"]),
        names=names,
        content=(record["content"]["image"], record["content"]["label"]),
    )


def damage(path: Path, record: dict[str, Any]) -> str | None:
    """What is wrong with the files of a case, by their sizes; None when nothing is."""
    for name, size in record["files"].items():
        file = path / name
        if not file.is_file():
            return f"{file}: is missing"
        if file.stat().st_size != size:
            return f"{file}: has {file.stat().st_size} bytes instead of {size}"
    return None


def content_id(array: NDArray[Any]) -> str:
    """SHA-256 of an array: its type, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of the store.

    Raises
    ------
    InputError
        Missing or damaged.
    """
    try:
        return files.read_json(path)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; {MEND}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete {path.parent} and {MEND}") from None
