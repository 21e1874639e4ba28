"""A job and its evaluation gone over again: test cases, predicted maps, metrics."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mixcl.config.settings import Experiment
from mixcl.data.splits import seen_before
from mixcl.data.store import Case, Store
from mixcl.errors import InputError
from mixcl.files import read_sealed, sha256
from mixcl.results.runs import COUNTS
from mixcl.results.statistics import METRICS
from mixcl.run.jobs import Job
from mixcl.run.record import deciding, prediction_file

ROUNDING = 2e-6
"""By which a metric of six decimals may differ where another processor measures it again."""
MARKS = ("grid", "tolerance_mm")
Measure = Callable[[Experiment, Path, Case], Iterable[Mapping[Any, Any]]]


@dataclass(frozen=True)
class Run:
    """A job and what is known of it: its own settings, its folder, its card, the store that it is of."""

    job: Job
    config: Experiment
    path: Path
    card: Mapping[str, Any]
    store: Store | None

    @property
    def prepared(self) -> Store:
        """The store, of which there has to be one."""
        if self.store is None:
            raise InputError("there is no store of prepared scans")
        return self.store


def tested_cases(run: Run) -> list[Case]:
    """The test cases of a fine-tuning that are prepared, in an order that no name decides."""
    try:
        prepared = run.prepared.cases(str(run.card.get("task")))
    except InputError:  # which the data's own checks tell
        return []
    cases = [case for case in prepared if case.id in run.card.get("test", ())]
    return sorted(cases, key=lambda case: hashlib.sha256(f"{run.job.name}/{case.id}".encode()).digest())


def case_faults(run: Run, rows: pd.DataFrame) -> Iterator[str]:
    """cases.csv against the record that evaluation keeps of each case, and that against weights, store and maps."""
    settings, tested = deciding(run.config, "evaluate")["evaluate"], tested_cases(run)
    prepared = {case.id: case for case in tested}
    seen = dict(zip(prepared, seen_before(run.config, run.store, run.card, tested), strict=True))
    for name, part in rows.groupby("case"):
        case, written = prepared.get(str(name)), {row["label"]: row for row in part.to_dict("records")}
        if case is None:
            yield f"{name} is not prepared"
            continue
        try:
            evaluated, kept = _evaluated(run, case)
            of, map_id = evaluated["of"], evaluated["labels"]
            if written.keys() != kept.keys() or any(_differ(written[k], kept[k], 0.0) for k in kept):
                yield f"{name} differs"
            if any(row["organ"] != case.names[label] for label, row in written.items()):
                yield f"{name} has other names of organs"
            if of["weights"] != run.card.get("weights") or of["evaluate"] != settings:
                yield f"{name} is of other weights or settings"
            if of["content"] != list(case.content) or of["spacing"] != list(case.spacing):
                yield f"{name} is of another prepared scan"
            if of["source"] != case.source.label_sha256:
                yield f"{name} is of another original label map"
            marks = {"pretrained_on": seen[case.id], **{key: settings[key] for key in MARKS}}
            if other := [key for key in marks if any(row[key] != marks[key] for row in written.values())]:
                yield f"{name} has another {other[0]}"
            if map_id != sha256(prediction_file(run.path, case.id, ".npz")):
                yield f"{name}.npz is another map"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            yield f"no record of {name}"


def _evaluated(run: Run, case: Case) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """What evaluation keeps of a case, and of it the rows by label."""
    evaluated = read_sealed(prediction_file(run.path, case.id, ".json"))
    return evaluated, {row["label"]: row for row in evaluated["rows"]}


def metric_faults(run: Run, cases: Sequence[Case], measure: Measure) -> Iterator[str]:
    """Test cases whose metrics are others when they are measured again from predicted map and label."""
    for case in cases:
        try:
            kept = _evaluated(run, case)[1]
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # MONAI's, of its own calls
                again = {row["label"]: row for row in measure(run.config, run.path, case)}
            if kept.keys() != again.keys() or any(_differ(kept[k], again[k], ROUNDING) for k in again):
                yield f"{case.id} has other metrics"
        except InputError as error:
            yield str(error)
        except (OSError, ValueError, KeyError, TypeError):
            yield f"no record of {case.id}"


def _differ(kept: Mapping[Any, Any], row: Mapping[Any, Any], by: float) -> bool:
    """Whether two rows have other metrics or voxels."""
    first, second = (np.array([of[key] for key in (*METRICS, *COUNTS)], dtype=float) for of in (kept, row))
    return not np.allclose(first, second, rtol=0, atol=by, equal_nan=True)
