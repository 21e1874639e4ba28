"""Is a run what it should be?  Its own parts against each other, and its numbers against committed ones.

``reproduce/expected/<profile>.json`` holds the Dice of every fold, the weights of every job, and what decided the
bits when they were made.  Where a run has the same of the latter, numbers must be equal to the bit; elsewhere the
mean over folds of a cell must lie within the stated tolerance.  The profile ``paper`` is compared with the paper.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from mixcl import files
from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.results.paper import TABLE1
from mixcl.run import checkpoint, determinism
from mixcl.run.jobs import finetune_job, finetunings, pretrainings

EXPECTED = Path(__file__).resolve().parents[2] / "reproduce" / "expected"
PAPER_TOLERANCE = 0.03  # Dice, of a cell's mean over folds; our choice, the paper gives no spread


@dataclass(frozen=True)
class Check:
    """One line of the verdict: ``what`` was looked at, the two values, whether it holds, and the job that made it."""

    what: str
    expected: str
    found: str
    holds: bool
    job: str = ""
    note: str = ""


def verify(config: Experiment, out: Path, expected: Path | None = None) -> list[Check]:
    """Compare a finished run with what is expected of its profile.

    Parameters
    ----------
    config, out
        The settings and the folder of the run.
    expected
        File of expected values; None is the one committed for the profile, or the paper for ``paper``.

    Raises
    ------
    InputError
        Nothing to compare with, or the file of expected values is damaged.
    """
    against_paper = expected is None and config.profile.startswith("paper")
    values = {} if against_paper else read_expected(expected or EXPECTED / f"{config.profile}.json")
    folds, checks = _folds(config, out)
    checks += _outputs(out) + [check for job in _planned(config) for check in _weights(out, job)]
    if against_paper:
        return checks + _like_the_paper(folds)
    reasons = _reasons(out, values, config)
    if reasons:
        return checks + _near(folds, values, reasons)
    return checks + _equal(folds, values, out)


def write_expected(config: Experiment, out: Path, to: Path, others: Sequence[Path] = ()) -> dict[str, Any]:
    """Write the values of a finished run for others to be compared with.

    Parameters
    ----------
    others
        Folders of the same profile run where the bits differ (another instruction set, say): the largest difference of
        a cell's mean between them and this run is the spread, and twice that the tolerance where bits differ.

    Raises
    ------
    InputError
        The run does not hold together, or is not complete.
    """
    folds, checks = _folds(config, out)
    checks += _outputs(out) + [check for job in _planned(config) for check in _weights(out, job)]
    wrong = [check for check in checks if not check.holds]
    if wrong:
        raise InputError(f"{out}: {wrong[0].what} is {wrong[0].found}, not {wrong[0].expected}; finish the run first")
    means = _means(folds)
    spreads = [abs(means[cell] - other) for o in others for cell, other in _means(_folds(config, o)[0]).items()]
    card = json.loads((out / "RUN.json").read_text(encoding="utf-8"))
    values = {
        "profile": config.profile,
        "commit": card["commit"],
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "bits": _job_card(out, "pretrain")["bits"],
        "settings": _settings(config),
        "spread": round(max(spreads), 4) if spreads else None,
        "spread_runs": len(others) if spreads else 0,
        "data": {name: one["fingerprint"] for name, one in card["data"].items()},
        "dice": {job: value for job, value in sorted(folds.items())},
        "weights": {job: _job_card(out, job)["weights"] for job in sorted(_planned(config))},
    }
    files.write_text(to, json.dumps({**values, "seal": _seal(values)}, indent=1) + "\n")
    return values


def read_expected(path: Path) -> dict[str, Any]:
    """Expected values, with their seal checked."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        seal = values.pop("seal")
    except FileNotFoundError:
        raise InputError(f"{path}: no expected values for this profile; make them with mixcl verify --write") from None
    except (OSError, ValueError, KeyError):
        raise InputError(f"{path}: damaged; take the committed file again (git checkout {path.name})") from None
    if seal != _seal(values):
        raise InputError(f"{path}: was changed by hand, its seal does not fit; take the committed file again")
    return values


