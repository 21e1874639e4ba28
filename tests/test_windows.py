"""Prediction on the original scan's grid: against interpolation at world points, and on grids that are equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.preparing import back, prepared_case
from numpy.typing import NDArray
from scipy import ndimage, special
from torch import Tensor

from mixcl import windows
from mixcl.config.settings import Experiment
from mixcl.data.prepare.case import original_label
from mixcl.data.store import Case
from mixcl.errors import InputError

VALUES = (3, 7, 200)
TURN = np.array([[0.96, -0.28, 0, 0], [0.28, 0.96, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # 16 degrees
GRIDS = {
    "finer": ((31, 28, 26), np.diag([0.8, 0.9, 1.1, 1.0])),
    "coarser": ((24, 20, 18), np.diag([2.1, 1.9, 5.0, 1.0])),
    "other axes": ((26, 30, 34), np.array([[0, 0, 0.7, -20], [-1.3, 0, 0, 70], [0, -3.3, 0, 90], [0, 0, 0, 1.0]])),
    "oblique": ((25, 26, 21), TURN @ np.diag([-0.9, -1.2, 2.7, 1.0])),
}


@pytest.fixture(params=GRIDS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    shape, affine = GRIDS[request.param]
    return prepared_case(tmp_path, shape, affine)


def random_scores(case: Case, smooth: float = 1.0) -> NDArray[np.float32]:
    """Scores whose strongest class changes every few voxels."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(VALUES) + 1, *case.shape))
    return np.asarray(ndimage.gaussian_filter(noise, (0, smooth, smooth, smooth)) * 20, np.float32)


def at_world_points(case: Case, scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities [n + 1, ...] at the centres of the original voxels, by both affines and scipy."""
    to_prepared = np.linalg.inv(case.affine) @ case.source_affine
    voxels = np.indices(case.source_shape).reshape(3, -1)
    points = to_prepared[:3, :3] @ voxels + to_prepared[:3, 3:]
    probabilities = special.softmax(scores.astype(np.float64), axis=0)
    flat = [ndimage.map_coordinates(p, points, order=1, mode="nearest") for p in probabilities]
    return np.stack(flat).reshape(-1, *case.source_shape)


def test_labels_are_those_of_probabilities_at_world_points(case: Case) -> None:
    scores = random_scores(case)
    ours = windows.original_labels(torch.from_numpy(scores), back(case), VALUES)
    expected = at_world_points(case, scores)
    first, second = np.sort(expected, axis=0)[[-1, -2]]
    clear = first - second > 1e-4  # case.json has affines of six decimals
    assert clear.mean() > 0.99
    assert ours.shape == case.source_shape
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours[clear], np.array([0, *VALUES])[expected.argmax(0)][clear])
    assert len(np.unique(ours)) == 4


def test_it_is_probabilities_that_are_carried_not_labels(tmp_path: Path) -> None:
    """Halfway between two classes lies where their probabilities cross, not where the nearest voxel changes."""
    case = prepared_case(tmp_path, (30, 20, 20), np.diag([1.0, 1.0, 1.0, 1.0]), spacing=(10.0, 1.0, 1.0))
    scores = torch.zeros(2, 3, 20, 20)  # centres at 4.5, 14.5 and 24.5 mm
    scores[1, :, :, :] = torch.tensor([-1.0, -1.0, 9.0])[:, None, None]
    line = windows.original_labels(scores, back(case), (5,))[:, 10, 10]
    p = special.expit([-1.0, 9.0])
    crossing = 14.5 + 10 * (0.5 - p[0]) / (p[1] - p[0])
    np.testing.assert_array_equal(line, np.where(np.arange(30) > crossing, 5, 0))
    assert (line != back(case).nearest(windows.strongest_labels(scores, (5,)))[:, 10, 10]).any()


def test_blocks_are_of_no_consequence(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.from_numpy(random_scores(case))
    whole = windows.original_labels(scores, back(case), VALUES)
    held: list[int] = []
    strongest = windows._strongest

    def counted(probabilities: Tensor, lines: tuple[windows.Line, windows.Line, windows.Line]) -> Tensor:
        held.append(max(probabilities.numel(), int(np.prod([len(low) for low, _, _ in lines]))))
        return strongest(probabilities, lines)

    monkeypatch.setattr(windows, "_strongest", counted)
    monkeypatch.setattr(windows, "BLOCK", 6_000)
    np.testing.assert_array_equal(windows.original_labels(scores, back(case), VALUES), whole)
    assert len(held) > 2
    assert max(held) <= 6_000 + 2 * scores[..., 0].numel()  # the slices that it shares with its neighbours


@pytest.mark.parametrize("affine", [np.diag([1.5, 1.5, 2, 1]), np.diag([-1.5, 1.5, -2, 1])])
def test_equal_grids_give_equal_labels(affine: NDArray[np.float64], tmp_path: Path) -> None:
    """Of scores that differ by one unit in the last place, too."""
    case = prepared_case(tmp_path, (20, 22, 24), affine)
    scores = torch.from_numpy(random_scores(case, smooth=0.0))
    scores[1] = torch.nextafter(scores[2], torch.tensor(torch.inf))
    labels = windows.strongest_labels(scores, VALUES)
    flipped = tuple(slice(None, None, -1 if edge < 0 else 1) for edge in np.diag(affine)[:3])
    np.testing.assert_array_equal(windows.original_labels(scores, back(case), VALUES)[flipped], labels)
    np.testing.assert_array_equal(back(case).nearest(labels)[flipped], labels)
    np.testing.assert_array_equal(original_label(case)[flipped], case.label())


def test_scores_that_are_no_numbers_are_refused(smoke: Experiment) -> None:
    """Their highest would be the background."""
    net = torch.nn.Conv3d(1, 2, 1)
    torch.nn.init.constant_(net.bias, float("nan"))
    with pytest.raises(InputError, match="no finite numbers"):
        windows.window_scores(net, np.zeros((40, 40, 40), np.float32), smoke)
