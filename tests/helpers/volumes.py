"""Tiny scans as NIfTI files, right and wrong, for the tests of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SPACING = (1.0, 1.25, 3.0)


def scan(
    shape: Sequence[int] = (24, 20, 14), seed: int = 0, values: Sequence[int] = (1,)
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Air, a noisy body and a box for each label value in it, cornerwise so that no two axes look alike."""
    rng = np.random.default_rng(seed)
    image = np.full(shape, -1000, np.int16)
    label = np.zeros(shape, np.uint8)
    body = tuple(slice(1, n - 1) for n in shape)
    image[body] = rng.normal(40, 60, image[body].shape).round()
    for k, value in enumerate(values):
        box = tuple(slice(2 + k * n // 4, 2 + k * n // 4 + n // 4) for n in shape)
        label[box] = value
        image[box] += 100
    return image, label


def affine_of(spacing: Sequence[float] = SPACING, origin: Sequence[float] = (10.0, -20.0, 30.0)) -> NDArray[Any]:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return affine


def save(path: Path, data: NDArray[Any], affine: NDArray[Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine_of() if affine is None else affine), path)
    return path


def write_case(
    root: Path,
    case: str,
    image: NDArray[Any],
    label: NDArray[Any],
    affine: NDArray[Any] | None = None,
    label_affine: NDArray[Any] | None = None,
) -> tuple[Path, Path]:
    """A case in the layout of the Medical Segmentation Decathlon."""
    return (
        save(root / "imagesTr" / f"{case}.nii.gz", image, affine),
        save(root / "labelsTr" / f"{case}.nii.gz", label, affine if label_affine is None else label_affine),
    )
