"""How well a label map agrees with another: Dice, HD95 and surface Dice per organ, by MONAI's functions.

The rules for organs that are absent or missed are here, and nowhere else.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from mixcl.labels import UNKNOWN


def class_values(values: Iterable[int]) -> list[int]:
    """What a network's classes stand for: class 0 is the background, class k the k-th smallest label value."""
    return [0, *sorted(values)]


def class_indices(labels: Tensor, values: Iterable[int]) -> Tensor:
    """The class, int64, of every voxel of label maps of any shape (values 0 to 255); other values are background.

    UNKNOWN stays what it is, no class (R33).

    >>> class_indices(torch.tensor([0, 3, 7, 5, 255], dtype=torch.uint8), (7, 3)).tolist()
    [0, 1, 2, 0, 255]
    """
    classes = torch.zeros(256, dtype=torch.long, device=labels.device)
    for index, value in enumerate(class_values(values)):
        classes[value] = index
    classes[UNKNOWN] = UNKNOWN
    return classes[labels.long()]


def dice(first: Tensor, second: Tensor) -> float:
    """Dice of two masks of one shape; of two empty ones 0, as of an organ that a network missed.

    >>> dice(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
    0.6666666865348816
    """
    return float(2 * (first & second).sum() / (first.sum() + second.sum()).clamp(min=1))


def measure(
    label: NDArray[Any],
    predicted: NDArray[Any],
    names: Mapping[int, str],
    *,
    spacing: Sequence[float],
    tolerance_mm: float,
    lost: Collection[int] = (),
) -> list[dict[str, Any]]:
    """Dice, HD95 and surface Dice of each organ of one case; the background is no organ.

    Nothing is predicted where the label map is UNKNOWN, whatever ``predicted`` says there (R33).

    Surfaces are MONAI's: the voxels of an organ with at least one of their six neighbours outside it (what is beyond
    the scan counts as outside), as points at the voxels' centres, distances in mm.  HD95 is the larger of the two
    directed 95th percentiles, interpolated linearly.  Surface Dice is the share of both surfaces' points that lie
    within ``tolerance_mm`` of the other surface; points are counted, not weighted by area.

    An organ that the case does not have is left out: all three are NaN.  An organ that was missed altogether has Dice 0
    and surface Dice 0, and its HD95 is undefined, NaN.  So has one that the case has but that resampling ``lost``,
    whatever was predicted.

    ``label`` and ``predicted`` are label maps [X, Y, Z]; ValueError where they differ in shape.  ``names`` is label
    value -> name of the organs looked at: one record each, in the order of the values, with label, organ, dice,
    hd95_mm, surface_dice (rounded to six digits), voxels_label and voxels_predicted.  ``spacing`` is in mm; ``lost``
    are the label values of organs of the case that have no voxel on this grid.

    >>> box = np.zeros((8, 8, 8), np.uint8)
    >>> box[2:6, 2:6, 2:6] = 3
    >>> moved = np.roll(box, 1, axis=0)
    >>> liver, spleen = measure(box, moved, {3: "liver", 4: "spleen"}, spacing=(1, 1, 2), tolerance_mm=0.5)
    >>> liver["dice"], liver["hd95_mm"], liver["voxels_label"], spleen["dice"]
    (0.75, 1.0, 64, nan)
    """
    if label.shape != predicted.shape:
        raise ValueError(f"the label map is {label.shape}, the prediction {predicted.shape}; give one grid")
    records, known = [], label != UNKNOWN
    for value, organ in sorted(names.items()):
        truth, guess = np.asarray(label == value), np.asarray(predicted == value) & known
        sizes = int(truth.sum()), int(guess.sum())
        if (sizes[0] or value in lost) and not all(sizes):
            scores = 0.0, math.nan, 0.0
        elif not sizes[0]:
            scores = math.nan, math.nan, math.nan
        else:
            scores = _scores(truth, guess, spacing, tolerance_mm)
        records.append(
            {
                "label": value, "organ": organ, **dict(zip(("dice", "hd95_mm", "surface_dice"), scores, strict=True)),
                "voxels_label": sizes[0], "voxels_predicted": sizes[1],
            }
        )  # fmt: skip
    return records


def _scores(
    truth: NDArray[np.bool_], guess: NDArray[np.bool_], spacing: Sequence[float], tolerance: float
) -> tuple[float, float, float]:
    """Dice, HD95 and surface Dice of two masks that are not empty."""
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    union = truth | guess  # nothing outside its box counts, and that costs less than the scan
    (box,) = ndimage.find_objects(union.view(np.uint8))
    a, b = (torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None] for mask in (guess, truth))
    mm = [float(s) for s in spacing]
    overlap = compute_dice(a, b, include_background=True)
    hd95 = compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=mm)
    surface = compute_surface_dice(a, b, [tolerance], include_background=True, spacing=mm)
    return round(float(overlap), 6), round(float(hd95), 6), round(float(surface), 6)
