"""Sliding-window prediction of the test cases of a fine-tuning run, and how good it is (Sec. 3.2).

Dice, HD95 and surface Dice, on the prepared grid or on that of the original scan with its own labels
(``evaluate.grid``, R32); there are::

    RUN/cases.csv                    one row a case and organ; written last, whole
    RUN/evaluation/<case>.json       the rows of a case, of which weights, settings and data they are, and checksums
    RUN/evaluation/<case>.npz        the predicted label map: on the prepared grid, and where measured on the original
    RUN/predictions/<case>.nii.gz    on request: the label map on the grid of the original scan
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm

from mixcl import files
from mixcl.config.settings import EvaluateConfig, Experiment
from mixcl.data.files.grid import spacing_of, way_back
from mixcl.data.patches import scaled
from mixcl.data.prepare.case import original_label
from mixcl.data.splits import seen_before
from mixcl.data.store import Case, Store
from mixcl.errors import InputError, enough_memory
from mixcl.metrics import measure
from mixcl.model import segmentation_model
from mixcl.run import checkpoint
from mixcl.run.device import machine, precision
from mixcl.run.record import alone, deciding, prediction_file, read_card, read_prediction
from mixcl.spreadsheet import to_csv
from mixcl.windows import original_labels, strongest_labels, window_scores

COLUMNS = (
    "task", "percent", "arm", "fold", "seed", "case", "label", "organ", "dice", "hd95_mm", "surface_dice",
    "voxels_label", "voxels_predicted", "tolerance_mm", "grid", "pretrained_on", "profile", "data",
)  # fmt: skip
"""Of cases.csv; ``pretrained_on`` is 1 where the arm's pre-training has seen the scan (R24), -1 where none knows."""


@enough_memory()
def evaluate(
    config: Experiment, out: Path, run: Path, *, save_predictions: bool = False, progress: bool = True
) -> pd.DataFrame:
    """Predict and measure the test cases of a finished fine-tuning run: what is in ``run/cases.csv``, `COLUMNS`.

    Cases that are done already, with these weights, settings and data, are not done again.  ``config`` has the settings
    of the run, but ``evaluate`` and ``run`` may differ from then; ``out`` is the folder of the results, with the
    store.  With ``save_predictions`` label maps are written as NIfTI, too.  InputError where the run is not finished,
    was made with another model or from other data, or is damaged.
    """
    _read_finished(run)
    with alone(run):
        card, names = _read_finished(run)  # again, as nobody changes it now
        net = _network(config, run, card, names)
        store, task = Store(config.data.store_dir(out), settings=config.data), card["task"]
        by_id = {case.id: case for case in store.cases(task)}
        if store.fingerprint((task,)) != card["data"]:
            raise InputError(f"{run}: was trained on another {task} than is prepared; train it with --restart")
        cases = [by_id[name] for name in card["test"]]
        rows: list[dict[str, Any]] = []
        with machine(config.run) as accelerator, accelerator.autocast():
            net.to(accelerator.device)
            for case in tqdm(cases, desc=f"evaluate {run.name}", disable=not progress, unit="case"):
                rows += _measured(net, case, config, run, card["weights"], names)
                if save_predictions:
                    labels = read_prediction(run, case.id, config.evaluate.grid)
                    if config.evaluate.grid == "prepared":  # not measured on the original grid
                        labels = way_back(case.source_shape, case.source_affine, case.spacing).nearest(labels)
                    write_nifti(_nifti(run, case), labels, case.source_affine)
        seen = seen_before(config, Store(config.data.store_dir(out)), card, cases)
        table = _table(rows, card, config, dict(zip((case.id for case in cases), seen, strict=True)))
        files.write_text(run / "cases.csv", to_csv(table))
    return table


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


def _measured(
    net: nn.Module, case: Case, config: Experiment, run: Path, weights: str, names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """The rows of a case, measured before or now; its .json, written last, tells of what and that the rest is there."""
    started = time.perf_counter()
    done, labels = (prediction_file(run, case.id, suffix) for suffix in (".json", ".npz"))
    key = {
        "weights": weights, "content": list(case.content), "spacing": list(case.spacing),
        "evaluate": deciding(config, "evaluate")["evaluate"], "source": case.source.label_sha256,
        "precision": precision(config.run),
    }  # fmt: skip
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = files.read_sealed(done)
        rows: list[dict[str, Any]] = record["rows"]
        if record["of"] == key and record["labels"] == files.sha256(labels):
            return [{**row, "organ": names[row["label"]]} for row in rows]  # by their names of now
    with files.writing(done):
        for stale in (done, _nifti(run, case)):
            stale.unlink(missing_ok=True)
    scores = window_scores(net, scaled(case.image(), config.data.hu), config)
    predicted = {"prepared": strongest_labels(scores, names)}
    if config.evaluate.grid == "original":
        back = way_back(case.source_shape, case.source_affine, case.spacing)
        predicted["original"] = original_labels(scores, back, names)
    del scores  # the largest of all
    with files.whole(labels) as draft:
        np.savez_compressed(draft, **predicted)  # type: ignore[arg-type]
    rows = _rows(case, predicted[config.evaluate.grid], config.evaluate, names)
    seconds = round(time.perf_counter() - started, 2)
    files.write_sealed(done, {"of": key, "seconds": seconds, "rows": rows, "labels": files.sha256(labels)})
    return rows


def measured_again(config: Experiment, run: Path, case: Case) -> list[dict[str, Any]]:
    """The rows of a test case, from the label map that was predicted and the one it is measured by."""
    try:
        return _rows(case, read_prediction(run, case.id, config.evaluate.grid), config.evaluate, case.names)
    except ValueError as error:
        raise InputError(f"{run.name}, {case.id}: {error}") from None


def _rows(
    case: Case, predicted: NDArray[np.uint8], settings: EvaluateConfig, names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """The metrics of each organ of a case, on the grid of the settings; None where one is undefined."""
    if settings.grid == "original":
        label, spacing, lost = original_label(case), np.round(spacing_of(case.source_affine), 4).tolist(), {}
    else:
        label, spacing, lost = case.label(), case.spacing, case.source.lost
    rows = measure(label, predicted, names, spacing=spacing, tolerance_mm=settings.tolerance_mm, lost=lost)
    return [{"case": case.id, **{k: None if v != v else v for k, v in row.items()}} for row in rows]


def write_nifti(path: Path, labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    """Write a label map that is on the grid of the original scan, in the axes of its file."""
    import nibabel as nib

    image = nib.Nifti1Image(labels, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    with files.whole(path) as draft:
        nib.save(image, draft)


def _nifti(run: Path, case: Case) -> Path:
    return run / "predictions" / f"{files.file_name(case.id)}.nii.gz"


def _table(rows: list[dict[str, Any]], card: dict[str, Any], config: Experiment, seen: dict[str, int]) -> pd.DataFrame:
    percent = float(card["percent"])
    shared = {key: card[key] for key in ("task", "arm", "fold", "seed", "profile", "data")}
    shared |= {"percent": int(percent) if percent.is_integer() else percent}
    shared |= {"tolerance_mm": config.evaluate.tolerance_mm, "grid": config.evaluate.grid}
    table = pd.DataFrame([{**shared, **row, "pretrained_on": seen[row["case"]]} for row in rows], columns=list(COLUMNS))
    return table.astype(dict.fromkeys(("dice", "hd95_mm", "surface_dice"), np.float64))
