"""The label maps that an evaluation has kept of its test cases, beside what it measured of them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixcl import files
from mixcl.config.settings import Grid
from mixcl.errors import InputError


def file(run: Path, case: str, suffix: str) -> Path:
    """A file of a test case: ``.npz``, the predicted maps, or ``.json``, their metrics."""
    return run / "evaluation" / f"{files.file_name(case)}{suffix}"


def read_prediction(run: Path, case: str, grid: Grid = "prepared") -> NDArray[np.uint8]:
    """The predicted label map of a test case, uint8 [X, Y, Z], on the prepared grid or, where it was measured there,
    on that of the original scan; InputError where the run is not evaluated so, or the file is damaged.
    """
    path = file(run, case, ".npz")
    try:
        if files.read_sealed(file(run, case, ".json"))["labels"] != files.sha256(path):
            raise ValueError("it is not the one that was measured")
        with np.load(path, allow_pickle=False) as arrays:
            labels: NDArray[np.uint8] = arrays[grid]
    except Exception as error:  # zipfile and numpy raise many kinds
        raise InputError(f"{path}: cannot be read ({error}); run mixcl evaluate --run {run.name}") from None
    return labels
