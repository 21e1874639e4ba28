"""What a qualitative figure shows, as the paper's Fig. 3: cases and slices chosen by rule, not by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixcl.config import Experiment
from mixcl.data.store import Case, Store
from mixcl.results import Runs, read_runs
from mixcl.tables import origin, title

RULE = "Of all axial slices of the test cases with a labelled organ, the one is shown on which the arms differ most"
RULE_ONE_ARM = "Of all axial slices of the test cases, the one with most labelled voxels is shown"


class Picture(NamedTuple):
    """A scan, its label map and what was predicted, all on one RAS+ grid [X, Y, Z].

    ``image`` in HU; ``spacing`` in mm; ``names`` label value -> organ; ``predictions`` by arm; ``z``
    the axial slice to show, None is what :func:`choose_slice` gives.
    """

    image: NDArray[Any]
    label: NDArray[Any]
    spacing: Sequence[float]
    names: Mapping[int, str]
    predictions: Mapping[str, NDArray[Any]] = {}
    title: str = ""
    z: int | None = None


def choose_slice(label: NDArray[Any], predictions: Iterable[NDArray[Any]] = ()) -> int:
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


def difference(predictions: Iterable[NDArray[Any]]) -> NDArray[np.bool_]:
    """Where label maps are not all the same; bool [X, Y, Z]."""
    first, *others = predictions
    different = np.zeros(first.shape, bool)
    for other in others:
        different |= np.asarray(first != other)
    return different


def qualitative(config: Experiment, out: Path) -> tuple[list[Picture], str]:
    """One picture for each fine-tuning task that is evaluated, and what to say below them.

    Of a task the runs with most arms, then most labels, then the lowest fold and seed are taken; of their
    test cases the one on whose chosen slice the arms differ in most voxels (with one arm: most are labelled).

    Raises
    ------
    InputError
        Nothing is evaluated, or what an evaluation left is missing or damaged.
    """
    runs = read_runs(out)
    store = Store(config.data.store_dir(out), settings=config.data)
    pictures, used = [], []
    for task in dict.fromkeys(runs.cases["task"]):
        chosen = _chosen_runs(runs, task)
        used.append(chosen)
        cases = {case.id: case for case in store.cases(task)}
        percent, fold = chosen["percent"].iloc[0], chosen["fold"].iloc[0]
        told = f"{title(task)}, {percent:g} % of labels, fold {fold}"
        jobs = {arm: out / "runs" / job for arm, job in zip(chosen["arm"], chosen["job"], strict=True)}
        pictures.append(_picture(jobs, [cases[name] for name in dict.fromkeys(chosen["case"])], told))
    rows = pd.concat(used)
    rule = RULE if rows.groupby("task")["arm"].nunique().max() > 1 else RULE_ONE_ARM
    return pictures, f"{rule}. {origin(runs, rows)}"


def _chosen_runs(runs: Runs, task: str) -> pd.DataFrame:
    """The rows of the runs of one share, fold and seed that have most arms."""
    groups = runs.cases[runs.cases["task"] == task].groupby(["percent", "fold", "seed"])
    ranked = [
        ((rows["arm"].nunique(), rows["percent"].iloc[0], -rows["fold"].iloc[0], -rows["seed"].iloc[0]), rows)
        for _, rows in groups
    ]
    return max(ranked, key=lambda one: one[0])[1]


def _picture(jobs: Mapping[str, Path], cases: Sequence[Case], told: str) -> Picture:
    from mixcl.evaluate import read_prediction

    best: tuple[int, Picture] | None = None
    for case in cases:
        predictions = {arm: read_prediction(job, case.id) for arm, job in jobs.items()}
        label = case.label()
        index = choose_slice(label, predictions.values())
        if len(predictions) > 1:
            size = int(difference(p[..., index] for p in predictions.values()).sum())
        else:
            size = int(np.count_nonzero(label[..., index]))
        if best is None or size > best[0]:
            where = f"{told}\ncase {case.id}, slice {index}"
            best = (
                size,
                Picture(case.image(), label, case.spacing, case.names, predictions, where, index),
            )
    if best is None:
        raise ValueError("no case to show")
    return best[1]
