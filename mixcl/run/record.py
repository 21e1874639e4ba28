"""What a run's folder holds: run.json (what was run, with which settings, versions, commit and data), metrics, maps."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mixcl.config.settings import SEGMENTATION_LOSS, SUPERVISED, Experiment, Grid
from mixcl.errors import InputError
from mixcl.files import checked_name, file_name, read_json, read_sealed, sha256, write_text
from mixcl.lock import held
from mixcl.run.determinism import PACKAGES, code_id


def provenance(config: Experiment, **more: object) -> dict[str, Any]:
    """Profile, settings, versions, commit and machine of a result, and ``more`` that the caller alone knows."""
    return {
        "profile": config.profile,
        "commit": commit(),
        "code": code_id(),
        "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in ("mixcl", *PACKAGES)}},
        "machine": {"system": platform.platform(), "cpus": os.cpu_count()},
        **more,
        "config": config.model_dump(mode="json"),
    }


def commit() -> str:
    """The commit the code is at, with ``+changes`` when tracked files differ from it, or ``unknown``."""
    here = Path(__file__).resolve().parents[2]
    if recorded := os.environ.get("MIXCL_COMMIT"):
        return recorded
    git = ["git", "--git-dir", str(here / ".git"), "--work-tree", str(here)]  # never another one
    name = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        return subprocess.run([*git, *name], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


WEIGHTS = "model.safetensors"  # of a finished run; its presence says that the run is finished
STAGES: dict[str, tuple[str, ...]] = {
    "prepare": ("data",),
    "pretrain": ("model", "loss", "sampler", "views", "pretrain"),
    "finetune": ("model", "finetune_augment", "finetune"),
    "evaluate": ("evaluate",),
}
"""Sections of the settings that decide what a stage computes, beside data, weights and the job's own parameters."""
NOT_DECIDING = {
    "profile": "a name",
    "run": "the machine; what it does to the bits is in the card's `bits`",
    "grid": "which jobs there are; a job's share, fold, seed and number of folds are its own parameters",
    "data.root": "where scans are; their contents decide",
    "data.store": "where prepared scans are; their contents decide",
    "data.pretrain_sees_test": "a permission; which collections are trained on decides",
    "pretrain.log_every": "what is logged on the way",
    "pretrain.checkpoint_every": "what is kept on the way",
    "pretrain.probe_every": "what is looked at on the way; no draw of the training depends on it",
    "finetune.log_every": "what is logged on the way",
    "finetune.checkpoint_every": "what is kept on the way",
    "finetune.probe_every": "what is looked at on the way; nothing is chosen by it",
    "evaluate.windows": "how many windows pass the network together",
}
"""All other settings, each with the reason why it decides nothing."""


def deciding(config: Experiment, stage: str) -> dict[str, Any]:
    """The settings that decide what a stage of `STAGES` computes: with one of them changed it is done again."""
    sections: dict[str, Any] = {}
    for name in STAGES[stage]:
        idle = {key.partition(".")[2] for key in NOT_DECIDING if key.startswith(f"{name}.")}
        sections[name] = getattr(config, name).model_dump(mode="json", exclude=idle)
    if stage == "pretrain" and config.pretrain.method == SUPERVISED:
        sections["finetune"] = config.finetune.model_dump(mode="json", include=set(SEGMENTATION_LOSS))
    return sections


def pretraining_decides(config: Experiment, data: str) -> dict[str, Any]:
    """``decides`` in the run.json of a pre-training: all that its weights follow from; ``data`` is a fingerprint."""
    return {"data": data, **deciding(config, "pretrain")}


