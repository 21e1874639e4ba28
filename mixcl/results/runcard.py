"""The run card: what made the results in a folder, for a reviewer or a paper's appendix."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.files import write_text
from mixcl.results.wording import short
from mixcl.run.record import provenance

OUTPUTS = (
    "tables/*.csv",
    "tables/*.md",
    "tables/*.tex",
    "figures/*.pdf",
    "figures/*.png",
    "runs/*/cases.csv",
)


def run_card(config: Experiment, out: Path) -> dict[str, Any]:
    """Write RUN.json and RUN.md into ``out``; call it when tables and figures are there.

    Returns
    -------
    What RUN.json holds: profile, settings, versions, commit, machine, ``data`` (fingerprint and cases of each
    collection), ``seeds``, ``jobs`` (weights, commit, seconds) and ``outputs`` (SHA-256 of each).
    """
    card = provenance(
        config,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        source=config.data.source,
        seeds={"pretrain": config.pretrain.seed, "finetune": list(config.grid.seeds)},
        data=_data(config, out),
        jobs=[_job(path) for path in sorted((out / "runs").glob("*/run.json"))],
        outputs={
            path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for pattern in OUTPUTS
            for path in sorted(out.glob(pattern))
        },
    )
    write_text(out / "RUN.json", json.dumps(card, indent=1) + "\n")
    write_text(out / "RUN.md", _markdown(card))
    return card


def _data(config: Experiment, out: Path) -> dict[str, Any]:
    """Fingerprint and number of cases of each collection that is prepared."""
    from mixcl.data.store import Store

    found: dict[str, Any] = {}
    for name in dict.fromkeys((*config.data.pretrain, *config.data.finetune)):
        try:
            store = Store(config.data.store_dir(out), settings=config.data)
            found[name] = {"fingerprint": store.fingerprint((name,)), "cases": len(store.cases(name))}
        except InputError:
            found[name] = {"fingerprint": "not prepared here", "cases": 0}
    return found


def _job(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        cases = [json.loads(p.read_text(encoding="utf-8")) for p in path.parent.glob("evaluation/*.json")]
        evaluation = round(sum(case.get("seconds", 0.0) for case in cases), 1)
    except (OSError, ValueError):
        raise InputError(f"{path}: or what lies beside it is damaged; take {path.parent} away") from None
    return {
        "job": path.parent.name,
        "finished": "weights" in card,
        "evaluated": (path.parent / "cases.csv").is_file(),
        "seconds": card.get("seconds_of_last_part"),
        "seconds_evaluation": evaluation,
        "weights": card.get("weights", ""),
        "commit": card.get("commit", ""),
        "data": card.get("data", ""),
    }


def _markdown(card: dict[str, Any]) -> str:
    phantom = " These are phantoms, not patients." if card["source"] == "phantom" else ""
    lines = [
        f"# Run card: profile `{card['profile']}`",
        "",
        f"Made {card['made']} at commit `{card['commit']}`.{phantom}",
        "All settings are in RUN.json and, as each job had them, in `runs/<job>/run.json`.",
        "",
        f"- machine: {card['machine']['system']}, {card['machine']['cpus']} CPUs",
        f"- versions: {', '.join(f'{name} {version}' for name, version in card['versions'].items())}",
        f"- seeds: pre-training {card['seeds']['pretrain']}, fine-tuning {card['seeds']['finetune']}",
        f"- time: {_hours(card['jobs'])} of training and evaluation, added up over jobs",
        "- energy: not known (no counter is read)",
        "",
        *_rows(
            ("collection", "cases", "fingerprint"),
            [(name, one["cases"], one["fingerprint"]) for name, one in card["data"].items()],
        ),
        "Seconds of training are those since the job was last taken up.",
        "",
        *_rows(
            ("job", "training, s", "evaluation, s", "weights", "commit"),
            [
                (
                    one["job"], "not finished" if not one["finished"] else one["seconds"],
                    one["seconds_evaluation"] if one["evaluated"] else "-",
                    one["weights"][:16], short(one["commit"]),
                )
                for one in card["jobs"]
            ],
        ),
        *_rows(("output", "SHA-256"), list(card["outputs"].items())),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _hours(jobs: list[dict[str, Any]]) -> str:
    seconds = sum((one["seconds"] or 0.0) + one["seconds_evaluation"] for one in jobs)
    return f"{seconds / 3600:.2f} h"


def _rows(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    """A Markdown table and the empty line after it."""
    table = [header, ("---",) * len(header), *rows]
    return [*("| " + " | ".join(str(cell) for cell in row) + " |" for row in table), ""]
