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
from mixcl.results import verify_data, verify_jobs, verify_tables
from mixcl.results.paper import TABLE1
from mixcl.results.runcard import read_run_card
from mixcl.results.runs import Runs, read_runs
from mixcl.results.statistics import fold_scores
from mixcl.results.verdict import Check as Check
from mixcl.results.verdict import report as report
from mixcl.results.verdict import same
from mixcl.run import determinism
from mixcl.run.jobs import finetune_job, finetunings, pretrainings
from mixcl.run.record import numbers, read_card

EXPECTED = Path(__file__).resolve().parents[2] / "reproduce" / "expected"
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


def verify(config: Experiment, out: Path, expected: Path | None = None, *, full: bool = False) -> list[Check]:
    """Compare a finished run with what is expected of its profile, and go over each of its own links again.

    Parameters
    ----------
    config, out
        The settings and the folder of the run.
    expected
        File of expected values; None is the one committed for the profile, or the paper for ``paper``.
    full
        Hash all scans and measure all predictions again, not a sample.

    Returns
    -------
    What was compared, and what was not looked at.

    Raises
    ------
    InputError
        Nothing to compare with, or the file of expected values or RUN.json is missing or damaged.
    """
    against_paper = expected is None and config.profile.startswith("paper")
    values = {} if against_paper else read_expected(expected or EXPECTED / f"{config.profile}.json")
    folds, checks = _own_parts(config, out, full)
    if against_paper:
        return checks + _like_the_paper(folds)
    if reasons := _reasons(config, out, values):
        return checks + _elsewhere(folds, values, reasons)
    return checks + _equal(folds, values, out)


def write_expected(config: Experiment, out: Path, to: Path, others: Sequence[Path] = ()) -> dict[str, Any]:
    """Write the values of a finished run for others to be compared with.

    Parameters
    ----------
    others
        Folders of the same profile run where the bits differ (another instruction set, say): the largest difference of
        a cell's mean between them and this run is the spread, and twice that the tolerance where bits differ.
        Without any, the spread that ``to`` holds is kept.

    Raises
    ------
    InputError
        The run does not hold together, or is not complete.
    """
    folds, checks = _own_parts(config, out, full=False)
    if wrong := [check for check in checks if not check.holds and not check.what.startswith("code of")]:
        raise InputError(f"{out}: {wrong[0].what} is {wrong[0].actual}, not {wrong[0].expected}; finish the run first")
    means = _means(folds)
    spreads = [
        abs(means[cell] - mean) for o in others for cell, mean in _means(_folds(config, read_runs(o))[0]).items()
    ]
    card = read_run_card(out)
    before = read_expected(to) if to.is_file() and not others else {}
    values = {
        "profile": config.profile,
        "commit": card["commit"],
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "bits": _card(out, "pretrain")["bits"],
        "settings": numbers(config),
        "spread": round(max(spreads), 4) if spreads else before.get("spread"),
        "spread_runs": len(others) if spreads else before.get("spread_runs", 0),
        "data": {name: collection["fingerprint"] for name, collection in card["data"].items()},
        "dice": dict(sorted(folds.items())),
        "weights": {job: _card(out, job)["weights"] for job in sorted(_jobs(config))},
    }
    write_json(to, values)
    return values


def read_expected(path: Path) -> dict[str, Any]:
    """The file of expected values, whole; see :func:`write_expected`."""
    try:
        values = read_json(path)
        _Expected.model_validate(values)
    except FileNotFoundError:
        raise InputError(f"{path}: no expected values for this profile; make them with mixcl verify --write") from None
    except (OSError, ValueError):
        raise InputError(f"{path}: damaged; take the committed file again (git checkout {path.name})") from None
    return values


def _other_settings(config: Experiment, expected: dict[str, Any]) -> list[str]:
    """Names of settings that are not as expected; one that is younger than these has to be at its default."""
    mine, before = numbers(config), {**numbers(Experiment()), **expected}
    changed = [name for name, value in mine.items() if value != before.get(name)]
    return sorted(changed + [name for name in expected if name not in mine])


def _jobs(config: Experiment) -> list[str]:
    return [job.name for job in (*pretrainings(config), *finetunings(config))]


