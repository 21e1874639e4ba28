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
# Transfer syntaxes that GDCM decodes: JPEG, lossless JPEG, JPEG-LS, JPEG 2000, run lengths.
DECODED = (".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".2.5")
PIXELS = (
    "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "SamplesPerPixel", "PhotometricInterpretation", "PixelData",
)  # fmt: skip
DEFLATED = b"1.2.840.10008.1.2.1.99"  # a few bytes of such a file may unpack to any size: it is not read
FRAMES, SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"


class Slice(NamedTuple):
    """A slice of a series, or a file that holds none: ``fault`` then says what keeps it from being one.

    ``place`` of the first pixel and directions ``across`` (along a row) and ``down`` as DICOM counts them, to the left
    and to the back; ``edges`` [row, column] mm; ``rescale`` slope and intercept; ``frame`` of a file that has several.
    """

    path: Path
    kind: str
    series: str = ""
    fault: str = ""
    frame: int = 0
    shape: tuple[int, int] = (0, 0)
    place: NDArray[np.float64] = np.zeros(3)
    across: NDArray[np.float64] = np.zeros(3)
    down: NDArray[np.float64] = np.zeros(3)
    edges: NDArray[np.float64] = np.zeros(2)
    rescale: tuple[float, float] | None = None
    phase: str = ""
    localizer: bool = False


class _NoSlice(Exception):
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
        return [Slice(path, "damaged file", fault="is empty, or zeros alone")]
    if not is_dicom(raw[:132]):
        return []
    if DEFLATED in raw[:2048]:
        return [Slice(path, "deflated file", fault="is deflated as a whole; unpack it first, as by dcmconv +te")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(io.BytesIO(raw), force=True)
            described = _described(path, dataset)
            return [described] if described.fault else _slices(dataset, described, len(raw))
        except _NoSlice as error:
            return [described._replace(fault=str(error))]
        except Exception as error:  # pydicom raises whatever a byte out of place leads to
            if raw[128:132] != MARK:
                return []  # something else that begins alike
            words = " ".join(f"{type(error).__name__}: {error}".split())
            return [Slice(path, "damaged file", fault=f"has a header that makes no sense ({words})")]


def _described(path: Path, dataset: Any) -> Slice:
    """What a file is, and whether it holds no slices at all."""
    kind = " ".join(getattr(dataset.get("SOPClassUID", ""), "name", "").split()) or "file of no kind"
    series = " ".join(str(dataset.get("SeriesInstanceUID", "")).split())
    if "PixelData" not in dataset:
        return Slice(path, kind, fault="holds no image")
    if not ("Rows" in dataset or "CT Image" in kind):
        return Slice(path, kind, fault="lacks Rows")
    if "Segmentation" in kind:
        text = "holds segments, which are converted into a label map by dcmqi, for example"
        return Slice(path, kind, series, fault=text)
    if not ("CT Image" in kind or "ImagePositionPatient" in dataset or FRAMES in dataset):
        return Slice(path, kind, fault="has no place in the patient")
    return Slice(path, kind, series, localizer="LOCALIZER" in str(dataset.get("ImageType")))


def _slices(dataset: Any, described: Slice, size: int) -> list[Slice]:
    """The slices of a file of ``size`` bytes with pixels that GDCM decodes, and does not fill up."""
    rows, columns = _whole(dataset, "Rows"), _whole(dataset, "Columns")
    many = 1 if dataset.get("NumberOfFrames") in (None, "") else _whole(dataset, "NumberOfFrames")
    grey = str(dataset.get("PhotometricInterpretation"))
    if "ModalityLUTSequence" in dataset:
        raise _NoSlice("has a table for its values (ModalityLUTSequence), which is not read")
    if _whole(dataset, "SamplesPerPixel") != 1 or not grey.startswith("MONO"):
        raise _NoSlice("is a picture in colours, a screen capture for example")
    if grey == "MONOCHROME1":
        raise _NoSlice("has inverted grey values (MONOCHROME1)")
    if min(rows, columns, many) < 1:
        raise _NoSlice(f"has {rows} rows, {columns} columns and {many} frames")
    plain, voxels, bits = _compression(dataset) is None, rows * columns * many, _whole(dataset, "BitsAllocated")
    if bits not in (8, 16, 32):
        raise _NoSlice(f"has {bits} bits a pixel")
    if not plain and voxels > PACKED * size:
        raise _NoSlice("announces more pixels than it can hold; it is cut off")
    if plain and len(dataset.PixelData) < voxels * bits // 8:
        raise _NoSlice(f"is cut off: {len(dataset.PixelData)} of {voxels * bits // 8} bytes of pixels are there")
    keys = ("AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers")
    phase = " ".join("/".join(str(dataset.get(key, "")) for key in keys).split()).strip("/")
    described = described._replace(shape=(rows, columns), phase=phase)
    if many == 1 and FRAMES not in dataset:
        return [_in_place(described, (dataset,))]
    if FRAMES not in dataset or len(dataset[FRAMES].value) != many:
        raise _NoSlice(f"is multi-frame ({many} frames) without a place for each; export it as one file a slice")
    shared, slices = list(dataset.get(SHARED) or ())[:1], []
    for frame, own in enumerate(dataset[FRAMES].value):  # groups of data sets: places, directions, measures, scaling
        groups = [group.value[:1] for item in (own, *shared) for group in item if group.VR == "SQ"]
        try:
            slices.append(_in_place(described._replace(frame=frame), (*itertools.chain(*groups), dataset)))
        except _NoSlice as error:
            return [*slices, described._replace(frame=frame, fault=str(error))]
    return slices


def _in_place(described: Slice, datasets: tuple[Any, ...]) -> Slice:
    """A slice with its place and its scaling, each as the first of the data sets that has it says."""
    turn = _numbers(datasets, "ImageOrientationPatient", 6).reshape(2, 3)
    edges = _numbers(datasets, "PixelSpacing", 2)
    if edges.min() <= 0:
        raise _NoSlice(f"has an impossible PixelSpacing of {edges[0]:g} x {edges[1]:g} mm")
    lengths = np.linalg.norm(turn, axis=1)
    if np.abs(lengths - 1).max() > 0.01:
        raise _NoSlice("has an ImageOrientationPatient that is no pair of directions")
    across, down = turn / lengths[:, None]
    rescale = None
    if any("RescaleSlope" in dataset or "RescaleIntercept" in dataset for dataset in datasets):
        slope, intercept = (float(_numbers(datasets, f"Rescale{key}", 1)[0]) for key in ("Slope", "Intercept"))
        if slope == 0:
            raise _NoSlice("has a RescaleSlope of 0")
        rescale = slope, intercept
    place = _numbers(datasets, "ImagePositionPatient", 3)
    return described._replace(place=place, across=across, down=down, edges=edges, rescale=rescale)


def _numbers(datasets: tuple[Any, ...], key: str, many: int) -> NDArray[np.float64]:
    """The numbers of an entry of the first data set that has it."""
    dataset = next((dataset for dataset in datasets if key in dataset), None)
    if dataset is None:
        raise _NoSlice(f"lacks {key}")
    raw = dataset.get_item(key).value
    text = raw.decode("latin-1") if isinstance(raw, bytes) and dataset.get_item(key).VR in ("DS", "IS") else str(raw)
    if raw in (None, b"") or not text.strip(" \0"):
        raise _NoSlice(f"has an empty {key}")
    try:
        value = dataset[key].value
        numbers = np.array([float(entry) for entry in (value if hasattr(value, "__len__") else [value])])
    except Exception:
        numbers = np.full(many, np.nan)
    if len(numbers) != many or not np.isfinite(numbers).all():
        what = "a finite number" if many == 1 else f"{many} finite numbers"
        raise _NoSlice(f"has {text.strip()[:60]!r} for {key}, which is not {what}")
    return numbers


def _whole(dataset: Any, key: str) -> int:
    return int(_numbers((dataset,), key, 1)[0])


def pixels_of(path: Path) -> NDArray[Any]:
    """The pixels of a file as stored, [X, Y, frames], without bits that do not count; refuses what it cannot decode."""
    import pydicom
    from pydicom import uid

    try:
        dataset = pydicom.dcmread(path, force=True)
        if _compression(dataset) is not None:
            pixels = _decoded(path, dataset)
        else:
            if "TransferSyntaxUID" not in dataset.file_meta:
                implicit, little = dataset.original_encoding
                explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
                dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
            dataset.pixel_array_options(correct_unused_bits=False)  # else the lowest, whatever HighBit says
            pixels = dataset.pixel_array
        size, stored = 8 * pixels.itemsize, int(dataset.BitsStored)
        if size > stored:  # bits that may hold anything; decoders leave those that count lowest, with or without a sign
            high = int(dataset.HighBit) if _compression(dataset) is None else stored - 1
            pixels = pixels.astype(f"{'i' if dataset.PixelRepresentation else 'u'}{pixels.itemsize}", copy=False)
            pixels = (pixels << (size - 1 - high)) >> (size - stored)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        raise InputError(f"{path}: its pixels cannot be decoded ({words}); get it again", "damaged") from None
    return np.atleast_3d(pixels.T)


def _compression(dataset: Any) -> Any:
    """The transfer syntax of compressed pixels, None for plain ones."""
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    return syntax if syntax is not None and syntax.is_transfer_syntax and syntax.is_encapsulated else None


def _decoded(path: Path, dataset: Any) -> NDArray[Any]:
    """Compressed pixels by GDCM, which is given them alone: it reads no header that pydicom has not read."""
    import pydicom
    import SimpleITK as sitk

    syntax = _compression(dataset)
    if not syntax.endswith(DECODED):
        text = f"compressed as {syntax.name}, which cannot be read; needs to be decompressed, as by gdcmconv --raw"
        raise InputError(f"{path}: {text}", "format")
    bare = pydicom.Dataset()
    for key in PIXELS:
        if key in dataset:
            bare[key] = dataset[key]
    bare.SOPClassUID = pydicom.uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    bare.SOPInstanceUID, bare.file_meta = dataset.get("SOPInstanceUID", "1.2"), dataset.file_meta
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
