"""The run card: what made the results in a folder, for a reviewer or a paper's appendix."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixcl.config.settings import Experiment
from mixcl.data.store import Store
from mixcl.errors import InputError
from mixcl.files import write_json, write_text
from mixcl.results.formats import Sheet, markdown
from mixcl.results.wording import PHANTOM, short
from mixcl.run.record import provenance, read_card

OUTPUTS = ("tables/*.csv", "tables/*.md", "tables/*.tex", "figures/*.pdf", "figures/*.png", "runs/*/cases.csv")


def run_card(config: Experiment, out: Path) -> dict[str, Any]:
    """Write RUN.json and RUN.md into ``out``; call it when tables and figures are there.

    Returns
    -------
    What RUN.json holds: profile, settings, versions, commit, machine, ``data`` (fingerprint and cases of each
    collection), ``seeds``, ``jobs`` (weights, commit, seconds, and the job whose training it took, ``same_as``) and
    ``outputs`` (SHA-256 of each).
    """
    card = provenance(
        config,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        source=config.data.source,
        seeds={"pretrain": config.pretrain.seed, "finetune": list(config.grid.seeds)},
        data=_data(config, out),
        jobs=[_job(path.parent) for path in sorted((out / "runs").glob("*/run.json"))],
        outputs={
            path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for pattern in OUTPUTS
            for path in sorted(out.glob(pattern))
        },
    )
    write_json(out / "RUN.json", card)
    write_text(out / "RUN.md", _markdown(card))
    return card


def _data(config: Experiment, out: Path) -> dict[str, Any]:
    """Fingerprint and number of cases of each collection that is prepared."""
    collections: dict[str, Any] = {}
    for name in dict.fromkeys((*config.data.pretrain, *config.data.finetune)):
        try:
            store = Store(config.data.store_dir(out), settings=config.data)
            collections[name] = {"fingerprint": store.fingerprint((name,)), "cases": len(store.cases(name))}
        except InputError:
            collections[name] = {"fingerprint": "not prepared here", "cases": 0}
    return collections


def _job(run: Path) -> dict[str, Any]:
    card = read_card(run)
    try:
        cases = [json.loads(path.read_text(encoding="utf-8")) for path in run.glob("evaluation/*.json")]
        evaluation = round(sum(case.get("seconds", 0.0) for case in cases), 1)
    except (OSError, ValueError):
        raise InputError(f"{run / 'evaluation'}: is damaged; run mixcl evaluate --run {run.name} again") from None
    return {
        "job": run.name,
        "finished": "weights" in card,
        "evaluated": (run / "cases.csv").is_file(),
        "seconds": card.get("seconds_of_last_part"),
        "seconds_evaluation": evaluation,
        **{key: card.get(key, "") for key in ("weights", "same_as", "commit", "data")},
    }


def _training(job: dict[str, Any]) -> str:
    """Seconds of a job's training, or the job that it took the training from."""
    if not job["finished"]:
        return "not finished"
    return f"as {job['same_as']}" if job["same_as"] else str(job["seconds"])


def _markdown(card: dict[str, Any]) -> str:
    phantom = f" {PHANTOM}" if card["source"] == "phantom" else ""
    seconds = sum((job["seconds"] or 0.0) + job["seconds_evaluation"] for job in card["jobs"])
    lines = [
        f"# Run card: profile `{card['profile']}`",
        "",
        f"Made {card['made']} at commit `{card['commit']}`.{phantom}",
        "All settings are in RUN.json and, as each job had them, in `runs/<job>/run.json`.",
        "",
        f"- machine: {card['machine']['system']}, {card['machine']['cpus']} CPUs",
        f"- versions: {', '.join(f'{name} {version}' for name, version in card['versions'].items())}",
        f"- seeds: pre-training {card['seeds']['pretrain']}, fine-tuning {card['seeds']['finetune']}",
        f"- trainings: {len({job['weights'] for job in card['jobs'] if job['finished']})} distinct ones in "
        f"{len(card['jobs'])} jobs",
        f"- time: {seconds / 3600:.2f} h of training and evaluation, added up over jobs",
        "- energy: not known (no counter is read)",
    ]
    data = [(name, str(prepared["cases"]), prepared["fingerprint"]) for name, prepared in card["data"].items()]
    jobs = [
        (
            job["job"], _training(job),
            str(job["seconds_evaluation"]) if job["evaluated"] else "-", job["weights"][:16], short(job["commit"]),
        )
        for job in card["jobs"]
    ]  # fmt: skip
    columns = ("job", "training, s", "evaluation, s", "weights", "commit")
    note = "Seconds of training are those since the job was last taken up; what was trained before was not again."
    sheets = [
        Sheet("Data.", "As they were prepared.", [("", ("collection", "cases", "fingerprint"))], data),
        Sheet("Jobs.", note, [("", columns)], jobs),
        Sheet("Outputs.", "Files and their sums.", [("", ("output", "SHA-256"))], list(card["outputs"].items())),
    ]
    return "\n".join([*lines, "", markdown(sheets)])
