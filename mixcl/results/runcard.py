"""The run card: what made the results in a folder, for a reviewer or a paper's appendix."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixcl.config.settings import DataConfig, Experiment
from mixcl.data.store import Store
from mixcl.errors import InputError
from mixcl.files import read_json, read_sealed, sha256, write_json, write_text
from mixcl.results.formats import TextTable, markdown
from mixcl.results.wording import PHANTOM, short
from mixcl.run.jobs import all_jobs
from mixcl.run.record import flat, provenance, read_card

OUTPUTS = (
    "tables/*.csv", "tables/*.md", "tables/*.tex", "figures/*.pdf", "figures/*.png", "runs/[!.]*/cases.csv",
    "runs/[!.]*/run.json", "runs/[!.]*/metrics.jsonl",
)  # fmt: skip


def run_card(config: Experiment, out: Path) -> dict[str, Any]:
    """Write RUN.json and RUN.md into ``out``; call it when tables and figures are there.

    RUN.json holds profile, settings, versions, commit, machine, ``data`` (fingerprint and cases of each collection),
    ``seeds``, ``jobs`` (weights, commit, seconds, and the job whose training it took, ``same_as``) and ``outputs``
    (SHA-256 of each); it comes back.
    """
    card = provenance(config, made=datetime.now(UTC).isoformat(timespec="seconds"), **contents(config, out))
    write_json(out / "RUN.json", card)
    write_text(out / "RUN.md", markdown_of(card))
    return card


def read_run_card(out: Path) -> dict[str, Any]:
    """RUN.json of a folder of results; an `InputError` where it is not there, or not what `run_card` writes."""
    path = out / "RUN.json"
    try:
        card = read_json(path)
        flat(card["config"])
        markdown_of(card)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        again = "finish reproduce/run_all.sh, which makes it"
        raise InputError(f"{path}: no run card, or a broken one; {again}") from None
    return card


def contents(config: Experiment, out: Path) -> dict[str, Any]:
    """What RUN.json says of a folder of results, as the folder is now: of the jobs of these settings alone."""
    mine = [out / "runs" / job.name for job in all_jobs(config)]
    return {
        "profile": config.profile,
        "source": config.data.source,
        "seeds": {"pretrain": config.pretrain.seed, "finetune": list(config.grid.seeds)},
        "data": _data(config.data, out),
        "jobs": [_job(run) for run in sorted(mine) if (run / "run.json").is_file()],
        "outputs": {
            path.relative_to(out).as_posix(): sha256(path)
            for pattern in OUTPUTS
            for path in sorted(out.glob(pattern))
            if path.is_file() and (path.parent in mine or path.parent.parent == out)
        },
    }


def _data(data: DataConfig, out: Path) -> dict[str, Any]:
    """Fingerprint and number of cases of each collection that is prepared."""
    collections: dict[str, Any] = {}
    for name in dict.fromkeys((*data.pretrain, *data.finetune)):
        try:
            store = Store(data.store_dir(out), settings=data)
            collections[name] = {"fingerprint": store.fingerprint((name,)), "cases": len(store.cases(name))}
        except InputError:
            collections[name] = {"fingerprint": "not prepared here", "cases": 0}
    return collections


def _job(run: Path) -> dict[str, Any]:
    card = read_card(run)
    try:
        seconds = [float(read_sealed(path).get("seconds", 0.0)) for path in run.glob("evaluation/[!.]*.json")]
    except (OSError, ValueError, TypeError):
        raise InputError(f"{run / 'evaluation'}: is damaged; run mixcl evaluate --run {run.name} again") from None
    return {
        "job": run.name,
        "finished": "weights" in card,
        "evaluated": (run / "cases.csv").is_file(),
        "seconds": card.get("seconds_of_last_part"),
        "seconds_evaluation": round(sum(seconds), 1),
        **{key: card.get(key, "") for key in ("weights", "same_as", "commit", "data")},
    }


def markdown_of(card: Mapping[str, Any]) -> str:
    """RUN.md: the card for people."""
    phantom = f" {PHANTOM}" if card["source"] == "phantom" else ""
    seconds = sum((job["seconds"] or 0.0) + job["seconds_evaluation"] for job in card["jobs"])
    trainings = len({job["weights"] for job in card["jobs"] if job["finished"]})
    lines = [
        f"# Run card: profile `{card['profile']}`",
        "",
        f"Made {card['made']} at commit `{card['commit']}`.{phantom}",
        "All settings are in RUN.json and, as each job had them, in `runs/<job>/run.json`.",
        "",
        f"- machine: {card['machine']['system']}, {card['machine']['cpus']} CPUs",
        f"- versions: {', '.join(f'{name} {version}' for name, version in card['versions'].items())}",
        f"- seeds: pre-training {card['seeds']['pretrain']}, fine-tuning {card['seeds']['finetune']}",
        f"- trainings: {trainings} distinct ones in {len(card['jobs'])} jobs",
        f"- time: {seconds / 3600:.2f} h of training and evaluation, added up over jobs",
        "- energy: not known (no counter is read)",
        "",
    ]
    data = [(name, str(prepared["cases"]), prepared["fingerprint"]) for name, prepared in card["data"].items()]
    jobs = []
    for job in card["jobs"]:
        training = f"as {job['same_as']}" if job["same_as"] else str(job["seconds"])
        evaluation = str(job["seconds_evaluation"]) if job["evaluated"] else "-"
        trained = training if job["finished"] else "not finished"
        jobs.append((job["job"], trained, evaluation, job["weights"][:16], short(job["commit"])))
    shown = [(name, digest) for name, digest in card["outputs"].items() if not name.startswith("runs/")]
    note = "Seconds of training are those since the job was last taken up; what was trained before was not again."
    columns = ("job", "training, s", "evaluation, s", "weights", "commit")
    sums = "Files and their sums; those of the runs are in RUN.json."
    parts = [
        TextTable("Data.", "As they were prepared.", [("", ("collection", "cases", "fingerprint"))], data),
        TextTable("Jobs.", note, [("", columns)], jobs),
        TextTable("Outputs.", sums, [("", ("output", "SHA-256"))], shown),
    ]
    return "\n".join([*lines, markdown(parts)])
