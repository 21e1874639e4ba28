"""Evaluated runs as an evaluation leaves them, without a training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from mixcl.run.jobs import finetune_job

COLUMNS = (
    "task", "percent", "arm", "fold", "seed", "case", "label", "organ", "dice", "hd95_mm", "surface_dice",
    "voxels_label", "voxels_predicted", "tolerance_mm", "grid", "pretrained_on", "profile", "data",
)  # fmt: skip


LABELS = {"msd_spleen": {1: "spleen"}, "btcv": {1: "spleen", 6: "liver", 11: "pancreas"}}


VARIANTS = {"id": ["loss.alpha=0", "loss.beta=0"], "id-label": ["loss.beta=0", "pretrain.lr=0.1"]}


GRID = {
    "percents": {"msd_spleen": [5, 15], "btcv": [15]}, "folds": [0, 1], "seeds": [0],
    "ablation": {"btcv": 15}, "variants": VARIANTS,
}  # fmt: skip


CONFIG = {
    "grid": GRID,
    "data": {"source": "phantom", "finetune": ["msd_spleen", "btcv"], "phantom": {"seed": 2, "difficulty": 1.5}},
    "loss": {"identity": 1.0, "alpha": 0.01, "beta": 0.01},
}  # fmt: skip


Dice = dict[str, dict[int, float | None]]  # by case and label; None is absent


NONE = {1: None, 6: None, 11: None}


def write_run(
    out: Path, task: str, percent: float, arm: str, fold: int, dice: Dice, *, seed: int = 0, **more: Any
) -> Path:
    """A run as an evaluation leaves it; Dice 0 is an organ that was missed."""
    run = out / "runs" / finetune_job(task, percent, arm, fold, seed)
    run.mkdir(parents=True)
    card = {
        "profile": "phantom", "commit": "0123456789abcdef0123", "data": f"{task:x<64}", "task": task,
        "arm": arm, "percent": percent, "fold": fold, "seed": seed,
        "weights": hashlib.sha256(run.name.encode()).hexdigest(),
        "seconds_of_last_part": 12.5,
        "labels": {str(k): v for k, v in LABELS[task].items()}, "test": list(dice),
        "train": [f"{task} {percent:g} {fold} {seed}"],
        "config": CONFIG,
        "decides": {
            "finetune": {"steps": 500}, "init": "none" if arm == "scratch" else "0" * 64, "arm": arm, "fold": fold,
        }, **more,
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(card))
    rows = []
    for case, organs in dice.items():
        for label, value in organs.items():
            present, found = value is not None, value not in (None, 0.0)
            rows.append(
                {
                    "task": task, "percent": f"{percent:g}", "arm": arm, "fold": fold, "seed": seed,
                    "case": case, "label": label, "organ": LABELS[task][label], "dice": value,
                    "hd95_mm": 10.0 * (1 - value) if found else None, "surface_dice": value,
                    "voxels_label": 100 * present, "voxels_predicted": 90 * found, "tolerance_mm": 2.0,
                    "grid": "prepared", "pretrained_on": 0, "profile": "phantom", "data": card["data"],
                }
            )  # fmt: skip
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(run / "cases.csv", index=False)
    return run
