"""The store of prepared scans.

A store is a folder a collection, with a folder a case in it::

    STORE/<collection>/index.json             cases in order, label names, settings, folder of the scans; written last
    STORE/<collection>/<case>/image.npy       int16 [X, Y, Z], RAS+, HU clipped to the window
    STORE/<collection>/<case>/label.npy       uint8 [X, Y, Z], 0 is background, 255 unknown (`mixcl.labels`)
    STORE/<collection>/<case>/foreground.npz  int32 [k, 3] for each label present: up to 4096 of its voxels
    STORE/<collection>/<case>/case.json       geometry, source files, hashes, settings

A case's folder is named by `mixcl.files.file_name`; the JSON carries its own checksum.  Arrays are mapped into memory,
so a patch costs only the reading of its box.  Chosen by measurement (``reproduce/bench/patches.py``): chunks of zarr or
blosc2 take a fifth of the disk, but 5 to 20 times as long for a patch from files in memory, else no less.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixcl.config.settings import DataConfig, LabelGrid, cores
from mixcl.data import arrays
from mixcl.data.arrays import MEND, POINTS
from mixcl.errors import InputError
from mixcl.files import checked_name, file_name, read_sealed

SCHEMA = 1
"""Version of the layout above; a store of another version is made anew."""


def settings_hash(data: DataConfig, stored: Mapping[int, int]) -> str:
    """Hash of all that decides how a scan is prepared: spacing, window, the value in the store for each of a file."""
    settings = {"schema": SCHEMA, "spacing": data.spacing, "hu": data.hu, "values": sorted(stored)}
    if changed := renumbered(stored):
        settings["stored"] = sorted(changed.items())
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def renumbered(stored: Mapping[int, int]) -> dict[int, int]:
    """The label values of files that have another one in the store: merged and unknown ones."""
    return {value: to for value, to in stored.items() if value != to}


def expected_bytes(shape: Sequence[int], labels: int) -> int:
    """What a prepared scan of ``shape`` voxels and so many labels will take on disk, to a few per cent.

    >>> expected_bytes((256, 256, 200), 1)
    39374752
    """
    voxels = math.prod(shape)
    return 3 * voxels + 12 * min(POINTS * labels, voxels // 20) + 4000


@dataclass(frozen=True)
class Source:
    """The scan that a case was made from."""

    image: Path
    label: Path
    label_sha256: str
    label_grid: LabelGrid  # how its label map came to lie on its image
    lost: dict[int, int]  # voxels of the labels that have none on the prepared grid
    stored: dict[int, int] = field(repr=False)  # label value in the file -> value in the store


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
    names: dict[int, str] = field(repr=False)  # label value -> name, for all organs of the collection
    content: tuple[str, str] = field(repr=False)  # SHA-256 of the prepared image and of the label map
    source: Source = field(repr=False)

    def image(self) -> NDArray[np.int16]:
        """The scan, int16 [X, Y, Z] in HU clipped to the window; a read-only memory map, see `arrays.array`."""
        return arrays.array(self.path / "image.npy", self.content[0])

    def label(self) -> NDArray[np.uint8]:
        """The label map, uint8 [X, Y, Z]; a read-only memory map as well."""
        return arrays.array(self.path / "label.npy", self.content[1])

    def foreground(self) -> dict[int, NDArray[np.int32]]:
        """Up to 4096 voxels, int32 [k, 3], of each organ present, in the order of the array (R14)."""
        return dict(arrays.points(self.path / "foreground.npz", self.content[1]))


def verify(cases: Iterable[Case]) -> None:
    """Compare the arrays of cases with their checksums, unless this process, or the one it was forked from, has.

    An `InputError`, see `arrays.array`, tells the first case at fault.
    """
    with ThreadPoolExecutor(min(cores(), 8)) as pool:
        for _ in pool.map(lambda case: (case.image(), case.label()), cases):
            pass


class Store:
    """The prepared collections of the folder ``root`` (``config.data.store_dir(out)``).

    Of ``collections``, when given, all must be there; else it is what the folder holds.  By ``settings``, when given,
    the store must have been made, with their spacing and window.

    Raises InputError, here or at the first use of a collection: not prepared, made with other settings, or damaged.
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
        """The cases of a collection in natural order; what else lies in its folder is not looked at.

        Raises `InputError` where it is not prepared, or not by these settings, or a record of it is damaged.
        """
        if collection not in self._cases:
            try:
                self._cases[collection] = self._read(collection)
            except (KeyError, TypeError, ValueError, AttributeError):
                text = "index.json or a case.json in it is not what mixcl prepare writes"
                folder = self.root / collection
                raise InputError(f"{folder}: {text}; delete {folder} and {MEND}") from None
        return self._cases[collection]

    def _read(self, collection: str) -> tuple[Case, ...]:
        folder, index = self.root / collection, self._index(collection)
        if index.get("schema") != SCHEMA:
            raise InputError(f"{folder}: was prepared by another version of mixcl; {MEND}")
        made = (tuple(index["spacing"]), tuple(index["hu"]))
        if self.settings is not None and made != (self.settings.spacing, self.settings.hu):
            text = f"spacing {made[0]} mm and window {made[1]} HU, not {self.settings.spacing} and {self.settings.hu}"
            raise InputError(f"{folder}: was prepared with {text}; {MEND}")
        names = {int(value): name for value, name in index["names"].items()}
        raw = Path(os.path.normpath(self.root / index.get("folder", "")))
        stored = {value: value for value in names} | {int(v): to for v, to in index.get("stored", {}).items()}
        cases = []
        for case in index["cases"]:
            path = folder / file_name(case)
            record = read_json(path / "case.json")
            if record.get("settings") != index["settings"]:
                raise InputError(f"{path}: was prepared with other settings than the rest of its collection; {MEND}")
            if fault := damage(path, record):
                raise InputError(f"{fault}; delete {path} and {MEND}")
            cases.append(_case(path, record, raw, stored, collection=collection, id=case, names=names))
        return tuple(cases)

    def fingerprint(self, collections: Iterable[str] | None = None) -> str:
        """SHA-256 over settings, case names and contents of some or all collections, not paths or dates."""
        parts = [
            (name, self._index(name).get("settings"), [(case.id, *case.content) for case in self.cases(name)])
            for name in sorted(self.collections if collections is None else collections)
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def contents(self, collections: Iterable[str]) -> set[str]:
        """SHA-256 of the prepared images of those of some collections that are here."""
        return {case.content[0] for name in collections if name in self.collections for case in self.cases(name)}

    def _index(self, collection: str) -> dict[str, Any]:
        folder = self.root / checked_name("collection", collection)
        if not (folder / "index.json").is_file():
            raise InputError(f"{folder}: the collection {collection!r} is not prepared, or not to its end; {MEND}")
        return read_json(folder / "index.json")


def _case(path: Path, record: dict[str, Any], raw: Path, stored: dict[int, int], **identity: Any) -> Case:
    """A case by its record and its ``identity``; ``raw`` is the folder of its collection's scans."""
    files, before = record["source"], {int(value): number for value, number in record["source_voxels"].items()}
    return Case(
        path=path,
        shape=tuple(record["shape"]),
        spacing=tuple(record["spacing"]),
        affine=np.array(record["affine"]),
        source_affine=np.array(record["source_affine"]),
        source_shape=tuple(record["source_shape"]),
        content=(record["content"]["image"], record["content"]["label"]),
        source=Source(
            image=raw / files["image"]["name"],
            label=raw / files["label"]["name"],
            label_sha256=files["label"]["sha256"],
            label_grid=record.get("label_grid", "same"),
            lost={value: number for value, number in before.items() if str(value) not in record["voxels"]},
            stored=stored,
        ),
        **identity,
    )


def damage(path: Path, record: dict[str, Any], content: bool = False) -> str | None:
    """What is wrong with the files of a case, by their sizes and with ``content`` by every voxel; None for nothing."""
    for name, size in record["files"].items():
        file = path / name
        if not file.is_file():
            return f"{file}: is missing"
        if file.stat().st_size != size:
            return f"{file}: has {file.stat().st_size} bytes instead of {size}"
    return arrays.content_fault(path, record["content"]) if content else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of the store, or an `InputError` where it is missing or damaged."""
    try:
        return read_sealed(path)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; {MEND}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete {path.parent} and {MEND}") from None