def finetuning_decides(
    config: Experiment, data: str, *, task: str, percent: float, fold: int, arm: str, seed: int, init: str, start: int,
    train: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """The same of a fine-tuning: ``init`` names the weights it starts from, ``start`` seeds it, ``train`` are cases."""
    return {
        "data": data, "task": task, "percent": percent, "fold": fold, "arm": arm, "seed": seed,
        "n_folds": config.grid.n_folds, "init": init, "start": start, "train": list(train),
        **deciding(config, "finetune"),
    }  # fmt: skip


def numbers(config: Experiment) -> dict[str, Any]:
    """All settings but those of the machine and of places, by dotted name: what `mixcl verify` compares."""
    return flat(config.model_dump(mode="json", exclude={"run": True, "data": {"root", "store"}}))


def read_card(run: Path) -> dict[str, Any]:
    """run.json of a run, or an InputError where it is missing or broken."""
    try:
        card = read_json(run / "run.json")
        _Card.model_validate(card)
    except (OSError, ValueError):
        text = "no run of mixcl here (run.json is missing or broken); give the folder of one"
        raise InputError(f"{run}: {text}") from None
    return card


class _Card(BaseModel):
    """The kinds of what is read in a run.json; a run that is not finished, or no fine-tuning, has not all of it."""

    model_config = ConfigDict(extra="allow", strict=True)

    job: str = ""
    profile: str = ""
    commit: str = ""
    code: str = ""
    data: str = ""
    config: dict[str, Any] = {}
    decides: dict[str, Any] = {}
    bits: dict[str, Any] = {}
    task: str = ""
    percent: float = 0
    fold: int = 0
    seed: int = 0
    arm: str = ""
    labels: dict[Annotated[str, Field(pattern=r"^\d{1,3}$")], str] = {}
    train: list[str] = []
    test: list[str] = []
    hand_over: str = ""
    weights: str = ""
    metrics: str = ""
    same_as: str = ""
    seconds_of_last_part: float = 0


def write_card(run: Path, card: Mapping[str, Any]) -> None:
    write_text(run / "run.json", json.dumps(card, indent=1))


def run_folder(out: Path, job: str) -> Path:
    """Where a job's run lies; an InputError where its name is no folder's."""
    return out / "runs" / checked_name("job", job)


def alone(folder: Path, main: bool = True) -> AbstractContextManager[None]:
    """Keep others out of a run's folder, by a lock beside it (:func:`mixcl.lock.held`) that its ``main`` rank holds."""
    place = folder.resolve()
    return held(place.with_name(f".{place.name}.lock"), str(folder)) if main else nullcontext()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names.

    >>> flat({"loss": {"alpha": 1, "beta": 2}})
    {'loss.alpha': 1, 'loss.beta': 2}
    """
    named: dict[str, Any] = {}
    for key, value in values.items():
        named |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return named


def weights_id(weights: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over names and values, so that equal weights have one name wherever they were made."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].tobytes())
    return digest.hexdigest()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Records of a metrics.jsonl but for a last line that a kill cut short; an InputError for another damaged line."""
    records: list[dict[str, Any]] = []
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if record := read_record(line):
            records.append(record)
        elif line.endswith(b"\n") or b"\0" in line:
            text = "is damaged; take that line away, or train the run again with --restart"
            raise InputError(f"{path}: line {number} {text}")
    return records


def read_record(line: bytes) -> dict[str, Any]:
    """A line of metrics.jsonl, {} where it is damaged."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        record: dict[str, Any] = json.loads(line)
        if isinstance(record["step"], int):
            return record
    return {}


def prediction_file(run: Path, case: str, suffix: str) -> Path:
    """A file of an evaluated test case: ``.npz``, the predicted label maps, or ``.json``, their metrics."""
    return run / "evaluation" / f"{file_name(case)}{suffix}"


def read_prediction(run: Path, case: str, grid: Grid = "prepared") -> NDArray[np.uint8]:
    """The predicted label map of a test case, uint8 [X, Y, Z], on the prepared grid or, where it was measured there,
    on that of the original scan; InputError where the run is not evaluated so, or the file is damaged.
    """
    path = prediction_file(run, case, ".npz")
    try:
        if read_sealed(prediction_file(run, case, ".json"))["labels"] != sha256(path):
            raise ValueError("it is not the one that was measured")
        with np.load(path, allow_pickle=False) as arrays:
            labels: NDArray[np.uint8] = arrays[grid]
    except Exception as error:  # zipfile and numpy raise many kinds
        raise InputError(f"{path}: cannot be read ({error}); run mixcl evaluate --run {run.name}") from None
    return labels
