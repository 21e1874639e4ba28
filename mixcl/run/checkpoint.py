"""What a training run leaves on disk: weights and optimiser state as safetensors.

Nothing is pickled and no pickle is ever read.  The last two checkpoints are kept, ``checkpoint/<step>/``, each with a
manifest of checksums: what a kill, a power cut or a bad disk did to the newest is noticed, and the one before is taken.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mixcl.errors import InputError
from mixcl.files import read_sealed, sha256, sync, whole, whole_folder, write_sealed, writing
from mixcl.run import record
from mixcl.run.record import WEIGHTS, read_card
from mixcl.run.record import read_metrics as read_metrics

FOLDER, OPTIMIZER, MANIFEST = "checkpoint", "optimizer.safetensors", "state.json"
KEPT = 2  # checkpoints
AGAIN = "copy it again, or start the run over with --restart"


def write_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors with a JSON description, whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with whole(path) as draft:
        save_file(tensors, draft, {"mixcl": json.dumps(metadata, sort_keys=True)})


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a weights file, or of the finished run in a folder.

    Raises InputError where there is none, or it is no safetensors (a pickle is never opened), cut short, or changed.
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
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); {AGAIN}") from None
    identity = weights_id(weights)
    if metadata.get("id", identity) != identity:
        raise InputError(f"{path}: its weights are not those that were written; {AGAIN}")
    return weights, {**metadata, "id": identity}


def read_start(path: Path, task: str, data: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What :func:`read_weights` gives, of weights that a fine-tuning on ``task`` may start from.

    Refused are those fine-tuned on the very scans of the task (``data`` is their fingerprint), perhaps tested ones.
    """
    weights, source = read_weights(path)
    if str(source.get("job")).startswith("finetune-") and source.get("data") == data:
        text = f"was fine-tuned on {task} ({source['job']}), perhaps on cases that are tested here"
        raise InputError(f"{path}: {text}; start from a pre-training")
    return weights, source


def weights_id(state: Mapping[str, Tensor]) -> str:
    """The name of weights, see :func:`mixcl.run.record.weights_id`."""
    flat = {name: value.detach().cpu().contiguous().reshape(-1) for name, value in state.items()}
    return record.weights_id({name: value.view(torch.uint8).numpy() for name, value in flat.items()})


def finished(folder: Path) -> bool:
    """Whether the run in a folder is finished; an InputError where its weights are damaged or not those of its card."""
    if not (folder / WEIGHTS).is_file():
        return False
    _, description = read_weights(folder)
    if description["id"] != read_card(folder).get("weights"):
        raise InputError(f"{folder / WEIGHTS}: not the weights of run.json; {AGAIN}")
    return True


def save(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Any]) -> None:
    """Write a checkpoint, with a manifest of checksums, before a rename makes it one; the one before is kept."""
    with whole_folder(folder / FOLDER / f"{step:09d}") as draft:  # one of the same step is damaged
        write_weights(draft / WEIGHTS, model.state_dict(), {"step": step})
        state = optimizer.state_dict()
        tensors = {f"{i}.{key}": torch.as_tensor(v) for i, part in state["state"].items() for key, v in part.items()}
        write_weights(draft / OPTIMIZER, tensors, {"step": step})
        sums = {name: sha256(draft / name) for name in (WEIGHTS, OPTIMIZER)}
        write_sealed(draft / MANIFEST, {"step": step, **extra, "files": sums})
    with writing(folder):
        sync(folder)
    for old in (*_places(folder)[KEPT:], *(folder / FOLDER).glob(".*")):
        shutil.rmtree(old, ignore_errors=True)


def restore(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, warn: Callable[[str], object] = print
) -> dict[str, Any]:
    """Take up the newest whole checkpoint; the state written with it, or {} where there is none.

    ``warn`` is told of each newer one that is damaged; an InputError where all are, or it is of another model.
    """
    places = _places(folder)
    for place in places:
        try:
            state = read_sealed(place / MANIFEST)
            if other := [name for name, value in state.pop("files").items() if sha256(place / name) != value]:
                raise ValueError(f"{other[0]} has not the content that was saved")
        except (OSError, ValueError, KeyError) as error:
            warn(f"{place}: this checkpoint is damaged ({error}); the one before is taken")
            continue
        _load(place, model, optimizer)
        return state
    if places:
        raise InputError(f"{folder / FOLDER}: no checkpoint there is whole; delete the folder to start over")
    return {}


def _load(place: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    weights, _ = read_weights(place / WEIGHTS)
    tensors, _ = read_weights(place / OPTIMIZER)
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
    except (RuntimeError, ValueError, IndexError) as error:
        text = f"the checkpoint cannot be taken up ({str(error).strip().splitlines()[0]})"
        raise InputError(f"{place}: {text}; delete the folder to start over") from None


def _places(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted((folder / FOLDER).glob("[0-9]*"), reverse=True)


def finish(folder: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write the weights of a finished run and drop its checkpoints."""
    write_weights(folder / WEIGHTS, state, metadata)
    drop(folder)
    return folder / WEIGHTS


def drop(folder: Path) -> None:
    """Take away the checkpoints of a finished run."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
