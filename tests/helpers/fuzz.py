"""Headers with a few bytes changed: a volume or one sentence has to come of each, whatever the bytes."""

from __future__ import annotations

import random
import time
from pathlib import Path

import nibabel as nib
import SimpleITK as sitk

from mixcl.data.files.volume import check_hounsfield, read_volume
from mixcl.data.workers import outcomes
from mixcl.errors import InputError

SHAPE = (24, 20, 6)
PIXELS = b"\xe0\x7f\x10\x00"  # the tag of the pixels


def read(path: Path) -> str:
    """What becomes of a file: ``volume``, or the sentence that refuses it."""
    try:
        check_hounsfield(read_volume(path))
    except InputError as error:
        return str(error) if error.kind not in ("memory", "unexpected") else f"unexpected: {error}"
    return "volume"


def write_seeds(folder: Path) -> dict[str, tuple[Path, Path, int]]:
    """For each format a sound volume: what to read, the file to change, and how many bytes its header has."""
    from helpers.series import write_frames, write_series
    from helpers.volumes import affine_of, save, scan

    image, _ = scan(SHAPE)
    write_series(folder / "dicom", image, affine_of())
    first = min((folder / "dicom").iterdir())
    frames = write_frames(folder / "frames.dcm", image, affine_of())
    nifti = save(folder / "scan.nii", image)
    seeds = {
        "dicom": (folder / "dicom", first, first.read_bytes().index(PIXELS) + 12),
        "frames": (frames, frames, frames.read_bytes().index(PIXELS) + 12),
        "nifti": (nifti, nifti, 352),
    }
    for ending in ("nrrd", "mha"):
        path = folder / f"scan.{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(image.transpose()), str(path), useCompression=ending == "nrrd")
        raw = path.read_bytes()
        seeds[ending] = (path, path, raw.index(b"\n\n") if ending == "nrrd" else raw.index(b"LOCAL") + 6)
    nib.save(nib.Nifti1Pair(image, affine_of()), folder / "scan.img")
    seeds["pair"] = (folder / "scan.img", folder / "scan.hdr", 348)
    return seeds


def fuzz(folder: Path, form: str, seed: tuple[Path, Path, int], count: int, number: int = 0) -> list[str]:
    """Read ``count`` volumes whose header has 1 to 4 bytes changed; what was neither a volume nor a sentence."""
    chance = random.Random(f"{form} {number}")
    whole, spoilt, size = seed
    sound = spoilt.read_bytes()
    unexpected = []
    for turn in range(count):
        raw = bytearray(sound)
        places = [(chance.randrange(size), chance.randrange(256)) for _ in range(chance.randint(1, 4))]
        for place, value in places:
            raw[place] = value
        spoilt.write_bytes(bytes(raw))
        start = time.monotonic()
        (answer,) = outcomes(read, [(whole,)], 1)
        lost = isinstance(answer, InputError) or answer.startswith("unexpected")
        if lost or "\n" in answer or (answer != "volume" and str(folder) not in answer):
            unexpected.append(f"{form} {turn} {places}: {answer}")
        elif time.monotonic() - start > 5:
            unexpected.append(f"{form} {turn} {places}: {time.monotonic() - start:.0f} s, {answer}")
    spoilt.write_bytes(sound)
    return unexpected
