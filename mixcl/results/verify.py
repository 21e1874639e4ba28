"""Is a run what it should be?  Its own parts against each other, and its numbers against committed ones.

``reproduce/expected/<profile>.json`` holds the Dice of every fold, the weights of every job, and what decided the
bits when they were made.  Where a run has the same of the latter, numbers must be equal to the bit; elsewhere the
mean over folds of a cell must lie within the stated tolerance.  The profile ``paper`` is compared with the paper.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.files import file_name, write_json
from mixcl.results.paper import TABLE1
from mixcl.results.runs import read_runs
from mixcl.results.statistics import fold_scores
from mixcl.run import determinism
from mixcl.run.jobs import finetune_job, finetunings, pretrainings
from mixcl.run.record import WEIGHTS, numbers, read_card, weights_id

EXPECTED = Path(__file__).resolve().parents[2] / "reproduce" / "expected"
PAPER_TOLERANCE = 0.03  # Dice, of a cell's mean over folds; our choice, the paper gives no spread
PARTS = {"bits", "settings", "spread", "data", "dice", "weights"}  # what a file of expected values must hold


@dataclass(frozen=True)
class Check:
    """One line of the verdict: ``what`` was compared, the two values, whether it holds, and the job that made it."""

    what: str
    expected: str
    actual: str
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
    folds, checks = _own_parts(config, out)
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
    folds, checks = _own_parts(config, out)
    if wrong := [check for check in checks if not check.holds]:
        raise InputError(f"{out}: {wrong[0].what} is {wrong[0].actual}, not {wrong[0].expected}; finish the run first")
    means = _means(folds)
    spreads = [abs(means[cell] - mean) for o in others for cell, mean in _means(_folds(config, o)[0]).items()]
    card = json.loads((out / "RUN.json").read_text(encoding="utf-8"))
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
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        whole = values.keys() >= PARTS
    except FileNotFoundError:
        raise InputError(f"{path}: no expected values for this profile; make them with mixcl verify --write") from None
    except (OSError, ValueError, AttributeError):
        whole = False
    if not whole:
        raise InputError(f"{path}: damaged; take the committed file again (git checkout {path.name})")
    return values


def report(checks: Iterable[Check]) -> str:
    """The checks as a table: what is off at the top, cells next, and the count of the rest."""
    rows = sorted(checks, key=lambda check: check.holds)
    shown = [check for check in rows if not check.holds or check.what.startswith("Dice")]
    table = pd.DataFrame(
        [[c.what, c.expected, c.actual, "ok" if c.holds else "OFF", c.note or c.job] for c in shown],
        columns=["what", "expected", "found", "", "job"],
    )
    off = sum(not check.holds for check in rows)
    lines = [table.to_string(index=False)] if len(table) else []
    return "\n".join([*lines, f"{len(rows)} checks: {f'{off} off' if off else 'all equal or within tolerance'}"])


def _other_settings(config: Experiment, expected: dict[str, Any]) -> list[str]:
    """Names of settings that are not as expected; one that is younger than these has to be at its default."""
    mine, before = numbers(config), {**numbers(Experiment()), **expected}
    changed = [name for name, value in mine.items() if value != before.get(name)]
    return sorted(changed + [name for name in expected if name not in mine])


def _jobs(config: Experiment) -> list[str]:
    return [job.name for job in (*pretrainings(config), *finetunings(config))]


def _card(out: Path, job: str) -> dict[str, Any]:
    return read_card(out / "runs" / job)


def _own_parts(config: Experiment, out: Path) -> tuple[dict[str, float], list[Check]]:
    """Dice of every fold, and whether cases, evaluation, tables, outputs and weights agree."""
    folds, checks = _folds(config, out)
    return folds, [*checks, *_outputs(out), *(_weights(out, job) for job in _jobs(config))]


def _folds(config: Experiment, out: Path) -> tuple[dict[str, float], list[Check]]:
    """Dice of every fold from its cases, and whether cases, evaluation and tables agree."""
    runs = read_runs(out)
    scores = fold_scores(runs.cases)
    folds = dict(zip(scores["job"], scores["dice"].astype(float), strict=True))
    jobs = [job.name for job in finetunings(config)]
    checks = [Check(f"run {job}", "evaluated", "missing", False, job) for job in jobs if job not in folds]
    checks += [_cases_agree(out, job, runs.cases[runs.cases["job"] == job]) for job in folds]
    for path in sorted((out / "tables").glob("table[12].csv")):
        checks += _table_agrees(path, folds)
    return folds, checks


def _cases_agree(out: Path, job: str, rows: pd.DataFrame) -> Check:
    """cases.csv against the record that evaluation keeps of each case, and that against the weights."""
    weights = _card(out, job).get("weights")
    for case, part in rows.groupby("case"):
        try:
            record = json.loads(
                (out / "runs" / job / "evaluation" / f"{file_name(str(case))}.json").read_text(encoding="utf-8")
            )
            kept = {row["label"]: row["dice"] for row in record["rows"]}
        except (OSError, ValueError, KeyError):
            return Check(f"cases of {job}", "as evaluated", f"no record of {case}", False, job)
        dice = {label: None if math.isnan(x) else x for label, x in zip(part["label"], part["dice"], strict=True)}
        if dice != {label: kept.get(label) for label in dice} or record["of"]["weights"] != weights:
            return Check(f"cases of {job}", "as evaluated", f"{case} differs", False, job)
    return Check(f"cases of {job}", "as evaluated", "as evaluated", True, job)


def _table_agrees(path: Path, folds: dict[str, float]) -> list[Check]:
    """The folds of a table on disk against those that its cases give."""
    try:
        written = {
            finetune_job(r["task"], r["percent"], r["arm"], int(r["fold"]), int(r["seed"])): float(r["dice"])
            for r in pd.read_csv(path).to_dict("records")
        }
    except (OSError, ValueError, KeyError):
        return [Check(path.name, "readable", "damaged", False, path.stem)]
    return [
        Check(f"{path.name}: {job}", f"{folds.get(job, math.nan):.6f}", f"{dice:.6f}", False, job)
        for job, dice in written.items()
        if folds.get(job) != dice
    ] or [Check(path.name, "as its cases give", "as its cases give", True, path.stem)]


def _outputs(out: Path) -> list[Check]:
    """Every output against the checksum in RUN.json."""
    try:
        outputs = json.loads((out / "RUN.json").read_text(encoding="utf-8"))["outputs"]
    except (OSError, ValueError, KeyError):
        return [Check("RUN.json", "the run card", "missing or damaged", False, "figures")]
    checks = []
    for name, digest in outputs.items():
        path = out / name
        actual = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        checks.append(_same(name, digest, actual, path.parent.name if name.startswith("runs/") else path.stem))
    return checks


def _same(what: str, expected: str, actual: str, job: str) -> Check:
    """Two digests, of which the verdict shows the beginning."""
    return Check(what, expected[:12], actual[:12], actual == expected, job)


def _weights(out: Path, job: str) -> Check:
    """The weights on disk against the name that the run gave them."""
    expected = _card(out, job).get("weights", "none")
    try:
        actual = weights_id(load_file(out / "runs" / job / WEIGHTS))
    except (SafetensorError, OSError):
        actual = "damaged or missing"
    return _same(f"weights of {job}", expected, actual, job)


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
    data = json.loads((out / "RUN.json").read_text(encoding="utf-8"))["data"]
    checks = [
        _same(f"data {name}", expected, data.get(name, {}).get("fingerprint", "missing"), "prepare")
        for name, expected in values["data"].items()
    ]
    for job, expected in values["weights"].items():
        checks.append(_same(f"expected weights of {job}", expected, str(_card(out, job).get("weights")), job))
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
