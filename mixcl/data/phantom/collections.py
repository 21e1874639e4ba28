"""Phantom collections, written as the files people have."""

from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from mixcl.config.settings import Collection, DataConfig, PhantomConfig
from mixcl.data.files.grid import to_axes
from mixcl.data.phantom.scan import LABELS, labelled, make_case
from mixcl.data.registry import COLLECTIONS, collections, folder
from mixcl.errors import InputError
from mixcl.files import read_json, tidy, whole, write_json, writing

VERSION = 3  # of what is drawn; files of another version are made again
AXES = {"msd_lung": "LPS", "nih_pancreas": "LPS", "kits19": "IPL", "btcv": "LAS"}  # the others are stored RAS
NAMES = {  # of cases, as the real collections have them
    "msd_liver": "liver_{}", "msd_lung": "lung_{:03}", "msd_pancreas": "pancreas_{:03}", "msd_spleen": "spleen_{}",
    "nih_pancreas": "{:04}", "kits19": "case_{:05}", "btcv": "{:04}",
}  # fmt: skip
FIRST = {"msd_liver": 0, "kits19": 0}  # number of the first case; 1 in the others


def write_collections(data: DataConfig, root: Path, progress: bool = True) -> None:
    """Write the profile's collections below ``root``, in the folders and the axis order of the real ones.

    Files made with the same settings (``phantom.json`` in each folder) are kept, those made with others are made again,
    and no other file is touched.  A run that was killed leaves no half file, and the next one goes on where it stopped.

    Raises InputError: a collection that has no phantom or no number of cases, or a folder that holds something else.
    """
    wanted = collections(data)
    for name, collection in wanted.items():
        if name not in LABELS or collection != COLLECTIONS[name]:
            names = ", ".join(LABELS)
            raise InputError(f"collection {name!r} has no phantom; use data.source=files, or one of {names}")
        if name not in data.phantom.counts:
            raise InputError(f"data.phantom.counts has no number for {name!r}; add it")
    todo: list[tuple[str, int, Path, Path]] = []
    for name, collection in wanted.items():
        place, first = folder(collection, root), FIRST.get(name, 1)
        cases = [NAMES[name].format(first + index) for index in range(data.phantom.counts[name])]
        pairs = [_files(collection, place, case) for case in cases]
        with writing(place):
            _begin(place, collection, data.phantom, {path for pair in pairs for path in pair})
        todo += [(name, index, *pair) for index, pair in enumerate(pairs)]
    for name, index, image, label in tqdm(todo, desc="phantoms", unit="case", disable=not progress):
        if not (image.is_file() and label.is_file()):
            made = make_case(data.phantom, name, index)
            _write(label, labelled(made.truth, name), made.affine, AXES.get(name, "RAS"))
            _write(image, made.image, made.affine, AXES.get(name, "RAS"))


def _files(collection: Collection, place: Path, case: str) -> tuple[Path, Path]:
    """Image and label file of a case; ``*`` as the case gives patterns."""
    return place / collection.image.replace("{case}", case), place / collection.label.replace("{case}", case)


def _write(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64], axes: str) -> None:
    """Write a RAS array in another axis order, whole or not at all."""
    turned, moved = to_axes(array, affine, axes)
    image = nib.Nifti1Image(np.ascontiguousarray(turned), moved)
    image.header.set_xyzt_units("mm")
    with whole(path) as draft:
        nib.save(image, draft)


def _begin(place: Path, collection: Collection, config: PhantomConfig, wanted: set[Path]) -> None:
    """Take away phantoms of other settings and those beyond the number asked for; refuse a folder of other files."""
    settings = {"version": VERSION, **config.model_dump(mode="json", exclude={"counts"})}
    mark = place / "phantom.json"
    if place.exists() and not place.is_dir():
        raise InputError(f"{place}: is a file where a folder of phantoms would be; choose another data.root")
    place.mkdir(parents=True, exist_ok=True)
    if not mark.is_file() and any(not path.name.startswith(".") for path in place.iterdir()):
        raise InputError(f"{place}: holds files that are no phantoms; choose another data.root or data.source=files")
    made_with = None
    with suppress(FileNotFoundError, ValueError):  # a damaged note counts as one of other settings
        made_with = read_json(mark)
    patterns = [str(pattern.relative_to(place)) for pattern in _files(collection, place, "*")]
    for path in wanted:
        tidy(path)  # a file that is there is not written again, so nobody else would
    there = {path for pattern in patterns for path in place.glob(pattern) if not path.name.startswith(".")}
    for path in there - wanted if made_with == settings else there:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # the folder of a case, when it has become empty
            path.parent.rmdir()
    if made_with != settings:
        write_json(mark, settings)  # last, so that a run killed above is noticed
