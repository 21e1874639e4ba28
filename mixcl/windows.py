"""Sliding-window prediction: the scores of a whole scan, and its labels on the prepared grid or the original one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mixcl.config.settings import Experiment
from mixcl.data.source import Placed, WayBack, way_back
from mixcl.data.store import Case
from mixcl.labels import UNKNOWN
from mixcl.metrics import class_indices, class_values
from mixcl.run.device import forward

BLOCK = 2**22
"""Numbers of a block, about 34 MB; a handful of them are held at a time."""


@torch.no_grad()
def window_scores(net: nn.Module, volume: NDArray[Any] | Tensor, config: Experiment) -> Tensor:
    """Score a whole scan window by window; windows overlap and are weighted by a Gaussian.

    Parameters
    ----------
    net
        A segmentation network, [B, 1, E, E, E] -> [B, n + 1, E, E, E] with the background first.
    volume
        [X, Y, Z], intensities in [0, 1]; may be smaller than a window and is then padded with 0, the lower
        end of the intensity window, as patches are.
    config
        ``model.patch`` is the window, ``evaluate.overlap`` and ``evaluate.windows`` how it moves.

    Returns
    -------
    float32 [n + 1, X, Y, Z] on the network's device, before any softmax.
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
    whole: Tensor = scores[0]
    return whole


def strongest_labels(scores: Tensor, values: Iterable[int]) -> NDArray[np.uint8]:
    """The label of the highest score of every voxel: uint8 [X, Y, Z], 0 is the background.

    Raises
    ------
    ValueError
        ``values`` are not as many as there are classes beside the background.
    """
    classes = np.array(class_values(values), np.uint8)
    if len(classes) != len(scores):
        raise ValueError(f"{len(classes) - 1} label values for a network with {len(scores) - 1} classes")
    labels: NDArray[np.uint8] = classes[scores.argmax(0).cpu().numpy()]
    return labels


@torch.no_grad()
def look(net: nn.Module, cases: Sequence[Case], config: Experiment, names: Mapping[int, str]) -> dict[str, Any]:
    """How good a network is that is being trained; nothing of the training depends on it.

    ``dice``: by organ, the mean over the cases that have it; ``cross_entropy``: the mean over cases of the mean over
    known voxels, without weights.  Both tell networks apart before an organ is found, where a mean of Dice cannot.
    """
    dice: dict[str, list[float]] = {}
    entropies = []
    for case in cases:
        scores = window_scores(net, scaled(case.image(), config.data.hu), config)
        target = class_indices(torch.as_tensor(np.array(case.label())), names).to(scores.device)
        entropies.append(float(nn.functional.cross_entropy(scores[None], target[None], ignore_index=UNKNOWN)))
        found = scores.argmax(0).masked_fill(target == UNKNOWN, UNKNOWN)
        for k, value in enumerate(class_values(names)[1:], start=1):
            both, size = ((found == k) & (target == k)).sum(), (found == k).sum() + (target == k).sum()
            if (target == k).any() or value in case.source.lost:
                dice.setdefault(names[value], []).append(float(2 * both / size.clamp(min=1)))
    means = {organ: round(float(np.mean(values)), 4) for organ, values in dice.items()}
    return {"dice": means, "cross_entropy": round(float(np.mean(entropies)), 5)}


def scaled(image: NDArray[np.int16], hu: Sequence[float]) -> NDArray[np.float32]:
    """A whole prepared scan, float32 [X, Y, Z], the window ``hu`` scaled to [0, 1] as in patches."""
    parts = np.subtract(image, np.float32(hu[0]), dtype=np.float32)
    parts /= np.float32(hu[1] - hu[0])
    return np.clip(parts, 0.0, 1.0, out=parts)


@torch.no_grad()
def original_labels(scores: Tensor, case: Placed, values: Iterable[int]) -> NDArray[np.uint8]:
    """The most probable label of every voxel of the original scan.

    Each class's probability, the softmax of its scores, is interpolated linearly between the centres of the prepared
    voxels; beyond the outermost centres (half a voxel) it goes on as it is there.  A block of slices and a class at a
    time, in float64: where both grids are equal the labels are those of the highest score.

    Parameters
    ----------
    scores
        [n + 1, X, Y, Z], of a case's prepared grid, the background first; any device.
    case
        Whose grids these are.
    values
        The label values of the classes, see :func:`mixcl.metrics.class_values`.

    Returns
    -------
    uint8, ``case.source_shape``, in the axes of the original file; 0 is background.
    """
    back, classes = way_back(case), np.array(class_values(values), np.uint8)
    lines = [_neighbours(at, scores.device) for at in back.positions]
    labels = np.empty(back.shape, np.uint8)
    for start, stop in _blocks(back, tuple(scores.shape)):
        (low, high, weight), first = lines[2], int(lines[2][0][start])
        part = torch.softmax(scores[..., first : int(high[stop - 1]) + 1].double(), 0)
        block = (low[start:stop] - first, high[start:stop] - first, weight[start:stop])
        labels[..., start:stop] = classes[_strongest(part, (lines[0], lines[1], block)).cpu().numpy()]
    return back.turned(labels)


Line = tuple[Tensor, Tensor, Tensor]


def _neighbours(at: NDArray[np.float64], device: torch.device) -> Line:
    """Of positions on an axis: the voxel below, the one above, and the weight of the latter."""
    low = np.floor(at).astype(np.int64)
    return (
        torch.from_numpy(low).to(device),
        torch.from_numpy(np.ceil(at).astype(np.int64)).to(device),
        torch.from_numpy(at - low).to(device),
    )


def _blocks(back: WayBack, shape: tuple[int, ...]) -> Iterable[tuple[int, int]]:
    """Runs of slices of the original scan whose voxels, and whose scores of all classes, are at most a block."""
    x, y, z = back.shape
    thickness = shape[3] / z  # a slice, in prepared ones
    step = max(1, int(BLOCK / max(x * y, shape[0] * shape[1] * shape[2] * thickness)))
    return ((start, min(start + step, z)) for start in range(0, z, step))


def _strongest(probabilities: Tensor, lines: tuple[Line, Line, Line]) -> Tensor:
    """Index, uint8 [x, y, z], of the class [n, X, Y, Z] that is the most probable at the points of three axes."""
    x, y, z = (len(low) for low, _, _ in lines)
    best = torch.zeros((x, y, z), dtype=probabilities.dtype, device=probabilities.device)
    strongest = torch.zeros((x, y, z), dtype=torch.uint8, device=probabilities.device)
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
