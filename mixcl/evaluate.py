"""Sliding-window prediction of the test cases of a fine-tuning run, and how good it is (Sec. 3.2).

Dice, the 95 % Hausdorff distance and surface Dice per organ and case; an evaluated run has::

    RUN/cases.csv                    one row a case and organ; written last, whole
    RUN/evaluation/<case>.json       the rows of a case, of which weights, settings and data they are, and checksums
    RUN/evaluation/<case>.npz        the predicted label map on the prepared grid
    RUN/predictions/<case>.nii.gz    on request: the same on the grid of the original scan

Files are named after cases by `mixcl.files.file_name`.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from mixcl import files
from mixcl.config.settings import Experiment
from mixcl.data.store import Case, Store
from mixcl.errors import InputError
from mixcl.metrics import class_indices, class_values, measure
from mixcl.model import segmentation_model
from mixcl.run import checkpoint
from mixcl.run.device import forward, machine, precision
from mixcl.run.record import alone, deciding, read_card

COLUMNS = (
    "task", "percent", "arm", "fold", "seed", "case", "label", "organ", "dice", "hd95_mm", "surface_dice",
    "voxels_label", "voxels_predicted", "tolerance_mm", "profile", "data",
)  # fmt: skip
FOLDER = "evaluation"


def evaluate(
    config: Experiment, out: Path, run: Path, *, save_predictions: bool = False, progress: bool = True
) -> pd.DataFrame:
    """Predict and measure the test cases of a finished fine-tuning run.

    Cases that are done already, with these weights, settings and data, are not done again.

    Parameters
    ----------
    config
        The settings of the run; ``config.evaluate`` and ``config.run`` may differ from then.
    out
        Folder of the results, with the store.
    run
        Folder of the run, as :func:`mixcl.trainer.finetune` returns it.
    save_predictions
        Also write ``run/predictions/<case>.nii.gz``.
    progress
        Show a bar.

    Returns
    -------
    DataFrame
        What is in ``run/cases.csv``, with the columns `COLUMNS`; :func:`mixcl.metrics.measure` tells when a
        metric is undefined.

    Raises
    ------
    InputError
        ``run`` is no finished fine-tuning run, was made with another model or from other data, or is damaged.
    """
    _read_finished(run)
    with alone(run):
        return _evaluate(config, out, run, save_predictions, progress)


def _evaluate(config: Experiment, out: Path, run: Path, save_predictions: bool, progress: bool) -> pd.DataFrame:
    card, names = _read_finished(run)
    net = _network(config, run, card, names)
    cases = _test_cases(config, out, run, card)
    rows: list[dict[str, Any]] = []
    with machine(config.run) as accelerator, accelerator.autocast():
        net.to(accelerator.device)
        for case in tqdm(cases, desc=f"evaluate {run.name}", disable=not progress, unit="case"):
            key = _key(config, card, case)
            rows += _kept(run, case, key) or _measured(net, case, config, run, key, names)
            if save_predictions:
                write_nifti(_nifti(run, case), read_prediction(run, case.id), case)
    table = _table(rows, card, config)
    files.write_text(run / "cases.csv", table.to_csv(index=False))
    return table


@torch.no_grad()
def predict(
    net: nn.Module, volume: NDArray[Any] | Tensor, config: Experiment, values: Iterable[int]
) -> NDArray[np.uint8]:
    """Label a whole scan window by window; windows overlap and are weighted by a Gaussian.

    Parameters
    ----------
    net
        A segmentation network, [B, 1, E, E, E] -> [B, n + 1, E, E, E] with the background first.
    volume
        [X, Y, Z], intensities in [0, 1]; may be smaller than a window and is then padded with 0, the lower
        end of the intensity window, as patches are.
    config
        ``model.patch`` is the window, ``evaluate.overlap`` and ``evaluate.windows`` how it moves.
    values
        The label values of the classes, see :func:`mixcl.metrics.class_values`.

    Returns
    -------
    uint8 [X, Y, Z], 0 is background.

    Raises
    ------
    ValueError
        ``values`` are not as many as the network has classes beside the background.
    """
    scores = _scores(net, volume, config)
    classes = np.array(class_values(values), np.uint8)
    if len(classes) != scores.shape[1]:
        raise ValueError(f"{len(classes) - 1} label values for a network with {scores.shape[1] - 1} classes")
    labels: NDArray[np.uint8] = classes[scores[0].argmax(0).cpu().numpy()]
    return labels


def _scores(net: nn.Module, volume: NDArray[Any] | Tensor, config: Experiment) -> Tensor:
    """[1, n + 1, X, Y, Z] of a whole scan [X, Y, Z], before any softmax."""
    from monai.inferers import sliding_window_inference

    device = next(net.parameters()).device
    training = net.training
    net.eval()
    try:
        scores: Any = sliding_window_inference(
            torch.as_tensor(np.ascontiguousarray(volume), dtype=torch.float32, device=device)[None, None],
            roi_size=(config.model.patch,) * 3,
            sw_batch_size=config.evaluate.windows,
            predictor=lambda x: forward(net, x, config.model).float(),
            overlap=config.evaluate.overlap,
            mode="gaussian",
        )
    finally:
        net.train(training)
    whole: Tensor = scores
    return whole


@torch.no_grad()
def look(net: nn.Module, cases: Sequence[Case], config: Experiment, names: Mapping[int, str]) -> dict[str, Any]:
    """How good a network is that is being trained; nothing of the training depends on it.

    ``dice``: by organ, the mean over the cases that have it; ``cross_entropy``: the mean over cases of the mean over
    voxels, without weights.  Both tell networks apart before an organ is found, where a mean of Dice cannot.
    """
    dice: dict[str, list[float]] = {}
    entropies = []
    for case in cases:
        scores = _scores(net, scaled(case, config.data.hu), config)
        target = class_indices(torch.as_tensor(np.array(case.label())), names).to(scores.device)
        entropies.append(float(nn.functional.cross_entropy(scores, target[None])))
        found = scores[0].argmax(0)
        for k, value in enumerate(class_values(names)[1:], start=1):
            both, size = ((found == k) & (target == k)).sum(), (found == k).sum() + (target == k).sum()
            if (target == k).any():
                dice.setdefault(names[value], []).append(float(2 * both / size))
    means = {organ: round(float(np.mean(values)), 4) for organ, values in dice.items()}
    return {"dice": means, "cross_entropy": round(float(np.mean(entropies)), 5)}


def read_prediction(run: Path, case: str) -> NDArray[np.uint8]:
    """The predicted label map of a test case on the prepared grid, uint8 [X, Y, Z].

    Raises
    ------
    InputError
        The run is not evaluated, or the file is damaged.
    """
    path = _file(run, case, ".npz")
    try:
        if files.read_sealed(_file(run, case, ".json"))["labels"] != files.sha256(path):
            raise ValueError("it is not the one that was measured")
        with np.load(path, allow_pickle=False) as arrays:
            labels: NDArray[np.uint8] = arrays["labels"]
    except Exception as error:  # zipfile and numpy raise many kinds
        raise InputError(f"{path}: cannot be read ({error}); run mixcl evaluate --run {run.name}") from None
    return labels


def _read_finished(run: Path) -> tuple[dict[str, Any], dict[int, str]]:
    """The card of a finished fine-tuning run, and its label values in the order of the network's classes."""
    card = read_card(run)
    if not {"task", "labels", "test"} <= card.keys():
        raise InputError(f"{run}: not a fine-tuning run, so it has no test cases; give the folder of one")
    if "weights" not in card or not (run / checkpoint.WEIGHTS).is_file():
        raise InputError(f"{run}: not finished; the same mixcl finetune command goes on where it stopped")
    return card, dict(sorted((int(value), name) for value, name in card["labels"].items()))


