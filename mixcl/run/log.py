"""The log of a training: means over its steps, watched for what is not finite, in metrics.jsonl and a tracker.

Beside metrics.jsonl they go to TensorBoard, MLflow or Weights & Biases, by accelerate's trackers.  Nothing leaves the
machine unless the user's environment says so: MLflow writes into ``OUT/mlruns`` unless MLFLOW_TRACKING_URI names a
place, and wandb works offline in the run's folder unless WANDB_MODE says ``online``.
"""

import hashlib
import importlib.util
import json
import math
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker
from torch import Tensor, nn

from mixcl.errors import InputError
from mixcl.files import read_json, sha256, sync, whole, write_json, writing
from mixcl.run.record import flat, read_record

MEND = "lower the learning rate or set run.precision=no, and look at these scans; what was saved before is kept"
PROJECT = "mixcl"


class Steps:
    """Steps since the last record, or the ``state`` of a stopped run; only `means` and `check` wait for tensors."""

    def __init__(self, state: Iterable[dict[str, Any]] = ()) -> None:
        self.entries = [
            {
                **entry,
                "shared": True,
                "tensors": {name: torch.tensor(value) for name, value in entry["tensors"].items()},
            }
            for entry in state  # which every rank reads alike, whoever was stopped
        ]

    def add(self, number: int, samples: list[int], values: dict[str, Any], gradient: Tensor | None) -> None:
        """Note step ``number``: the samples of its batch, its terms and other ``values``, its gradient's norm."""
        tensors = {name: value.detach() for name, value in values.items() if isinstance(value, Tensor)}
        others = {name: value for name, value in values.items() if name not in tensors}
        watched = {} if gradient is None else {"the gradient's norm": gradient}
        entry = {"number": number, "samples": samples, "names": list(values), "tensors": tensors | watched}
        self.entries.append({**entry, "others": others})

    def share(self, over_ranks: Callable[[Tensor, str], Tensor]) -> None:
        """Put what all ranks had in the place of this one's terms: their mean or, of counts, their sum.

        ``over_ranks(tensor, "mean" or "sum")`` does it for one tensor.  What was shared before stays.
        """
        fresh = [entry for entry in self.entries if not entry.get("shared")]
        for name in fresh[-1]["tensors"] if fresh else ():
            values = [entry["tensors"][name] for entry in fresh]
            kind = "mean" if values[0].is_floating_point() else "sum"
            for entry, value in zip(fresh, over_ranks(torch.stack(values).double(), kind), strict=True):
                entry["tensors"][name] = value
        for entry in fresh:
            entry["shared"] = True

    def means(self) -> dict[str, Any]:
        """Mean of each term over the steps; of values given now and then, such as gradient norms, the last."""
        record: dict[str, Any] = {}
        for name in dict.fromkeys(name for entry in self.entries for name in entry["names"]):
            if name in self.entries[-1]["tensors"]:
                record[name] = self._column(name).mean(0).tolist()
            else:
                record[name] = [entry["others"][name] for entry in self.entries if name in entry["others"]][-1]
        return record

    def check(self, job: str, scans: Callable[[list[int]], str], saved: nn.Module | None = None) -> None:
        """Refuse to go on from terms, gradients or, of a network to be ``saved``, weights that are not finite."""
        names, steps = list(self.entries[-1]["tensors"]), len(self.entries)
        names = [name for name in names if all(name in entry["tensors"] for entry in self.entries)]
        columns = [self._column(name).isfinite().reshape(steps, -1).all(1) for name in names]
        finite = torch.stack(columns).cpu()  # [terms, steps]
        if not finite.all():
            step = int((~finite.all(0)).nonzero()[0])
            what, entry = names[int((~finite[:, step]).nonzero()[0])], self.entries[step]
            fault = f"{what} is not finite at step {entry['number']}"
        elif saved is not None and (bad := _not_finite(saved)):
            entry = self.entries[-1]
            fault = f"{bad} weights are not finite after step {entry['number']}"
        else:
            return
        raise InputError(f"{job}: {fault}, with scans {scans(entry['samples'])}; {MEND}")

    def state(self) -> list[dict[str, Any]]:
        """The steps as JSON takes them, to be kept in a checkpoint."""
        return [
            {**entry, "tensors": {name: value.double().tolist() for name, value in entry["tensors"].items()}}
            for entry in self.entries
        ]

    def _column(self, name: str) -> Tensor:
        """A term over the steps, float64 [steps, ...]."""
        device = self.entries[-1]["tensors"][name].device
        return torch.stack([entry["tensors"][name].double().to(device) for entry in self.entries])


def _not_finite(module: nn.Module) -> str:
    """How many weights are not finite, of how many; nothing where all are."""
    weights = [value for value in module.state_dict().values() if value.is_floating_point()]  # counters are finite
    if nn.utils.get_total_norm(weights, norm_type=math.inf).isfinite():
        return ""
    return f"{sum(not value.isfinite().all() for value in weights)} of {len(weights)}"


def gradient_norm(optimizer: torch.optim.Optimizer, scaler: object) -> Tensor | None:
    """Norm of the gradient of all weights, on their device; None where a scaler (fp16) may let it overflow."""
    weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return None if scaler else nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])


class Metrics:
    """metrics.jsonl of a run: one line a record, taken up where the checkpoint left it.

    ``state`` is what the method gave when the checkpoint was written, with its ``step``, or {} to begin anew; the
    numbers of each record go to the ``tracker`` as well, and ``warn`` is told of records that were lost.
    """

    def __init__(
        self, folder: Path, state: Mapping[str, Any], tracker: GeneralTracker | None = None,
        warn: Callable[[str], object] = print,
    ) -> None:  # fmt: skip
        self.path, step = folder / "metrics.jsonl", state.get("step", 0)
        before = self.path.read_bytes() if self.path.is_file() else b""
        kept = before[: state.get("bytes", 0)]
        if hashlib.sha256(kept).hexdigest() != state.get("sha256", hashlib.sha256().hexdigest()):
            lines = [line for line in before.splitlines(True) if 0 < read_record(line).get("step", 0) <= step]
            kept = b"".join(lines)
            warn(f"{self.path}: was cut or changed since step {step} was saved; {len(lines)} records are left")
        with whole(self.path) as draft:
            draft.write_bytes(kept)
        self.tracker = tracker

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to know; the records are on the disk then."""
        sync(self.path)
        return {"bytes": self.path.stat().st_size, "sha256": sha256(self.path)}

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self.tracker is not None:
            numbers = {name: value for name, value in flat(values).items() if isinstance(value, int | float)}
            self.tracker.log(numbers, step=step)

    def close(self) -> None:
        if self.tracker is not None:
            self.tracker.finish()


def check_tracker(kind: str | None) -> None:
    """Refuse a tracker that is not installed."""
    if kind is not None and importlib.util.find_spec(kind) is None:
        raise InputError(f"run.tracker is {kind}, which is not installed; pip install -e '.[{kind}]' in the repository")


def start_tracker(kind: str | None, folder: Path, step: int, card: Mapping[str, Any]) -> GeneralTracker | None:
    """A tracker that is ready for the records after ``step``, or None where ``kind`` is; a run taken up goes on in it.

    The run's folder keeps in tracker.json by which id it is known there; the tracker shows the settings of its card.
    """
    if kind is None:
        return None
    check_tracker(kind)
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
