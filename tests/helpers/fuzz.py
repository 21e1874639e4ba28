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
SLOW = 2.0  # seconds of a processor for what is read in a hundredth of one
PIXELS = b"\xe0\x7f\x10\x00"  # the tag of the pixels


def read(path: Path) -> tuple[str, float]:
    """What becomes of a file, ``volume`` or the sentence that refuses it, and the seconds of processor time it took."""
    start, answer = time.process_time(), "volume"
    try:
        check_hounsfield(read_volume(path))
    except InputError as error:
        answer = str(error)
    return answer, time.process_time() - start


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
        (answer,) = outcomes(read, [(whole,)], 1)
        said, seconds = ("", 0.0) if isinstance(answer, InputError) else answer
        if "\n" in said or seconds > SLOW or not (said == "volume" or str(folder) in said):
            unexpected.append(f"{form} {turn} {places}: {seconds:.1f} s, {said or answer}")
    spoilt.write_bytes(sound)
    return unexpected
