"""Sliding-window prediction: the scores of a whole scan, and its labels on the prepared grid or the original one."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mixcl.config.settings import Experiment
from mixcl.data.files.grid import WayBack
from mixcl.data.patches import scaled
from mixcl.data.store import Case
from mixcl.errors import InputError
from mixcl.labels import UNKNOWN
from mixcl.metrics import class_indices, class_values, dice
from mixcl.run.device import forward

BLOCK = 2**22  # numbers of a block, about 34 MB; a handful of them are held at a time
Line = tuple[Tensor, Tensor, Tensor]


@torch.no_grad()
def window_scores(net: nn.Module, volume: NDArray[Any] | Tensor, config: Experiment) -> Tensor:
    """Score a whole scan window by window; windows overlap and are weighted by a Gaussian.

    ``net`` makes [B, n + 1, E, E, E] of [B, 1, E, E, E], with the background first.  ``volume`` is [X, Y, Z] in [0, 1];
    smaller than a window it is padded with 0, as patches are.  float32 [n + 1, X, Y, Z] comes back, on the network's
    device, before any softmax.  ``model.patch`` is the window, ``evaluate.overlap`` and ``evaluate.windows`` how it
    moves.  Raises `InputError` for scores that are not finite.
    """
    from monai.inferers import sliding_window_inference

    device = next(net.parameters()).device
    training = net.training
    net.eval()
    try:
        scores: Any = sliding_window_inference(
            torch.as_tensor(np.ascontiguousarray(volume), dtype=torch.float32, device=device)[None, None],
            roi_size=(config.model.patch,) * 3,
            sw_batch_size=config.evaluate.windows,
            predictor=lambda x: forward(net, x, config.model).float(),
            overlap=config.evaluate.overlap,
            mode="gaussian",
        )
    finally:
        net.train(training)
    if not scores.isfinite().all():  # whose highest would be the background
        raise InputError("the network's scores are no finite numbers; set run.precision=no, or use another network")
    return cast(Tensor, scores[0])


def strongest_labels(scores: Tensor, values: Iterable[int]) -> NDArray[np.uint8]:
    """The label of each voxel's highest score, 0 or one of ``values``, one a class or ValueError: uint8 [X, Y, Z]."""
    classes = np.array(class_values(values), np.uint8)
    if len(classes) != len(scores):
        raise ValueError(f"{len(classes) - 1} label values for a network with {len(scores) - 1} classes")
    return cast(NDArray[np.uint8], classes[scores.argmax(0).cpu().numpy()])


@torch.no_grad()
def measure_test(net: nn.Module, cases: Sequence[Case], config: Experiment, names: Mapping[int, str]) -> dict[str, Any]:
    """How good a network is that is being trained; nothing of the training depends on it.

    ``dice``: by organ, the mean over the cases that have it; ``cross_entropy``: the mean over cases of the mean over
    known voxels, without weights.  Both tell networks apart before an organ is found, where a mean of Dice cannot.
    """
    overlaps: dict[str, list[float]] = {}
    entropies = []
    for case in cases:
        scores = window_scores(net, scaled(case.image(), config.data.hu), config)
        target = class_indices(torch.as_tensor(np.array(case.label())), names).to(scores.device)
        entropies.append(float(nn.functional.cross_entropy(scores[None], target[None], ignore_index=UNKNOWN)))
        predicted = scores.argmax(0).masked_fill(target == UNKNOWN, UNKNOWN)
        for k, value in enumerate(class_values(names)[1:], start=1):
            if (target == k).any() or value in case.source.lost:
                overlaps.setdefault(names[value], []).append(dice(predicted == k, target == k))
    means = {organ: round(float(np.mean(values)), 4) for organ, values in overlaps.items()}
    return {"dice": means, "cross_entropy": round(float(np.mean(entropies)), 5)}


@torch.no_grad()
def original_labels(scores: Tensor, back: WayBack, values: Iterable[int]) -> NDArray[np.uint8]:
    """The most probable label of every voxel of the original scan.

    Each class's probability, the softmax of its scores, is interpolated linearly between the centres of the prepared
    voxels; beyond the outermost centres (half a voxel) it goes on as it is there.  A block of slices and a class at a
    time, in float64: where both grids are equal the labels are those of the highest score.

    ``scores`` [n + 1, X, Y, Z], the background first, are of the prepared grid that ``back`` leads from; the
    labels, uint8, have the voxels and the axes of the original file.
    """
    classes = np.array(class_values(values), np.uint8)
    first_line, second_line, (low, high, weight) = (_neighbours(at, scores.device) for at in back.positions)
    x, y, z = map(len, back.positions)
    labels = np.empty((x, y, z), np.uint8)
    step = max(1, int(BLOCK / max(x * y, math.prod(scores.shape[:3]) * (scores.shape[3] / z))))
    for start in range(0, z, step):
        stop, first = min(start + step, z), int(low[start])
        part = torch.softmax(scores[..., first : int(high[stop - 1]) + 1].double(), 0)
        block = (low[start:stop] - first, high[start:stop] - first, weight[start:stop])
        labels[..., start:stop] = classes[_strongest(part, (first_line, second_line, block)).cpu().numpy()]
    return back.turned(labels)


def _neighbours(at: NDArray[np.float64], device: torch.device) -> Line:
    """Of positions on an axis: the voxel below, the one above, and the weight of the latter."""
    low, high = np.floor(at).astype(np.int64), np.ceil(at).astype(np.int64)
    below, above, weight = (torch.from_numpy(part).to(device) for part in (low, high, at - low))
    return below, above, weight


def _strongest(probabilities: Tensor, lines: tuple[Line, Line, Line]) -> Tensor:
    """Index, uint8 [x, y, z], of the class [n, X, Y, Z] that is the most probable at the points of three axes."""
    best = torch.zeros([len(low) for low, _, _ in lines], dtype=probabilities.dtype, device=probabilities.device)
    strongest = torch.zeros_like(best, dtype=torch.uint8)
    for index, part in enumerate(probabilities):
        if part.max() * len(probabilities) < 0.99:  # less than an equal share everywhere: never the most probable
            continue
        for axis in (2, 1, 0):
            low, high, weight = lines[axis]
            shape = [-1 if k == axis else 1 for k in range(3)]
            part = torch.lerp(part.index_select(axis, low), part.index_select(axis, high), weight.view(shape))
        strongest.masked_fill_(part > best, index)
        torch.maximum(best, part, out=best)
    return strongest