def _network(config: Experiment, run: Path, card: dict[str, Any], names: Mapping[int, str]) -> nn.Module:
    """The fine-tuned network, on the CPU."""
    weights, description = checkpoint.read_weights(run)
    if description["id"] != card["weights"]:
        raise InputError(f"{run / checkpoint.WEIGHTS}: not the weights of run.json; start the run over with --restart")
    now = config.model.model_dump(mode="json", exclude={"levels", "projector_width"})  # those are pre-training's
    before = description.get("model", now)
    if other := next((key for key, value in now.items() if before.get(key) != value), None):
        changed = f"model.{other} = {before.get(other)}, not {now[other]}"
        raise InputError(f"{run}: was trained with {changed}; give the settings of the run")
    net = segmentation_model(config.model, len(names))
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{run}: the weights do not fit a UNETR with {len(names)} labels ({first})") from None
    return net


def _test_cases(config: Experiment, out: Path, run: Path, card: dict[str, Any]) -> list[Case]:
    store, task = Store(config.data.store_dir(out), settings=config.data), card["task"]
    by_id = {case.id: case for case in store.cases(task)}
    if store.fingerprint((task,)) != card["data"]:
        raise InputError(f"{run}: was trained on another {task} than is prepared; train it with --restart")
    return [by_id[name] for name in card["test"]]


