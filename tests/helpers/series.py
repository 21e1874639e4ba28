"""A volume written as a DICOM series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

SERIES = generate_uid()
Edit = Callable[[Any], object]


def put(key: str, value: Any) -> Edit:
    """An edit that gives a part of a file the entry ``key``."""
    return lambda part: setattr(part, key, value)


def edit(path: Path, change: Edit) -> None:
    """Change a DICOM file in place."""
    part = pydicom.dcmread(path)
    change(part)
    part.save_as(path)


def _begun(kind: UID, series: str, image: NDArray[Any]) -> FileDataset:
    """A file for slices of a volume [X, Y, Z], without voxels yet."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = kind, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    one = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID, one.SeriesInstanceUID = kind, meta.MediaStorageSOPInstanceUID, series
    one.Columns, one.Rows = image.shape[:2]
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation, one.SamplesPerPixel = 15, 0, 1
    one.PhotometricInterpretation = "MONOCHROME2"
    return one


def write_series(folder: Path, image: NDArray[Any], affine: NDArray[Any], *, series: str = SERIES, **more: Any) -> None:
    """Slices of a volume [X, Y, Z] whose third axis is the stack, under names in a shuffled order."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = LPS @ affine
    edges = np.linalg.norm(lps[:3, :3], axis=0)
    for k in np.random.default_rng(0).permutation(image.shape[2]):
        one = _begun(CTImageStorage, series, image)
        one.PixelSpacing = [float(edges[1]), float(edges[0])]
        one.ImageOrientationPatient = [*(lps[:3, 0] / edges[0]), *(lps[:3, 1] / edges[1])]
        one.ImagePositionPatient = list(map(float, (lps @ [0, 0, k, 1])[:3]))
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one.PixelData = (image[:, :, k].T.astype(np.int32) + 1024).astype(np.uint16).tobytes()
        for key, value in more.items():
            setattr(one, key, value)
        one.save_as(folder / f"{generate_uid()}.dcm", enforce_file_format=True)


def write_frames(path: Path, image: NDArray[Any], affine: NDArray[Any], *, intercepts: Any = None) -> Path:
    """The same as one enhanced multi-frame file; ``intercepts`` for each frame, -1024 in all of them otherwise."""
    lps = LPS @ affine
    edges = np.linalg.norm(lps[:3, :3], axis=0)
    one = _begun(EnhancedCTImageStorage, SERIES, image)
    one.NumberOfFrames = image.shape[2]
    measures, turn = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [float(edges[1]), float(edges[0])], float(edges[2])
    turn.ImageOrientationPatient = [*(lps[:3, 0] / edges[0]), *(lps[:3, 1] / edges[1])]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]
    frames = []
    for k in range(image.shape[2]):
        frame, place, scaling = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = list(map(float, (lps @ [0, 0, k, 1])[:3]))
        scaling.RescaleSlope, scaling.RescaleIntercept = 1, -1024 if intercepts is None else intercepts[k]
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [scaling]
        frames.append(frame)
    one.SharedFunctionalGroupsSequence, one.PerFrameFunctionalGroupsSequence = [shared], frames
    one.PixelData = (image.transpose(2, 1, 0).astype(np.int32) + 1024).astype(np.uint16).tobytes()
    one.save_as(path, enforce_file_format=True)
    return path
