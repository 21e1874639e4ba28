"""NRRD and MetaImage, read by SimpleITK."""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mixcl.data.files import Doubt, Read
from mixcl.data.files.raw import GZIP, PACKED, TRAILING, check_trailing, first_bytes, reading
from mixcl.errors import InputError

HEADER_BYTES = 2**16
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK and DICOM count to the left and back, NIfTI to the right and front
SPACES = {"lps", "leftposteriorsuperior", "ras", "rightanteriorsuperior", "las", "leftanteriorsuperior"}  # of a patient
ORIENTED = {True: {"space directions"}, False: {"TransformMatrix", "Orientation", "Rotation"}}  # of NRRD or not


def read_itk(path: Path) -> Read:
    """Read a ``.nrrd`` or ``.mha`` file.

    Raises InputError: voxels in another file or as text, more or far fewer voxels promised than the file holds, not one
    3-D volume of real numbers, cut off or damaged.
    """
    import SimpleITK as sitk

    nrrd = first_bytes(path).startswith(b"NRRD")
    fields, begin = _header(path, nrrd)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    with itk_errors(path):
        reader.ReadImageInformation()
    shape, parts = reader.GetSize(), reader.GetNumberOfComponents()
    if reader.GetDimension() != 3 or parts != 1:
        text = f"has {reader.GetDimension()} dimensions {shape} and {parts} numbers a voxel"
        raise InputError(f"{path}: {text}; keep one 3-D volume a file", "dimension")
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise InputError(f"{path}: its voxels are complex; store real numbers", "format")
    if np.prod(shape, dtype=float) > PACKED * path.stat().st_size:
        raise InputError(f"{path}: cut off: the header announces more voxels; download or copy it again", "damaged")
    voxel: int = sitk.Image((1, 1, 1), reader.GetPixelID()).GetSizeOfPixelComponent()
    size = int(np.prod(shape)) * voxel
    doubts = check_trailing(path, _surplus(path, nrrd, fields, begin, size))  # first: not all of it does ITK survive
    sizes = ("spacings", "space directions") if nrrd else ("ElementSpacing", "ElementSize")
    if not any(re.search(r"\d", fields.get(name, "")) for name in sizes):
        text = "its header gives no size of a voxel; write it anew from the original scan"
        raise InputError(f"{path}: {text}", "spacing")
    of_patient = not nrrd or re.sub("[ -]", "", fields.get("space", "").lower()) in SPACES
    if not ORIENTED[nrrd] & fields.keys() or not of_patient:
        text = "its header gives no orientation in a patient; it is taken as the format's default (LPS)"
        doubts = (Doubt("orientation", text), *doubts)
    with itk_errors(path):
        image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(), LPS @ affine, doubts


def _header(path: Path, nrrd: bool) -> tuple[dict[str, str], int]:
    """The fields of the text in front by name, and the byte behind it, 0 where it has no end.

    Names of NRRD are in small letters; those of a MetaImage as they are, since ITK passes over another spelling.
    """
    head = first_bytes(path, HEADER_BYTES).decode("latin-1")  # a character a byte
    end = re.search(r"\r?\n\r?\n" if nrrd else r"^ElementDataFile *=.*\n", head, re.MULTILINE)
    begin = end.end() if end else 0
    fields: dict[str, str] = {}
    for line in head[: begin or None].split("\n"):
        name, _, value = line.partition(":" if nrrd else "=")
        fields.setdefault(name.strip().lower() if nrrd else name.strip(), value.strip())
    local = fields.get("ElementDataFile", "").startswith("LOCAL")
    if {"data file", "datafile"} & fields.keys() if nrrd else not local:
        raise InputError(f"{path}: its voxels lie in another file; write both into one .nrrd or .mha", "format")
    return fields, begin


def _surplus(path: Path, nrrd: bool, fields: dict[str, str], begin: int, size: int) -> int:
    """Bytes that the file holds beside the ``size`` of its voxels, as far as that matters; ITK passes over them."""
    encoding = (fields.get("encoding" if nrrd else "CompressedData") or "raw").lower()
    spelled_out = not nrrd and fields.get("BinaryData", "").lower().startswith("f")
    if not begin or spelled_out or encoding not in ("raw", "gzip", "gz", "true", "false"):
        raise InputError(f"{path}: holds its voxels in an unusual way; write it anew, binary, raw or gzip", "format")
    held = taken = there = path.stat().st_size - begin
    if encoding in ("gzip", "gz", "true"):
        stated = None if nrrd else re.match(r"\d+", fields.get("CompressedDataSize", ""))  # ITK stops there
        held = taken = min(int(stated[0][:20]), there) if stated else there
        with reading(path), path.open("rb") as file:
            file.seek(begin)
            held = _unpacked(file, taken, size + TRAILING, nrrd)
    if held < size:
        text = "cut off or damaged: the header announces more voxels"
        raise InputError(f"{path}: {text}; download or copy it again", "damaged")
    return held - size + there - taken


def _unpacked(file: BinaryIO, taken: int, most: int, parts: bool) -> int:
    """Bytes that the next ``taken`` of a file unpack to and what follows that, counted to a little beyond ``most``.

    With ``parts`` one packed part may follow another, as NRRD has it.
    """
    end = file.tell() + taken
    size, unpacker, piece = 0, zlib.decompressobj(47), file.read(min(2**16, taken))
    while piece and size <= most:
        if unpacker.eof and parts and piece.startswith(GZIP):
            unpacker = zlib.decompressobj(47)
        if unpacker.eof:
            return size + len(piece) + end - file.tell()
        size += len(unpacker.decompress(piece, 2**20))
        piece = unpacker.unconsumed_tail or unpacker.unused_data or file.read(min(2**16, end - file.tell()))
    return size + (0 if unpacker.eof or size > most else len(unpacker.flush()))


@contextmanager
def itk_errors(path: Path) -> Iterator[None]:
    """Turn what ITK says of a file it cannot read into one sentence."""
    try:
        yield
    except RuntimeError as error:
        last = re.sub(r"\(0x[0-9a-f]+\)", "", str(error).strip().splitlines()[-1])
        if "memory" in last.lower() or "bad_alloc" in last:
            raise MemoryError(last) from None
        raise InputError(f"{path}: cut off or damaged ({last.strip()}); download or copy it again", "damaged") from None
