"""DICOM: what the headers of slices say, read by pydicom, and their pixels, where compressed decoded by GDCM.

GDCM takes an empty PixelSpacing for 1 mm, an empty RescaleIntercept for 0, a tilted or uneven stack of frames for a
straight one of cubes, and applies one scaling of many.  So places and scaling are taken from the headers, and checked.
"""

import io
import itertools
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixcl.data.files.itk import itk_errors
from mixcl.data.files.raw import PACKED
from mixcl.errors import InputError

MARK = b"DICM"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7.3"  # multi-frame grayscale word secondary capture
# Transfer syntaxes that GDCM decodes: JPEG, lossless JPEG, JPEG-LS, JPEG 2000, run lengths.
DECODED = (".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".2.5")
PIXELS = (
    "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "SamplesPerPixel", "PhotometricInterpretation", "PixelData",
)  # fmt: skip
DEFLATED = b"1.2.840.10008.1.2.1.99"  # a few bytes of such a file may unpack to any size: it is not read
FRAMES, SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"


class Slice(NamedTuple):
    """A slice of a series, or a file that holds none: ``lacks`` then says what keeps it from being one.

    ``place`` of the first pixel and directions ``across`` (along a row) and ``down`` as DICOM counts them, to the left
    and to the back; ``edges`` [row, column] mm; ``rescale`` slope and intercept; ``frame`` of a file that has several.
    """

    path: Path
    kind: str
    series: str = ""
    lacks: str = ""
    frame: int = 0
    shape: tuple[int, int] = (0, 0)
    place: NDArray[np.float64] = np.zeros(3)
    across: NDArray[np.float64] = np.zeros(3)
    down: NDArray[np.float64] = np.zeros(3)
    edges: NDArray[np.float64] = np.zeros(2)
    rescale: tuple[float, float] | None = None
    phase: str = ""
    localizer: bool = False


class _Lacks(Exception):
    """What keeps a file from being a slice."""


def is_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM does, with its preamble or without."""
    return head[128:132] == MARK or head[:2] in (b"\x02\x00", b"\x08\x00")


def is_dicom_file(path: Path, head: bytes) -> bool:
    """`is_dicom` by the name too: the voxels of a volume in two files may begin alike, and there the mark tells."""
    return is_dicom(head) and (path.suffix.lower() not in (".img", ".hdr") or head[128:132] == MARK)


def slices_of(path: Path, raw: bytes) -> list[Slice]:
    """The slices in a file of the bytes ``raw``: none of what is no DICOM; one that lacks something of no image."""
    import pydicom

    if path.suffix.lower() in (".dcm", ".ima") and not any(raw[:4096]):
        return [Slice(path, "damaged file", lacks="is empty, or zeros alone")]
    if not is_dicom(raw[:132]):
        return []
    if DEFLATED in raw[:2048]:
        return [Slice(path, "deflated file", lacks="is deflated as a whole; unpack it first, as by dcmconv +te")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            part = pydicom.dcmread(io.BytesIO(raw), force=True)
            known = _described(path, part)
            return [known] if known.lacks else _slices(part, known, len(raw))
        except _Lacks as lacks:
            return [known._replace(lacks=str(lacks))]
        except Exception as error:  # pydicom raises whatever a byte out of place leads to
            if raw[128:132] != MARK:
                return []  # something else that begins alike
            words = " ".join(f"{type(error).__name__}: {error}".split())
            return [Slice(path, "damaged file", lacks=f"has a header that makes no sense ({words})")]


def _described(path: Path, part: Any) -> Slice:
    """What a file is, and whether it holds no slices at all."""
    kind = " ".join(getattr(part.get("SOPClassUID", ""), "name", "").split()) or "file of no kind"
    series = " ".join(str(part.get("SeriesInstanceUID", "")).split())
    if "PixelData" not in part:
        return Slice(path, kind, lacks="holds no image")
    if not ("Rows" in part or "CT Image" in kind):
        return Slice(path, kind, lacks="lacks Rows")
    if "Segmentation" in kind:
        text = "holds segments, which are converted into a label map by dcmqi, for example"
        return Slice(path, kind, series, lacks=text)
    if not ("CT Image" in kind or "ImagePositionPatient" in part or FRAMES in part):
        return Slice(path, kind, lacks="has no place in the patient")
    return Slice(path, kind, series, localizer="LOCALIZER" in str(part.get("ImageType")))


def _slices(part: Any, known: Slice, size: int) -> list[Slice]:
    """The slices of a file of ``size`` bytes with pixels that GDCM decodes, and does not fill up."""
    rows, columns = _whole(part, "Rows"), _whole(part, "Columns")
    many = 1 if part.get("NumberOfFrames") in (None, "") else _whole(part, "NumberOfFrames")
    grey = str(part.get("PhotometricInterpretation"))
    if "ModalityLUTSequence" in part:
        raise _Lacks("has a table for its values (ModalityLUTSequence), which is not read")
    if _whole(part, "SamplesPerPixel") != 1 or not grey.startswith("MONO"):
        raise _Lacks("is a picture in colours, a screen capture for example")
    if grey == "MONOCHROME1":
        raise _Lacks("has inverted grey values (MONOCHROME1)")
    if min(rows, columns, many) < 1:
        raise _Lacks(f"has {rows} rows, {columns} columns and {many} frames")
    voxels, bits = rows * columns * many, _whole(part, "BitsAllocated")
    if bits not in (8, 16, 32):
        raise _Lacks(f"has {bits} bits a pixel")
    if _compression(part) is not None and voxels > PACKED * size:
        raise _Lacks("announces more pixels than it can hold; it is cut off")
    if _compression(part) is None and len(part.PixelData) < voxels * bits // 8:
        raise _Lacks(f"is cut off: {len(part.PixelData)} of {voxels * bits // 8} bytes of pixels are there")
    keys = ("AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers")
    phase = " ".join("/".join(str(part.get(key, "")) for key in keys).split()).strip("/")
    known = known._replace(shape=(rows, columns), phase=phase)
    if many == 1 and FRAMES not in part:
        return [_in_place(known, (part,))]
    if FRAMES not in part or len(part[FRAMES].value) != many:
        raise _Lacks(f"is multi-frame ({many} frames) without a place for each; export it as one file a slice")
    shared, slices = list(part.get(SHARED) or ())[:1], []
    for frame, own in enumerate(part[FRAMES].value):  # groups of data sets: places, directions, measures, scaling
        groups = [group.value[:1] for item in (own, *shared) for group in item if group.VR == "SQ"]
        try:
            slices.append(_in_place(known._replace(frame=frame), (*itertools.chain(*groups), part)))
        except _Lacks as lacks:
            return [*slices, known._replace(frame=frame, lacks=str(lacks))]
    return slices


def _in_place(known: Slice, parts: tuple[Any, ...]) -> Slice:
    """A slice with its place and its scaling, each as the first of the data sets that has it says."""
    turn = _numbers(parts, "ImageOrientationPatient", 6).reshape(2, 3)
    edges = _numbers(parts, "PixelSpacing", 2)
    if edges.min() <= 0:
        raise _Lacks(f"has an impossible PixelSpacing of {edges[0]:g} x {edges[1]:g} mm")
    lengths = np.linalg.norm(turn, axis=1)
    if np.abs(lengths - 1).max() > 0.01:
        raise _Lacks("has an ImageOrientationPatient that is no pair of directions")
    across, down = turn / lengths[:, None]
    rescale = None
    if any("RescaleSlope" in part or "RescaleIntercept" in part for part in parts):
        slope, intercept = (float(_numbers(parts, f"Rescale{key}", 1)[0]) for key in ("Slope", "Intercept"))
        if slope == 0:
            raise _Lacks("has a RescaleSlope of 0")
        rescale = slope, intercept
    place = _numbers(parts, "ImagePositionPatient", 3)
    return known._replace(place=place, across=across, down=down, edges=edges, rescale=rescale)


def _numbers(parts: tuple[Any, ...], key: str, many: int) -> NDArray[np.float64]:
    """The numbers of an entry of the first data set that has it."""
    part = next((part for part in parts if key in part), None)
    if part is None:
        raise _Lacks(f"lacks {key}")
    raw = part.get_item(key).value
    text = raw.decode("latin-1") if isinstance(raw, bytes) and part.get_item(key).VR in ("DS", "IS") else str(raw)
    if raw in (None, b"") or not text.strip(" \0"):
        raise _Lacks(f"has an empty {key}")
    try:
        value = part[key].value
        numbers = np.array([float(one) for one in (value if hasattr(value, "__len__") else [value])])
    except Exception:
        numbers = np.full(many, np.nan)
    if len(numbers) != many or not np.isfinite(numbers).all():
        what = "a finite number" if many == 1 else f"{many} finite numbers"
        raise _Lacks(f"has {text.strip()[:60]!r} for {key}, which is not {what}")
    return numbers


def _whole(part: Any, key: str) -> int:
    return int(_numbers((part,), key, 1)[0])


def pixels_of(path: Path) -> NDArray[Any]:
    """The pixels of a file as stored, [X, Y, frames], without bits that do not count; refuses what it cannot decode."""
    import pydicom

    try:
        part = pydicom.dcmread(path, force=True)
        if _compression(part) is not None:
            pixels = _decoded(path, part)
        else:
            if "TransferSyntaxUID" not in part.file_meta:
                implicit, little = part.original_encoding
                syntax = "1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2")
                part.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
            part.pixel_array_options(correct_unused_bits=False)  # pydicom takes the lowest bits, whatever HighBit says
            pixels = part.pixel_array
        size, stored = 8 * pixels.itemsize, int(part.BitsStored)
        if size > stored:  # bits that may hold anything; decoders leave those that count lowest, with or without a sign
            high = int(part.HighBit) if _compression(part) is None else stored - 1
            pixels = pixels.astype(f"{'i' if part.PixelRepresentation else 'u'}{pixels.itemsize}", copy=False)
            pixels = (pixels << (size - 1 - high)) >> (size - stored)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        raise InputError(f"{path}: its pixels cannot be decoded ({words}); get it again", "damaged") from None
    return np.atleast_3d(pixels.T)


def _compression(part: Any) -> Any:
    """The transfer syntax of compressed pixels, None for plain ones."""
    syntax = getattr(part, "file_meta", {}).get("TransferSyntaxUID")
    return syntax if syntax is not None and syntax.is_transfer_syntax and syntax.is_encapsulated else None


def _decoded(path: Path, part: Any) -> NDArray[Any]:
    """Compressed pixels by GDCM, which is given them alone: it reads no header that pydicom has not read."""
    import pydicom
    import SimpleITK as sitk

    syntax = _compression(part)
    if not syntax.endswith(DECODED):
        text = f"compressed as {syntax.name}, which cannot be read; needs to be decompressed, as by gdcmconv --raw"
        raise InputError(f"{path}: {text}", "format")
    bare = pydicom.Dataset()
    for key in PIXELS:
        if key in part:
            bare[key] = part[key]
    bare.SOPClassUID, bare.SOPInstanceUID, bare.file_meta = CAPTURE, part.get("SOPInstanceUID", "1.2"), part.file_meta
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "pixels.dcm"
            bare.save_as(copy, enforce_file_format=True)
            with itk_errors(path):
                image = sitk.ReadImage(str(copy), sitk.sitkUnknown, "GDCMImageIO")
    except OSError as error:
        text = f"its pixels pass through a temporary file, which cannot be written ({error.strerror or error})"
        raise InputError(f"{path}: {text}; make room there, or set TMPDIR to another folder", "machine") from None
    return sitk.GetArrayFromImage(image)


def hounsfield(pixels: NDArray[Any], rescale: tuple[float, float] | None) -> NDArray[Any]:
    """Pixels in HU: integers of 16 or 32 bits where that is exact, else float32.

    >>> hounsfield(np.array([0, 65535], np.uint16), (1.0, -1024.0))
    array([-1024, 64511], dtype=int32)
    """
    slope, intercept = rescale or (1.0, 0.0)
    ends = [float(end) * slope + intercept for end in (pixels.min(), pixels.max())]
    if slope != round(slope) or intercept != round(intercept) or max(map(abs, ends)) >= 2**31 or pixels.itemsize > 2:
        return np.asarray(pixels * np.float32(slope) + np.float32(intercept), np.float32)
    small = min(ends) >= -(2**15) and max(ends) < 2**15
    whole = pixels.astype(np.int64) * round(slope) + round(intercept)
    return whole.astype(np.int16 if small else np.int32)
