"""Is a run what it should be?  Its own parts against each other, and its numbers against committed ones.

``reproduce/expected/<profile>.json`` holds the Dice of every fold, the weights of every job, and what decided the
bits when they were made.  Where a run has the same of the latter, numbers must be equal to the bit; elsewhere the
mean over folds of a cell must lie within the stated tolerance.  The profile ``paper`` is compared with the paper.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.files import read_json, write_json
from mixcl.results.paper import TABLE1
from mixcl.results.runcard import read_run_card
from mixcl.results.runs import Runs, read_runs
from mixcl.results.statistics import fold_scores
from mixcl.results.verify import files, jobs
from mixcl.results.verify.cases import Measure
from mixcl.results.verify.verdict import Check as Check
from mixcl.results.verify.verdict import report as report
from mixcl.results.verify.verdict import same
from mixcl.run import determinism
from mixcl.run.jobs import all_jobs, finetune_job, finetunings, table1_cells
from mixcl.run.record import numbers, read_card

EXPECTED = Path(__file__).resolve().parents[3] / "reproduce" / "expected"
PAPER_TOLERANCE = 0.03  # Dice, of a cell's mean over folds; our choice, the paper gives no spread


class _Expected(BaseModel):
    """What a file of expected values must hold."""

    model_config = ConfigDict(extra="allow", strict=True)

    bits: dict[str, Any]
    settings: dict[str, Any]
    spread: float | None
    data: dict[str, str]
    dice: dict[str, float]
    weights: dict[str, str]


def verify(
    config: Experiment, out: Path, expected: Path | None = None, *, measure: Measure, full: bool = False
) -> list[Check]:
    """Compare a finished run with what is expected of its profile, and go over each of its own links again.

    ``expected`` is a file of expected values; None is the one committed for the profile, or the paper for ``paper``.
    Predictions are measured again by ``measure``, which is `mixcl.evaluate.measured_again`.  With ``full`` all scans
    are hashed and all predictions measured again, not a sample.  Raises `InputError` where
    there is nothing to compare with, or the file of expected values or RUN.json is missing or damaged.
    """
    if expected is None and config.profile.startswith("paper"):
        folds, checks = _own_parts(config, out, full, measure)
        planned = [cell for cell in table1_cells(config) if cell[:2] in TABLE1]
        means = {_cell(finetune_job(*cell, 0, 0)): getattr(TABLE1[cell[:2]], cell[2]) for cell in planned}
        return checks + _near(folds, means, PAPER_TOLERANCE)
    values = read_expected(expected or EXPECTED / f"{config.profile}.json")
    folds, checks = _own_parts(config, out, full, measure)
    why = "; ".join(_reasons(config, out, values))
    if not why:
        return checks + _equal(folds, values, out)
    if values["spread"] is None:
        raise InputError(
            f"this run does not promise the expected bits ({why}), and no tolerance was measured; "
            "run it with reproduce/run_all.sh on an x86-64 processor with AVX2"
        )
    note = f"within tolerance only, because {why}"
    return checks + _near(folds, _means(values["dice"]), 2 * float(values["spread"]), note)


def write_expected(
    config: Experiment, out: Path, to: Path, others: Sequence[Path] = (), *, measure: Measure
) -> dict[str, Any]:
    """Write the values of a finished run for others to be compared with.

    ``others`` are folders of the same profile run where the bits differ (another instruction set, say): the largest
    difference of a cell's mean between them and this run is the spread, and twice that the tolerance where bits differ.
    Without any, the spread that ``to`` holds is kept.  ``measure`` as of :func:`verify`.  Raises `InputError` where the
    run does not hold together, is not complete, or has other cells than one of the others.
    """
    folds, checks = _own_parts(config, out, False, measure)
    if wrong := [check for check in checks if not check.holds and not check.what.startswith("code of")]:
        raise InputError(f"{out}: {wrong[0].what} is {wrong[0].actual}, not {wrong[0].expected}; finish the run first")
    means, theirs = _means(folds), {other: _means(_folds(read_runs(other, config))) for other in others}
    for other, of in theirs.items():
        if unlike := sorted(means.keys() ^ of.keys()):
            raise InputError(f"{other}: {unlike[0]} is in it or in {out} alone; give whole runs of one profile")
    spreads = [abs(means[cell] - mean) for of in theirs.values() for cell, mean in of.items()]
    card = read_run_card(out)
    before = read_expected(to) if to.is_file() and not others else {}
    values = {
        "profile": config.profile,
        "commit": card["commit"],
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "bits": read_card(out / "runs" / all_jobs(config)[0].name)["bits"],
        "settings": numbers(config),
        "spread": round(max(spreads), 4) if spreads else before.get("spread"),
        "spread_runs": len(others) if spreads else before.get("spread_runs", 0),
        "data": {name: collection["fingerprint"] for name, collection in card["data"].items()},
        "dice": dict(sorted(folds.items())),
        "weights": {
            name: read_card(out / "runs" / name)["weights"] for name in sorted(job.name for job in all_jobs(config))
        },
    }
    write_json(to, values)
    return values


def read_expected(path: Path) -> dict[str, Any]:
    """The file of expected values, whole; see :func:`write_expected`."""
    try:
        values = read_json(path)
        _Expected.model_validate(values)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no expected values for this profile; make them of a finished run with "
            f"mixcl verify --profile ... --out ... --write {path}"
        ) from None
    except (OSError, ValueError):
        raise InputError(f"{path}: damaged; take the committed file again (git checkout {path.name})") from None
    return values


def _other_settings(config: Experiment, expected: dict[str, Any]) -> list[str]:
    """Names of settings that are not as expected; one that is younger than these has to be at its default."""
    mine, before = numbers(config), {**numbers(Experiment()), **expected}
    changed = [name for name, value in mine.items() if value != before.get(name)]
    return sorted(changed + [name for name in expected if name not in mine])


def _own_parts(config: Experiment, out: Path, full: bool, measure: Measure) -> tuple[dict[str, float], list[Check]]:
    """Dice of every fold, and whether scans, jobs, tables and the run card follow from each other."""
    card, runs = read_run_card(out), read_runs(out, config)
    folds = _folds(runs)
    missing = [job.name for job in finetunings(config) if job.name not in folds]
    checks = [Check(f"run {job}", "evaluated", "missing", False, job) for job in missing]
    checks += files.scans(config.data, out, card, full)
    checks += jobs.jobs(config, out, runs, full, measure)
    return folds, [*checks, *files.tables(config, out), *files.card(config, out, card)]


def _folds(runs: Runs) -> dict[str, float]:
    """Dice of every fold from its cases, by the job."""
    scores = fold_scores(runs.cases)
    return dict(zip(scores["job"], scores["dice"].astype(float), strict=True))


def _reasons(config: Experiment, out: Path, values: dict[str, Any]) -> list[str]:
    """Why this run does not promise the expected bits; empty when it does."""
    if changed := _other_settings(config, values["settings"]):
        raise InputError(
            f"the settings differ from those of the expected values ({', '.join(changed[:5])}), so there is nothing to "
            "compare; run without --set, or give your own values with --expected"
        )
    for bits in (card["bits"] for job in all_jobs(config) if "bits" in (card := _card(out, job.name))):
        if reasons := [bits["began"]] if "began" in bits else determinism.unlike(bits, values["bits"]):
            return reasons  # where a job was computed, or was at first
    return []


def _card(out: Path, job: str) -> dict[str, Any]:
    """run.json of a job, empty where there is none."""
    run = out / "runs" / job
    return read_card(run) if (run / "run.json").is_file() else {}


def _equal(folds: dict[str, float], values: dict[str, Any], out: Path) -> list[Check]:
    """Bit for bit: data, weights, Dice."""
    data = read_run_card(out)["data"]
    checks = [
        same(f"expected data {name}", expected, data.get(name, {}).get("fingerprint", "missing"), "prepare")
        for name, expected in values["data"].items()
    ]
    for job, expected in values["weights"].items():
        actual = str(_card(out, job).get("weights", "missing"))
        checks.append(same(f"expected weights of {job}", expected, actual, job))
    for job, dice in values["dice"].items():
        mine = folds.get(job, math.nan)
        checks.append(Check(f"Dice of {job}", repr(dice), repr(mine), mine == dice, job))
    return checks


def _cell(job: str) -> str:
    """The part of a job's name that its folds and seeds have in common."""
    return job.rsplit("-f", 1)[0]


def _means(folds: dict[str, float]) -> dict[str, float]:
    """Mean over folds and seeds of each cell."""
    return {str(cell): float(mean) for cell, mean in pd.Series(folds).groupby(_cell).mean().items()}


def _near(folds: dict[str, float], expected: dict[str, float], tolerance: float, note: str = "") -> list[Check]:
    """The mean of every cell against an expected one."""
    checks, means = [], _means(folds)
    for cell, value in expected.items():
        mean, allowed = means.get(cell, math.nan), f"{value:.4f} ± {tolerance:.4f}"
        holds = abs(mean - value) <= tolerance
        checks.append(Check(f"Dice of {cell}, mean", allowed, f"{mean:.4f}", holds, cell, note))
    return checks
