"""Scans as people have them: found, read, checked and laid on one grid."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Severity = Literal["error", "warning", "note"]


class Doubt(NamedTuple):
    """Something odd that is no fault: its short name, a sentence, and how bad it is."""

    kind: str
    text: str
    severity: Severity = "warning"


Read = tuple[NDArray[Any], NDArray[np.float64], tuple[Doubt, ...]]
"""What a reader gives: voxels [X, Y, Z] in the file's axes, affine [4, 4] to RAS+ mm, what is odd (names no file)."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume as given: ``data`` [X, Y, Z] in the file's axes, ``affine`` [4, 4] to RAS+ mm, the hash of its files."""

    path: Path
    data: NDArray[Any]
    affine: NDArray[np.float64]
    sha256: str
    doubts: tuple[Doubt, ...] = ()
