"""Scans of real size for the benchmarks: phantoms in a frame of 512 x 512 x 200 voxels, written as NIfTI pairs."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mixcl.config.settings import Collection, DataConfig, PhantomConfig
from mixcl.data.phantom.scan import labelled, make_case
from mixcl.data.registry import BTCV_NAMES

SHAPE = (512, 512, 200)
SPACING = (0.8, 0.8, 2.0)
"""Voxel size that the scans give, mm: 410 x 410 x 400 mm, as the 210 of KiTS19 are on average."""
DRAWN = (0.75, 0.75, 1.15)
"""Voxel size at which a phantom fills the frame as a patient fills a scan, mm."""


def options(parser: argparse.ArgumentParser, volumes: int, text: str) -> None:
    """How many scans, and where they are kept."""
    parser.add_argument("--volumes", type=int, default=volumes, help=text)
    parser.add_argument("--work", help="folder of scans, made when they are not there; default a passing one")


@contextmanager
def folder_of(args: argparse.Namespace) -> Iterator[Path]:
    """The folder given, or one that is gone afterwards."""
    with tempfile.TemporaryDirectory() as new:
        yield Path(args.work or new)


def write(folder: Path, count: int) -> DataConfig:
    """Write ``count`` scans; those that are there are kept.

    Returns the settings of a collection ``bench`` of them, with BTCV's labels.
    """
    for index in range(count):
        image, label = (folder / "bench" / kind / f"c{index}.nii.gz" for kind in ("imagesTr", "labelsTr"))
        if not image.is_file():
            voxels = scan(index)
            for path, array in zip((label, image), voxels[::-1], strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                draft = path.with_name(f".{path.name}")
                nib.save(nib.Nifti1Image(array, np.diag([*SPACING, 1.0])), draft)
                draft.replace(path)
    own = {"bench": Collection(root="bench", names=BTCV_NAMES)}
    return DataConfig(root=str(folder), collections=own, pretrain=("bench",), finetune=())


def scan(index: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Phantom ``index`` with BTCV's labels, int16 and uint8 [512, 512, 200], in noisy air where it does not reach."""
    made = make_case(PhantomConfig(spacing=DRAWN), "btcv", index)
    noise = np.random.default_rng(index).standard_normal(SHAPE, np.float32)
    image = np.maximum(np.rint(-1000 + 12 * noise), -1024).astype(np.int16)
    label = np.zeros(SHAPE, np.uint8)
    there, here = [], []
    for have, want in zip(made.image.shape, SHAPE, strict=True):
        n = min(have, want)
        there.append(slice((have - n) // 2, (have - n) // 2 + n))
        here.append(slice((want - n) // 2, (want - n) // 2 + n))
    image[tuple(here)] = made.image[tuple(there)]
    label[tuple(here)] = labelled(made.truth, "btcv")[tuple(there)]
    return image, label
