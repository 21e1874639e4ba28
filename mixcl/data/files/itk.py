"""NRRD and MetaImage, read by SimpleITK."""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mixcl.data.files import Doubt
from mixcl.data.files.opened import BEHIND, GZIP, PACKED, behind, first_bytes, reading
from mixcl.errors import InputError

HEADER_BYTES = 2**16
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK and DICOM count to the patient's left and back, NIfTI to the right and front."""


def read_itk(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], tuple[Doubt, ...]]:
    """Voxels [X, Y, Z], affine to RAS+ mm, and what is odd about a ``.nrrd`` or ``.mha`` file.

    Raises
    ------
    InputError
        Voxels in another file or as text, more or far fewer voxels promised than the file holds, not one 3-D volume of
        real numbers, cut off or damaged.
    """
    import SimpleITK as sitk

    doubts = tuple(_header(path))
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if first_bytes(path).startswith(b"NRRD") else "MetaImageIO")
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
    doubts += behind(path, _surplus(path, int(np.prod(shape)) * voxel))  # first: not all of it does ITK survive
    with itk_errors(path):
        image = reader.Execute()
    data = sitk.GetArrayFromImage(image).transpose()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return data, LPS @ affine, doubts


def _surplus(path: Path, size: int) -> int:
    """Bytes that the file holds beside the ``size`` of its voxels, as far as that matters; ITK passes over them."""
    head = first_bytes(path, HEADER_BYTES).decode("latin-1")  # a character a byte
    nrrd = head.startswith("NRRD")
    begin = re.search(r"\r?\n\r?\n" if nrrd else r"^ElementDataFile *= *LOCAL[^\n]*\n", head, re.MULTILINE)
    fields = head[: begin.start() if begin else 0]
    given = re.search(r"^encoding: *(\S+)" if nrrd else r"^CompressedData *= *(\S+)", fields, re.M | re.I)
    encoding = given[1].lower() if given else "raw"
    binary = nrrd or not re.search(r"^BinaryData *= *F", fields, re.M | re.I)
    if begin is None or not binary or encoding not in ("raw", "gzip", "gz", "true", "false"):
        raise InputError(f"{path}: holds its voxels in an unusual way; write it anew, binary, raw or gzip", "format")
    there = path.stat().st_size - begin.end()
    stated = re.search(r"^CompressedDataSize *= *(\d+)", fields, re.M | re.I)  # of a MetaImage; ITK stops there
    taken = min(int(stated[1][:20]), there) if stated and not nrrd and encoding == "true" else there
    held = taken
    if encoding in ("gzip", "gz", "true"):
        with reading(path), path.open("rb") as file:
            file.seek(begin.end())
            held = _unpacked(file, taken, size + BEHIND, nrrd)
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
            size += len(piece)
            piece = file.read(min(2**16, end - file.tell()))
        else:
            size += len(unpacker.decompress(piece, 2**20))
            left = unpacker.unconsumed_tail or unpacker.unused_data
            piece = left or file.read(min(2**16, end - file.tell()))
    return size + (0 if unpacker.eof or size > most else len(unpacker.flush()))


def _header(path: Path) -> Iterator[Doubt]:
    """What the text at the beginning says that ITK passes over."""
    head = first_bytes(path, HEADER_BYTES).decode("latin-1")
    nrrd = head.startswith("NRRD")
    head = re.split(r"\r?\n\r?\n", head, maxsplit=1)[0] if nrrd else head
    elsewhere = re.search(r"^data ?file *:", head, re.MULTILINE | re.IGNORECASE) if nrrd else (
        not re.search(r"^ElementDataFile *= *LOCAL", head, re.MULTILINE)
    )  # fmt: skip
    if elsewhere:
        raise InputError(f"{path}: its voxels lie in another file; write both into one .nrrd or .mha", "format")
    given = r"^space directions *:" if nrrd else r"^(TransformMatrix|Orientation|Rotation) *="
    if not re.search(given, head, re.MULTILINE):
        text = "its header gives no orientation; it is taken as the format's default (LPS)"
        yield Doubt("orientation", f"{path}: {text}")


@contextmanager
def itk_errors(path: Path) -> Iterator[None]:
    """Turn what ITK says of a file it cannot read into one sentence."""
    try:
        yield
    except RuntimeError as error:
        last = re.sub(r"\(0x[0-9a-f]+\)", "", str(error).strip().splitlines()[-1])
        if "memory" in last.lower() or "bad_alloc" in last:
            raise MemoryError(last) from None
        text = f"{path}: cut off or damaged ({last.strip()}); download or copy it again"
        raise InputError(text, "damaged") from None
