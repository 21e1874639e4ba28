"""Label scans that nobody has labelled, with a network that was trained here or exported."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from os.path import exists, isdir, isfile, realpath
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from mixcl.data.files.dicom import is_dicom_file
from mixcl.data.files.grid import way_back
from mixcl.data.files.layout import ENDINGS, natural_key, no_name, stem
from mixcl.data.files.raw import digest, first_bytes
from mixcl.data.files.volume import check_hounsfield, read_volume
from mixcl.data.patches import scaled
from mixcl.data.prepare.case import prepared
from mixcl.errors import InputError, enough_memory, too_little, visible
from mixcl.evaluate import write_nifti
from mixcl.export import Carried, read_carried
from mixcl.files import file_name, read_sealed, sha256, write_sealed
from mixcl.run.device import machine
from mixcl.windows import original_labels, window_scores


@enough_memory()
def predict(
    network: Path | str, scans: Iterable[Path | str] | Path | str, out: Path | str, *, progress: bool = True
) -> list[Path]:
    """Write ``out/<scan>.nii.gz`` for every scan, the label map on the scan's own grid, and ``<scan>.json`` beside it.

    A scan that was labelled before, by the same weights and settings, is not labelled again; a label map that is of
    something else, or was changed since, is left alone and told.  Values are those of the
    collection that the network was fine-tuned on; the JSON has their names, the network and the scan's checksum.

    ``network`` is the folder of a fine-tuning run, a weights file that `mixcl.export.export` wrote, or a MONAI bundle
    of it.  ``scans`` are files, DICOM series and folders of these, and .txt files with one of these a line; all formats
    of `mixcl.data.files.volume.read_volume`, in HU.  What is wrong with one is told after all others are done.  ``out``
    is the folder of the label maps.

    The paths of the label maps come back, in the order of the scans.  InputError where no network labels, there is no
    scan, two have one name, or ``out`` is where scans are.
    """
    carried, folder = read_carried(Path(network)), Path(out)
    given = [scans] if isinstance(scans, Path | str) else list(scans)
    every = [scan for place in given for scan in scans_in(Path(place), folder)]
    nameless = {scan: fault for scan in every if (fault := no_name(_name(scan), scan))}
    named, faults = _named([scan for scan in every if scan not in nameless], folder), list(nameless.values())
    here = carried.config.run.model_copy(update={"threads": torch.get_num_threads()})
    with machine(here) as accelerator, accelerator.autocast():
        carried.net.to(accelerator.device)
        for name, scan in tqdm(named.items(), desc="predict", unit="scan", disable=not progress):
            try:
                _label(carried, scan, folder / f"{name}.nii.gz")
            except (InputError, OSError, MemoryError, RuntimeError) as error:
                if fault := _fault(error, scan):
                    faults.append(fault)
                    tqdm.write(visible(fault), file=sys.stderr)
                else:
                    raise
    if faults:
        total = len(named) + len(nameless)  # a scan that is given twice is one
        raise InputError(f"{len(faults)} of {total} scans were not labelled, the others are; first {faults[0]}")
    return [folder / f"{name}.nii.gz" for name in named]


def _fault(error: Exception, scan: Path) -> str:
    """What is wrong with a scan, in a sentence; nothing where an error is of the machine, or of mixcl."""
    if isinstance(error, InputError):
        return "" if error.kind == "machine" else str(error)
    if too_little(error):
        return f"{scan}: too little memory for it; use a machine with more"
    return f"{scan}: {error}" if isinstance(error, OSError) else ""


def scans_in(place: Path, out: Path) -> list[Path]:
    """The scans that a path stands for: a file, a DICOM series, all that a folder or a list of them holds.

    What lies in ``out``, the folder of label maps, is no scan.  InputError where the path is not there, is ``out``,
    holds no scan, or is a list that names a list; what a list names and is not there is told when its turn comes.
    """
    if place.suffix.lower() == ".txt" and isfile(place):
        try:
            lines = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise InputError(f"{place}: not a text of UTF-8; write one path a line") from None
        if any("\0" in line for line in lines):
            raise InputError(f"{place}: not a text of paths; write one path a line")
        if lists := [line for line in lines if line.lower().endswith(".txt")]:
            raise InputError(f"{place}: names {lists[0]}, another list; write the paths of scans")
        scans = []
        for path in (place.parent / line for line in lines):
            try:
                scans += scans_in(path, out)
            except InputError:  # it stands for itself, to be told when its turn comes
                scans.append(path)
    elif isdir(place):
        if realpath(place) == realpath(out):
            raise InputError(f"{place}: scans and label maps in one folder; choose another --out")
        scans = list(_below(place, realpath(out)))
    elif exists(place):
        return [place]
    else:
        raise InputError(f"{place}: no such scan; give files, DICOM series, folders of these, or a .txt of paths")
    if not scans:
        raise InputError(f"{place}: no scan in it; scans are DICOM series or end in {', '.join(ENDINGS)}")
    return scans


def _below(folder: Path, out: str) -> Iterator[Path]:
    """Scans in a folder and those below but ``out``; a folder with a DICOM file is one scan."""
    try:
        inside = sorted((p for p in folder.iterdir() if p.name[0] != "."), key=lambda path: natural_key(path.name))
        files = [path for path in inside if not path.is_dir()]
    except OSError:  # out of reach, to be told when its turn comes
        yield folder
        return
    for path in files:
        with suppress(InputError):  # told when it is labelled, where its name is that of a scan
            if is_dicom_file(path, first_bytes(path)):
                yield folder
                return
    voxels = {path.with_suffix(".img").name.lower() for path in files if path.suffix.lower() == ".hdr"}
    yield from (p for p in files if p.name.lower().endswith(ENDINGS) and p.name.lower() not in voxels)
    for path in inside:
        if path.is_dir() and realpath(path) != out:
            yield from _below(path, out)


def _named(scans: Sequence[Path], out: Path) -> dict[str, Path]:
    """Scans by the names of their label maps."""
    named: dict[str, Path] = {}
    for scan in scans:
        name = file_name(_name(scan))
        if realpath(named.setdefault(name, scan)) != realpath(scan):
            raise InputError(f"{named[name]} and {scan} have one name; rename one, or label them into another --out")
        if realpath(out / f"{name}.nii.gz") == realpath(scan):
            raise InputError(f"{scan}: its label map would take its place; choose another --out")
    return named


def _name(scan: Path) -> str:
    return Path(realpath(scan)).name if isdir(scan) else stem(scan.name)


def _label(carried: Carried, scan: Path, to: Path) -> None:
    """Write the label map of one scan and its record, unless they are there."""
    done, config = to.with_name(f"{to.name.removesuffix('.nii.gz')}.json"), carried.config
    if not scan.is_dir():
        first_bytes(scan)  # refuses what is no regular file, which could be read for ever
    of = {
        "weights": carried.about["id"], "scan": digest(scan), "spacing": list(config.data.spacing),
        "hu": list(config.data.hu), "overlap": config.evaluate.overlap, "labels": sorted(carried.names),
    }  # fmt: skip
    if done.exists() or to.exists():
        before = _written(to, done)
        if before["of"] == of and before["map_sha256"]:
            return
    image = read_volume(scan)
    doubts = [doubt.text for doubt in (*image.doubts, *check_hounsfield(image))]
    for text in doubts:
        tqdm.write(visible(text), file=sys.stderr)
    back = way_back(image.data.shape, image.affine, config.data.spacing)
    scores = window_scores(carried.net, scaled(prepared(image, config.data), config.data.hu), config)
    del image
    labels = original_labels(scores, back, carried.names)
    write_sealed(done, {"scan": scan.name, "of": of, "map_sha256": ""})  # a stop from here on leaves a map of ours
    write_nifti(to, labels, back.affine)
    voxels = {name: int((labels == value).sum()) for value, name in carried.names.items()}
    names = {str(value): name for value, name in carried.names.items()}
    record = {"scan": scan.name, "of": of, "labels": names, "voxels": voxels, "map_sha256": sha256(to)}
    write_sealed(done, {**record, "doubts": doubts})


def _written(to: Path, done: Path) -> dict[str, Any]:
    """The record of a label map that is there; InputError where it is not one that was written here and left alone.

    Its ``map_sha256`` is empty where a stop came before the map was whole.
    """
    try:
        before = read_sealed(done)
        map_sha256, _ = before["map_sha256"], before["of"]
    except (OSError, ValueError, KeyError):
        place = done if done.exists() else to
        raise InputError(f"{place}: is there and was not written by mixcl predict; choose another --out") from None
    if map_sha256 and to.exists() and sha256(to) != map_sha256:
        raise InputError(f"{to}: was changed since it was labelled; take it away, or choose another --out")
    return before if to.exists() else {**before, "map_sha256": ""}