def _card(out: Path, job: str) -> dict[str, Any]:
    return read_card(out / "runs" / job)


def _own_parts(config: Experiment, out: Path, full: bool) -> tuple[dict[str, float], list[Check]]:
    """Dice of every fold, and whether scans, jobs, tables and the run card follow from each other."""
    card, runs = read_run_card(out), read_runs(out)
    folds, checks = _folds(config, runs)
    checks += verify_data.scans(config, out, card, full)
    checks += verify_jobs.jobs(config, out, runs, full)
    return folds, [*checks, *verify_tables.tables(config, out), *verify_tables.card(config, out, card)]


def _folds(config: Experiment, runs: Runs) -> tuple[dict[str, float], list[Check]]:
    """Dice of every fold from its cases, and which folds are missing."""
    scores = fold_scores(runs.cases)
    folds = dict(zip(scores["job"], scores["dice"].astype(float), strict=True))
    jobs = [job.name for job in finetunings(config)]
    return folds, [Check(f"run {job}", "evaluated", "missing", False, job) for job in jobs if job not in folds]


def _reasons(config: Experiment, out: Path, values: dict[str, Any]) -> list[str]:
    """Why this run does not promise the expected bits; empty when it does."""
    if others := _other_settings(config, values["settings"]):
        raise InputError(
            f"the settings differ from those of the expected values ({', '.join(others[:5])}), so there is nothing to "
            "compare; run without --set, or give your own values with --expected"
        )
    for job in _jobs(config):
        if reasons := determinism.unlike(_card(out, job).get("bits", {}), values["bits"]):
            return reasons
    return []


def _equal(folds: dict[str, float], values: dict[str, Any], out: Path) -> list[Check]:
    """Bit for bit: data, weights, Dice."""
    data = read_run_card(out)["data"]
    checks = [
        same(f"expected data {name}", expected, data.get(name, {}).get("fingerprint", "missing"), "prepare")
        for name, expected in values["data"].items()
    ]
    for job, expected in values["weights"].items():
        checks.append(same(f"expected weights of {job}", expected, str(_card(out, job).get("weights")), job))
    for job, dice in values["dice"].items():
        actual = folds.get(job, math.nan)
        checks.append(Check(f"Dice of {job}", repr(dice), repr(actual), actual == dice, job))
    return checks


def _means(folds: dict[str, float]) -> dict[str, float]:
    """Mean over folds and seeds of each cell, by the part of the job's name that is common to them."""
    table = pd.Series(folds)
    means = table.groupby([name.rsplit("-f", 1)[0] for name in table.index]).mean()
    return {str(name): float(value) for name, value in means.items()}


def _elsewhere(folds: dict[str, float], values: dict[str, Any], reasons: list[str]) -> list[Check]:
    """Cell by cell within the tolerance, because the bits are decided otherwise here."""
    if values["spread"] is None:
        raise InputError(
            f"this run does not promise the expected bits ({'; '.join(reasons)}), and no tolerance was measured; "
            "run it with reproduce/run_all.sh on an x86-64 processor with AVX2"
        )
    note = f"within tolerance only, because {'; '.join(reasons)}"
    return _near(folds, _means(values["dice"]), 2 * float(values["spread"]), note)


def _like_the_paper(folds: dict[str, float]) -> list[Check]:
    """Means over folds against Table 1 of the paper."""
    means = {
        finetune_job(*cell, arm, 0, 0).rsplit("-f", 1)[0]: getattr(row, arm)
        for cell, row in TABLE1.items()
        for arm in ("scratch", "mixcl")
    }
    return _near(folds, means, PAPER_TOLERANCE)


def _near(folds: dict[str, float], expected: dict[str, float], tolerance: float, note: str = "") -> list[Check]:
    """The mean of every cell against an expected one."""
    checks, means = [], _means(folds)
    for cell, value in expected.items():
        mean, allowed = means.get(cell, math.nan), f"{value:.4f} ± {tolerance:.4f}"
        checks.append(
            Check(f"Dice of {cell}, mean", allowed, f"{mean:.4f}", abs(mean - value) <= tolerance, cell, note)
        )
    return checks