def report(checks: Iterable[Check]) -> str:
    """The checks as a table: what is off at the top, cells next, and the count of the rest."""
    rows = sorted(checks, key=lambda check: check.holds)
    shown = [check for check in rows if not check.holds or check.what.startswith("Dice")]
    table = pd.DataFrame(
        [[c.what, c.expected, c.found, "ok" if c.holds else "OFF", c.note or c.job] for c in shown],
        columns=["what", "expected", "found", "", "job"],
    )
    off = [check for check in rows if not check.holds]
    verdict = "all equal or within tolerance" if not off else f"{len(off)} off"
    lines = [table.to_string(index=False)] if len(table) else []
    return "\n".join([*lines, f"{len(rows)} checks: {verdict}"])


def _planned(config: Experiment) -> list[str]:
    return [job.name for job in (*pretrainings(config), *finetunings(config))]


def _settings(config: Experiment) -> dict[str, Any]:
    """Everything that decides numbers, by its dotted name: all settings but those of the machine."""
    told = config.model_dump(mode="json", exclude={"run": True, "data": {"root", "store"}})
    return _flat(json.loads(json.dumps(told)))


def _flat(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return flat


def _other_settings(config: Experiment, told: dict[str, Any]) -> list[str]:
    """Names of settings that are not as ``told``; one that is younger than ``told`` has to be at its default."""
    mine, default = _settings(config), _settings(Experiment())
    expected = {name: told.get(name, default.get(name)) for name in mine}
    gone = [name for name in told if name not in mine]
    return sorted([name for name, value in mine.items() if value != expected[name]] + gone)


def _seal(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _job_card(out: Path, job: str) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads((out / "runs" / job / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{out / 'runs' / job}: no whole run here; finish reproduce/run_all.sh first") from None
    return card


def _folds(config: Experiment, out: Path) -> tuple[dict[str, float], list[Check]]:
    """Dice of every fold from its cases, and whether cases, evaluation and tables agree."""
    from mixcl.results.runs import read_runs
    from mixcl.results.statistics import fold_scores

    runs = read_runs(out)
    scores = fold_scores(runs.cases)
    found = dict(zip(scores["job"], scores["dice"].astype(float), strict=True))
    checks = [
        Check(f"run {job.name}", "evaluated", "missing", False, job.name)
        for job in finetunings(config)
        if job.name not in found
    ]
    for job in found:
        checks.append(_cases_agree(out, job, runs.cases))
    for path in sorted((out / "tables").glob("table[12].csv")):
        checks += _table_agrees(path, scores)
    return found, checks


def _cases_agree(out: Path, job: str, cases: pd.DataFrame) -> Check:
    """cases.csv against the record that evaluation keeps of each case, and that against the weights."""
    rows = cases[cases["job"] == job]
    bad, weights = "", _job_card(out, job).get("weights")
    for case, mine in rows.groupby("case"):
        try:
            record = json.loads((out / "runs" / job / "evaluation" / f"{case}.json").read_text(encoding="utf-8"))
            kept = {row["label"]: row["dice"] for row in record["rows"]}
        except (OSError, ValueError, KeyError):
            return Check(f"cases of {job}", "as evaluated", f"no record of {case}", False, job)
        same = all(
            (kept.get(label) is None and dice != dice) or kept.get(label) == dice
            for label, dice in zip(mine["label"], mine["dice"], strict=True)
        )
        if not same or record["of"]["weights"] != weights:
            bad = str(case)
    return Check(f"cases of {job}", "as evaluated", f"{bad} differs" if bad else "as evaluated", not bad, job)


def _table_agrees(path: Path, scores: pd.DataFrame) -> list[Check]:
    """The folds of a table on disk against those that its cases give."""
    try:
        table = pd.read_csv(path)
        told = {
            finetune_job(r["task"], r["percent"], r["arm"], int(r["fold"]), int(r["seed"])): float(r["dice"])
            for r in table.to_dict("records")
        }
    except (OSError, ValueError, KeyError):
        return [Check(path.name, "readable", "damaged", False, path.stem)]
    given = dict(zip(scores["job"], scores["dice"].astype(float), strict=True))
    off = [job for job, dice in told.items() if given.get(job) != dice]
    return [
        Check(f"{path.name}: {job}", f"{given.get(job, float('nan')):.6f}", f"{told[job]:.6f}", False, job)
        for job in off
    ] or [Check(path.name, "as its cases give", "as its cases give", True, path.stem)]


def _outputs(out: Path) -> list[Check]:
    """Every output against the checksum in RUN.json."""
    try:
        told = json.loads((out / "RUN.json").read_text(encoding="utf-8"))["outputs"]
    except (OSError, ValueError, KeyError):
        return [Check("RUN.json", "the run card", "missing or damaged", False, "figures")]
    checks = []
    for name, digest in told.items():
        path = out / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        job = path.parent.name if name.startswith("runs/") else path.stem
        checks.append(Check(name, digest[:12], found[:12], found == digest, job))
    return checks


def _weights(out: Path, job: str) -> list[Check]:
    """The weights on disk against the name that the run gave them."""
    from mixcl.handover import weights_id

    told = _job_card(out, job).get("weights", "none")
    try:
        found = weights_id(checkpoint.read_weights(out / "runs" / job)[0])
    except InputError:
        found = "damaged or missing"
    return [Check(f"weights of {job}", told[:12], found[:12], found == told, job)]


def _reasons(out: Path, values: dict[str, Any], config: Experiment) -> list[str]:
    """Why this run does not promise the expected bits; empty when it does."""
    if others := _other_settings(config, values["settings"]):
        raise InputError(
            f"the settings differ from those of the expected values ({', '.join(others[:5])}), so there is nothing to "
            "compare; run without --set, or give your own values with --expected"
        )
    for job in _planned(config):
        if reasons := determinism.unlike(_job_card(out, job).get("bits", {}), values["bits"]):
            return reasons
    return []


def _equal(folds: dict[str, float], values: dict[str, Any], out: Path) -> list[Check]:
    """Bit for bit: data, weights, Dice."""
    data = json.loads((out / "RUN.json").read_text(encoding="utf-8"))["data"]
    checks = [
        Check(f"data {name}", told[:12], data.get(name, {}).get("fingerprint", "missing")[:12],
              data.get(name, {}).get("fingerprint") == told, "prepare")
        for name, told in values["data"].items()
    ]  # fmt: skip
    for job, told in values["weights"].items():
        found = str(_job_card(out, job).get("weights"))
        checks.append(Check(f"expected weights of {job}", told[:12], found[:12], found == told, job))
    for job, dice in values["dice"].items():
        mine = folds.get(job, float("nan"))
        checks.append(Check(f"Dice of {job}", repr(dice), repr(mine), mine == dice, job, ""))
    return checks


def _means(folds: dict[str, float]) -> dict[str, float]:
    """Mean over folds and seeds of each cell, by the part of the job's name that is common to them."""
    table = pd.Series(folds)
    means = table.groupby([name.rsplit("-f", 1)[0] for name in table.index]).mean()
    return {str(name): float(value) for name, value in means.items()}


def _near(folds: dict[str, float], values: dict[str, Any], reasons: list[str]) -> list[Check]:
    """Cell by cell within the tolerance, because the bits are decided otherwise here."""
    if values["spread"] is None:
        raise InputError(
            f"this run does not promise the expected bits ({'; '.join(reasons)}), and no tolerance was measured; "
            "run it with reproduce/run_all.sh on an x86-64 processor with AVX2"
        )
    tolerance, found = 2 * float(values["spread"]), _means(folds)
    return [
        Check(
            f"Dice of {cell}, mean", f"{mean:.4f} ± {tolerance:.4f}", f"{found.get(cell, float('nan')):.4f}",
            abs(found.get(cell, float("nan")) - mean) <= tolerance, cell,
            f"within tolerance only, because {'; '.join(reasons)}",
        )
        for cell, mean in _means(values["dice"]).items()
    ]  # fmt: skip


def _like_the_paper(folds: dict[str, float]) -> list[Check]:
    """Means over folds against Table 1 of the paper."""
    means, checks = _means(folds), []
    for (task, percent), row in TABLE1.items():
        for arm, told in (("scratch", row.scratch), ("mixcl", row.mixcl)):
            cell = finetune_job(task, percent, arm, 0, 0).rsplit("-f", 1)[0]
            mean = means.get(cell, float("nan"))
            checks.append(
                Check(
                    f"Dice of {cell}, mean",
                    f"{told:.4f} ± {PAPER_TOLERANCE}",
                    f"{mean:.4f}",
                    abs(mean - told) <= PAPER_TOLERANCE,
                    cell,
                )
            )
    return checks
