"""What a qualitative figure shows, as the paper's Fig. 3: cases and slices chosen by rule, not by hand."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixcl.config.settings import Experiment
from mixcl.data.store import Case, Store
from mixcl.figures.ct import Array
from mixcl.results.runs import Runs, read_runs
from mixcl.results.wording import origin, title
from mixcl.run.jobs import FULL, SCRATCH

RULE = (
    "Of all axial slices with a labelled organ in the test cases of all folds, the one is shown on which {first} and "
    "{last} differ in most voxels. The box, a third of the slice's shorter side, is where exactly one of the two is "
    "right in most voxels, whichever of them"
)
RULE_ONE_ARM = "Of all axial slices of the test cases, the one with most labelled voxels is shown"
BOX = 3  # the box's edge is the slice's shorter side divided by this


class Picture(NamedTuple):
    """A scan, its label map and what was predicted, all on one RAS+ grid [X, Y, Z].

    ``image`` in HU; ``spacing`` in mm; ``names`` label value -> organ; ``predictions`` by arm; ``z``
    the axial slice to show, None is what :func:`choose_slice` gives; ``box`` what is shown enlarged, its
    first voxel (x, y) and its edge in voxels.
    """

    image: Array
    label: Array
    spacing: Sequence[float]
    names: Mapping[int, str]
    predictions: Mapping[str, Array] = {}
    title: str = ""
    z: int | None = None
    box: tuple[int, int, int] | None = None


def choose_slice(label: Array, predictions: Iterable[Array] = ()) -> int:
    """Of the axial slices with a label, that on which the predictions differ in most voxels.

    Where they do not differ, or are not given, it is the slice with most labelled voxels; the lowest of equal ones.

    >>> label = np.zeros((4, 4, 5), np.uint8)
    >>> label[1:3, 1:3, 3] = 1
    >>> choose_slice(label), choose_slice(label, [label, np.roll(label, -1, axis=2)])
    (3, 3)
    """
    labelled = np.asarray(label > 0).sum(axis=(0, 1))
    given = list(predictions)
    counts = difference(given).sum(axis=(0, 1)) * (labelled > 0) if given else np.zeros_like(labelled)
    return int(counts.argmax() if counts.any() else labelled.argmax())


def difference(predictions: Iterable[Array]) -> NDArray[np.bool_]:
    """Where label maps are not all the same; bool [X, Y, Z]."""
    first, *others = predictions
    return np.any([first != other for other in others or [first]], axis=0)


def choose_box(label: Array, first: Array, last: Array) -> tuple[tuple[int, int, int], int, int]:
    """The square of a slice [X, Y] in which exactly one of two predictions is right in most voxels.

    Its edge is the slice's shorter side divided by `BOX`; of equal squares the one with the lowest x, then y.
    Returned are (x, y, edge), and in how many of its voxels only ``first`` and only ``last`` is right.

    >>> label = np.zeros((9, 9), int)
    >>> wrong = label.copy()
    >>> wrong[4:6, 7] = 1
    >>> choose_box(label, wrong, label)
    ((3, 5, 3), 0, 2)
    """
    edge = max(min(label.shape) // BOX, 1)
    one_right = (first == label) ^ (last == label)
    counts = np.lib.stride_tricks.sliding_window_view(one_right, (edge, edge)).sum(axis=(2, 3))
    x, y = (int(i) for i in np.unravel_index(counts.argmax(), counts.shape))
    inside = (slice(x, x + edge), slice(y, y + edge))
    only_first = int((one_right & (first == label))[inside].sum())
    return (x, y, edge), only_first, int(counts.max()) - only_first


def qualitative(config: Experiment, out: Path) -> tuple[list[Picture], str]:
    """One picture for each task of the ablation that is evaluated, as Fig. 3, and what to say below them.

    Arms are those of Table 2 in its order; a task of which nothing is evaluated there shows its largest share.

    Raises
    ------
    InputError
        Nothing is evaluated, or what an evaluation left is missing or damaged.
    """
    runs, store = read_runs(out), Store(config.data.store_dir(out), settings=config.data)
    order = [SCRATCH, *config.grid.variants, FULL]
    pictures, boxes, used = [], "", []
    for task in dict.fromkeys(runs.cases["task"]):
        rows = _chosen_runs(runs, task, config.grid.ablation.get(task))
        cases = {case.id: case for case in store.cases(task)}
        name = f"{title(task)}, {rows['percent'].iloc[0]:g} %"
        picture, box = _best(rows, _ordered(rows, order), cases, out / "runs", name)
        pictures.append(picture)
        boxes += f" {name}: {box}" if box else ""
        used.append(rows)
    rows = pd.concat(used)
    arms = _ordered(rows, order)
    rule = RULE.format(first=arms[0], last=arms[-1]) if len(arms) > 1 else RULE_ONE_ARM
    return pictures, f"{rule}.{boxes} {origin(runs, rows)}"


def _ordered(rows: pd.DataFrame, order: Sequence[str]) -> list[str]:
    """The arms of rows as they are ordered, any others after them by name."""
    return sorted(set(rows["arm"]), key=lambda arm: (order.index(arm) if arm in order else len(order), arm))


def _chosen_runs(runs: Runs, task: str, percent: float | None) -> pd.DataFrame:
    """The rows of one share, the ablation's or that with most arms, then the largest; and of the lowest seed."""
    rows = runs.cases[runs.cases["task"] == task]
    arms = rows.groupby("percent")["arm"].nunique()
    share = percent if percent in arms.index else max(arms.index, key=lambda p: (arms[p], p))
    rows = rows[rows["percent"] == share]
    return rows[rows["seed"] == rows["seed"].min()]


def _best(
    rows: pd.DataFrame, arms: Sequence[str], cases: Mapping[str, Case], runs: Path, name: str
) -> tuple[Picture, str]:
    """The picture of the case and slice that the rule names, with its box, and what that holds."""
    from mixcl.evaluate import read_prediction  # which imports torch

    best, largest = None, (False, -1)
    for (fold, case), part in rows.groupby(["fold", "case"]):
        jobs = dict(zip(part["arm"], part["job"], strict=True))
        predictions = {arm: read_prediction(runs / jobs[arm], str(case)) for arm in arms if arm in jobs}
        scan, ends = cases[str(case)], _ends(predictions, arms)
        index = choose_slice(scan.label(), ends)
        counted = difference(p[..., index] for p in ends) if ends else scan.label()[..., index]
        size = (bool(ends), int(np.count_nonzero(counted)))  # a case that only one arm has comes last
        if size > largest:
            where, largest = f"{name}, fold {fold}\ncase {case}, slice {index}", size
            best = Picture(scan.image(), scan.label(), scan.spacing, scan.names, predictions, where, index)
    assert best is not None  # a task has evaluated cases
    if not largest[0]:
        return best, ""
    first, last = (prediction[..., best.z] for prediction in _ends(best.predictions, arms))
    box, only_first, only_last = choose_box(best.label[..., best.z], first, last)
    text = f"in the box only {arms[0]} is right in {only_first} voxels, only {arms[-1]} in {only_last}."
    return best._replace(box=box), text


def _ends(predictions: Mapping[str, Array], arms: Sequence[str]) -> list[Array]:
    """What the first and the last arm predicted; nothing where one of them is not there or there is one alone."""
    ends = [predictions[arm] for arm in dict.fromkeys((arms[0], arms[-1])) if arm in predictions]
    return ends if len(ends) == 2 else []
