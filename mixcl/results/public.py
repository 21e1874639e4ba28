"""Steps or epochs (R15)?  Public trainings of UNETR from scratch on BTCV, and where the paper's column lies among them.

The curves are in ``public_curves.yaml``, which ``reproduce/read_curves.py`` reads off the pictures in the tutorials of
MONAI (https://github.com/Project-MONAI/tutorials).
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from mixcl.config.settings import FinetuneConfig
from mixcl.data.registry import COLLECTIONS
from mixcl.data.splits import folds, fraction
from mixcl.results.paper import TABLE1

REPOSITORY = "Project-MONAI/tutorials"
ALL_BACKGROUND = 14 * 0.07059755
"""Dice of the background where a network predicts nothing else: a collapsed training of 14 classes logs a fourteenth of
it (3d_segmentation/swin_unetr_btcv_segmentation_3d.ipynb @ 5967dc34).  A network that has learned is nearer to 1."""
READ_WITHIN = 0.005
"""How far a value may be off that was read off a picture; on a plot drawn by matplotlib it is less."""


class Curve(NamedTuple):
    """One training on 24 scans at a constant rate of 1e-4; Dice is of the 6 other scans.

    ``crops``: patches of 96^3 a step.  ``background``: Dice is the mean of 14 classes, the background one of them, not
    of 13 organs.  ``best``: the highest Dice as its notebook prints it, which tells how well the picture was read.
    """

    name: str
    source: str
    crops: int
    background: bool
    best: float | None
    dice: pd.Series

    @property
    def organs(self) -> pd.Series:
        """Dice of the organs alone, where the background counts derived with `ALL_BACKGROUND` (too high by 0.001)."""
        return (14 * self.dice - ALL_BACKGROUND) / 13 if self.background else self.dice

    def at(self, steps: float) -> float:
        """Dice after so many steps, between two evaluations on the line that joins them."""
        known = self.dice.reindex(self.dice.index.union([steps])).interpolate("index")
        return float(known[steps])


def curves() -> list[Curve]:
    """The public trainings, Dice by steps."""
    runs = yaml.safe_load(Path(__file__).with_name("public_curves.yaml").read_text(encoding="utf-8"))
    return [
        Curve(
            name, f"{run['notebook']} @ {run['commit'][:8]}", run["crops"], run["background"], run["best"],
            pd.Series(run["dice"], [run["first"] + run["every"] * k for k in range(len(run["dice"]))], name="dice"),
        )
        for name, run in runs.items()
    ]  # fmt: skip


def paper_points() -> pd.DataFrame:
    """The paper's BTCV column: percent, scans of a fold, Dice from scratch and with MixCL, steps by both readings."""
    scans, _ = folds(map(str, range(COLLECTIONS["btcv"].count or 0)))[0]
    rows = []
    for (task, percent), row in TABLE1.items():
        if task == "btcv":
            share = len(fraction(scans, percent))
            steps = [FinetuneConfig(**{length: 2000}).total_steps(share) for length in ("epochs", "steps")]
            rows.append((percent, share, row.scratch, row.mixcl, *steps))
    return pd.DataFrame(rows, columns=["percent", "scans", "scratch", "mixcl", "by_epochs", "by_steps"])
