"""Where metrics go beside metrics.jsonl: TensorBoard, MLflow or Weights & Biases, by accelerate's trackers.

Nothing leaves the machine unless the user's environment says so: MLflow writes into ``OUT/mlruns`` unless
MLFLOW_TRACKING_URI names a place, and wandb works offline in the run's folder unless WANDB_MODE says ``online``.
"""

import importlib.util
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from mixcl.errors import InputError
from mixcl.files import read_json, write_json
from mixcl.run.record import flat

PROJECT = "mixcl"


def check(kind: str | None) -> None:
    """Refuse a tracker that is not installed."""
    if kind is not None and importlib.util.find_spec(kind) is None:
        raise InputError(f"run.tracker is {kind}, which is not installed; pip install -e '.[{kind}]' in the repository")


def start(kind: str | None, folder: Path, step: int, card: Mapping[str, Any]) -> GeneralTracker | None:
    """A tracker that is ready for the records after ``step``, or None where ``kind`` is; a run taken up goes on in it.

    The run's folder keeps in tracker.json by which id it is known there; the tracker shows the settings of its card.
    """
    if kind is None:
        return None
    check(kind)
    known = folder / "tracker.json"
    before: Any = read_json(known).get(kind) if known.is_file() and step else None
    tracker: GeneralTracker
    if kind == "tensorboard":
        name = folder.name
        tracker = TensorBoardTracker(kind, logging_dir=folder, purge_step=step + 1)
    elif kind == "wandb":
        name, mode = before or uuid.uuid4().hex, os.environ.get("WANDB_MODE", "offline")
        tracker = WandBTracker(PROJECT, name=folder.name, id=name, dir=str(folder), mode=mode, resume="allow")
    else:
        if "MLFLOW_TRACKING_URI" not in os.environ:
            # a folder, because jobs side by side would meet in making a database; MLflow asks to say so
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
            importlib.import_module("mlflow").set_tracking_uri((folder.absolute().parents[1] / "mlruns").as_uri())
        name = before  # MLflow itself gives the first
        tracker = MLflowTracker(PROJECT, run_id=before, run_name=folder.name)
    tracker.start()
    if before is None and kind != "tensorboard":
        tracker.store_init_configuration({key: str(value) for key, value in flat(card.get("config", {})).items()})
    write_json(known, {kind: name or tracker.tracker.info.run_id})
    return tracker
