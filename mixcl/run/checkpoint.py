"""What a training run leaves on disk: weights and optimiser state as safetensors, metrics as JSON lines.

Nothing is pickled and no pickle is ever read.  A checkpoint is written beside the old one and put in its place by one
rename, so that a run killed at any moment has a whole one.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mixcl.errors import InputError
from mixcl.files import whole, write_text, writing
from mixcl.run.record import WEIGHTS, read_metrics

FOLDER = "checkpoint"


def write_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors with a JSON description, whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with whole(path) as draft:
        save_file(tensors, draft, {"mixcl": json.dumps(metadata, sort_keys=True)})


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a weights file, or of the finished run in a folder.

    Raises
    ------
    InputError
        No such file, not safetensors (a pickle is never opened), or cut short.
    """
    if path.is_dir():
        path = path / WEIGHTS
    if not path.is_file():
        raise InputError(f"{path}: no such weights; give a .safetensors file or the folder of a finished run")
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: only .safetensors files are opened, because a pickle can run code; convert it first")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("mixcl", "{}"))
        if not isinstance(metadata, dict):
            raise ValueError("its description is no JSON object")
        return load_file(path), metadata
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); copy or make it again") from None


def save(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Any]) -> None:
    """Write a checkpoint of ``step`` into ``folder``/checkpoint, in the place of the one before."""
    with writing(folder):
        new, old = folder / f".{FOLDER}.new", folder / f".{FOLDER}.old"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        write_weights(new / WEIGHTS, model.state_dict(), {"step": step})
        state = optimizer.state_dict()
        tensors = {f"{i}.{key}": torch.as_tensor(v) for i, part in state["state"].items() for key, v in part.items()}
        write_weights(new / "optimizer.safetensors", tensors, {"step": step})
        write_text(new / "state.json", json.dumps({"step": step, **extra}))
        if (folder / FOLDER).exists():
            shutil.rmtree(old, ignore_errors=True)
            (folder / FOLDER).replace(old)
        new.replace(folder / FOLDER)
        shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Take up the checkpoint in ``folder``; the state written with it, or {} where there is none."""
    place = _whole(folder)
    if place is None:
        return {}
    weights, _ = read_weights(place / WEIGHTS)
    tensors, _ = read_weights(place / "optimizer.safetensors")
    try:
        model.load_state_dict(weights)
        state = optimizer.state_dict()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, _, key = name.partition(".")
            like = parameters[int(index)]
            if value.shape == like.shape:  # lie in memory as it does: a fused optimiser goes through both in that order
                value = torch.empty_like(like, dtype=value.dtype).copy_(value)
            entries.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({**state, "state": entries})
        restored: dict[str, Any] = json.loads((place / "state.json").read_text(encoding="utf-8"))
    except (RuntimeError, ValueError, OSError) as error:
        text = f"the checkpoint cannot be taken up ({str(error).strip().splitlines()[0]})"
        raise InputError(f"{place}: {text}; delete the folder to start over") from None
    return restored


def _whole(folder: Path) -> Path | None:
    """The newest whole checkpoint; a kill between two renames leaves the older one under its temporary name."""
    places = (folder / FOLDER, folder / f".{FOLDER}.old")
    return next((place for place in places if (place / "state.json").is_file()), None)


def finish(folder: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write the weights of a finished run and drop its checkpoint."""
    write_weights(folder / WEIGHTS, state, metadata)
    for name in (FOLDER, f".{FOLDER}.old", f".{FOLDER}.new"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder / WEIGHTS


class Metrics:
    """metrics.jsonl of a run: one line a record, taken up at a step by dropping the lines after it."""

    def __init__(self, folder: Path, step: int, tensorboard: bool = False) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.board = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one record."""
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self.board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self.board.add_scalar(name, value, step)
