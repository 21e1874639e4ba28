"""A volume written as a DICOM series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


UID = generate_uid()


def write_series(folder: Path, image: NDArray[Any], affine: NDArray[Any], *, series: str = UID, **more: Any) -> None:
    """Slices of a volume [X, Y, Z] whose third axis is the stack, under names in a shuffled order."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = LPS @ affine
    edges = np.linalg.norm(lps[:3, :3], axis=0)
    for k in np.random.default_rng(0).permutation(image.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        one = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID, one.SeriesInstanceUID = (
            CTImageStorage,
            meta.MediaStorageSOPInstanceUID,
            series,
        )
        one.Columns, one.Rows = image.shape[:2]
        one.PixelSpacing = [float(edges[1]), float(edges[0])]
        one.ImageOrientationPatient = [*(lps[:3, 0] / edges[0]), *(lps[:3, 1] / edges[1])]
        one.ImagePositionPatient = list(map(float, (lps @ [0, 0, k, 1])[:3]))
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation, one.SamplesPerPixel = 15, 0, 1
        one.PhotometricInterpretation, one.RescaleSlope, one.RescaleIntercept = "MONOCHROME2", 1, -1024
        one.PixelData = (image[:, :, k].T.astype(np.int32) + 1024).astype(np.uint16).tobytes()
        for key, value in more.items():
            setattr(one, key, value)
        one.save_as(folder / f"{generate_uid()}.dcm", enforce_file_format=True)