def _key(config: Experiment, card: dict[str, Any], case: Case) -> dict[str, Any]:
    """All that decides what is measured on a case."""
    return {
        "weights": card["weights"], "content": list(case.content), "spacing": list(case.spacing),
        "evaluate": deciding(config, "evaluate")["evaluate"],
        "precision": precision(config.run),
    }  # fmt: skip


def _kept(run: Path, case: Case, key: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of a case that was done before, or None."""
    try:
        record = files.read_sealed(_file(run, case.id, ".json"))
        rows: list[dict[str, Any]] = record["rows"]
        same = record["of"] == key and record["labels"] == files.sha256(_file(run, case.id, ".npz"))
        return rows if same else None
    except (OSError, ValueError, KeyError):
        return None


def _measured(
    net: nn.Module, case: Case, config: Experiment, run: Path, key: dict[str, Any], names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Predict and measure one case; its .json, written last, tells that the rest is there."""
    started, done, labels = time.perf_counter(), _file(run, case.id, ".json"), _file(run, case.id, ".npz")
    with files.writing(done):
        for stale in (done, _nifti(run, case)):
            stale.unlink(missing_ok=True)
    predicted = predict(net, scaled(case, config.data.hu), config, names)
    with files.whole(labels) as draft:
        np.savez_compressed(draft, labels=predicted)
    rows = measure(case.label(), predicted, names, spacing=case.spacing, tolerance_mm=config.evaluate.tolerance_mm)
    rows = [{"case": case.id, **{k: None if v != v else v for k, v in row.items()}} for row in rows]
    seconds = round(time.perf_counter() - started, 2)
    files.write_sealed(done, {"of": key, "seconds": seconds, "rows": rows, "labels": files.sha256(labels)})
    return rows


def scaled(case: Case, hu: Sequence[float]) -> NDArray[np.float32]:
    """A whole prepared scan, float32 [X, Y, Z], the window ``hu`` scaled to [0, 1] as in patches."""
    image = np.subtract(case.image(), np.float32(hu[0]), dtype=np.float32)
    image /= np.float32(hu[1] - hu[0])
    return np.clip(image, 0.0, 1.0, out=image)


def write_nifti(path: Path, labels: NDArray[np.uint8], case: Case) -> None:
    """Write a label map of the prepared grid on the grid of the original scan, by the nearest voxel."""
    import nibabel as nib
    from nibabel.processing import resample_from_to

    prepared = nib.Nifti1Image(labels, case.affine)
    # Both grids cover the same box to half a voxel: beyond the last prepared centre the last voxel goes on.
    turned = resample_from_to(prepared, (case.source_shape, case.source_affine), order=0, mode="nearest")
    image = nib.Nifti1Image(np.asarray(turned.dataobj, dtype=np.uint8), case.source_affine)
    image.set_sform(case.source_affine, code=1)
    image.set_qform(case.source_affine, code=1)
    image.header.set_xyzt_units("mm")
    with files.whole(path) as draft:
        nib.save(image, draft)


def _file(run: Path, case: str, suffix: str) -> Path:
    return run / FOLDER / f"{files.file_name(case)}{suffix}"


def _nifti(run: Path, case: Case) -> Path:
    return run / "predictions" / f"{files.file_name(case.id)}.nii.gz"


def _table(rows: list[dict[str, Any]], card: dict[str, Any], config: Experiment) -> pd.DataFrame:
    percent = float(card["percent"])
    shared = {key: card[key] for key in ("task", "arm", "fold", "seed", "profile", "data")}
    shared |= {"percent": int(percent) if percent.is_integer() else percent}
    shared |= {"tolerance_mm": config.evaluate.tolerance_mm}
    table = pd.DataFrame([{**shared, **row} for row in rows], columns=list(COLUMNS))
    return table.astype(dict.fromkeys(("dice", "hd95_mm", "surface_dice"), np.float64))
