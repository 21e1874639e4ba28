"""Read public training curves off their pictures: Dice of UNETR on BTCV, which MONAI's tutorials have as plots alone.

    git clone https://github.com/Project-MONAI/tutorials
    python reproduce/read_curves.py tutorials    # writes mixcl/results/public_curves.yaml

A picture is the output of a notebook at a commit.  Its right panel is found by its frame and calibrated on its ticks,
whose values stand below.  The line is fitted as straight pieces between the evaluations: each column of pixels gives
its mean height.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.image import imread
from numpy.typing import NDArray

KEPT = Path(__file__).resolve().parents[1] / "mixcl" / "results" / "public_curves.yaml"
NOTEBOOKS = "3d_segmentation/unetr_btcv_segmentation_3d"
PLAIN = {"notebook": f"{NOTEBOOKS}.ipynb", "background": True, "first": 500, "every": 500}
LIGHTNING = {"notebook": f"{NOTEBOOKS}_lightning.ipynb", "background": False, "first": 0, "every": 720}
RUNS: dict[str, dict[str, Any]] = {  # best: as the notebook prints it, where it does
    "A": {**PLAIN, "commit": "51a3e3b0220196665371405ba2914de83fd8e295", "crops": 8, "best": 0.8064},
    "B": {**PLAIN, "commit": "fb8bb797d3a5d5213fb79166254c2d7b1aa902d0", "crops": 4, "best": 0.7891},
    "C": {**PLAIN, "commit": "6382e8ae10c80f0d7301caaf674b41d5ff6d79b4", "crops": 4, "best": 0.8027},
    "L": {**LIGHTNING, "commit": "0b83d86a465572493d631aa494c615d2d5caa8db", "crops": 4, "best": None},
}
TICKS = {  # of the right panel: first and distance of ticks across, of ticks up, and of the drawn values
    PLAIN["notebook"]: ((0, 5000), (0.1, 0.1), (500, 500)),
    LIGHTNING["notebook"]: ((0, 2000), (0.0, 0.1), (250, 250)),
}


def main(clone: str) -> None:
    """Read every run and write the file."""
    runs = {}
    for name, run in RUNS.items():
        dice = read(picture(clone, run["commit"], run["notebook"]), *TICKS[run["notebook"]])
        runs[name] = {**run, "dice": [round(float(value), 3) for value in dice]}
        print(f"{name}: {len(dice)} values, the highest {dice.max():.4f}, printed {run['best']}")
    head = "# Written by reproduce/read_curves.py from pictures; see there and mixcl/results/public.py.\n"
    KEPT.write_text(head + yaml.safe_dump(runs, sort_keys=False, width=118, default_flow_style=None), encoding="utf-8")


def picture(clone: str, commit: str, notebook: str) -> NDArray[np.float64]:
    """The notebook's plot of the training as it is at a commit, as `pixels` are."""
    text = subprocess.run(
        ["git", "-C", clone, "show", f"{commit}:{notebook}"], check=True, capture_output=True, text=True
    ).stdout
    plots = [
        output["data"]["image/png"]
        for cell in json.loads(text)["cells"] if 'plt.figure("train"' in "".join(cell["source"])
        for output in cell["outputs"] if "image/png" in output.get("data", {})
    ]  # fmt: skip
    (plot,) = plots
    return pixels(base64.b64decode("".join(plot)))


def pixels(png: bytes) -> NDArray[np.float64]:
    """A PNG's red, green and blue from 0 to 255, [height, width, 3]."""
    return 255.0 * imread(io.BytesIO(png), format="png")[..., :3]


def read(
    image: NDArray[np.float64], x_ticks: tuple[float, float], y_ticks: tuple[float, float], at: tuple[float, float]
) -> NDArray[np.float64]:
    """Heights of the line in the right panel at x = ``at[0]``, ``at[0] + at[1]``, ... to its end.

    ``x_ticks``, ``y_ticks`` are the value of the first tick and the distance of two; matplotlib's default colours.
    """
    dark = image.max(axis=2) < 128
    left, right = np.flatnonzero(dark.sum(axis=0) > 0.6 * len(dark))[-2:]
    top, bottom = np.flatnonzero(dark[:, left:right].sum(axis=1) > 0.9 * (right - left))[[0, -1]]
    below, beside = np.flatnonzero(dark[bottom + 2]), np.flatnonzero(dark[:, left - 2])[::-1]
    columns, rows = below[(below >= left) & (below <= right)], beside[(beside >= top) & (beside <= bottom)]
    # matplotlib moves a tick to the nearest border of two pixels and draws it right of and below that; the line stays
    x = np.polyfit(columns - 0.5, x_ticks[0] + x_ticks[1] * np.arange(len(columns)), 1)
    y = np.polyfit(rows - 0.5, y_ticks[0] + y_ticks[1] * np.arange(len(rows)), 1)

    ink = np.clip(255 - image[top + 1 : bottom, left + 1 : right, 0], 0, None)  # the line is blue: no red in it
    drawn = np.flatnonzero(ink.sum(axis=0) > 128)
    heights = np.polyval(y, (ink * np.arange(top + 1, bottom)[:, None]).sum(axis=0)[drawn] / ink.sum(axis=0)[drawn])
    end = np.polyval(x, drawn[-1] + left + 1)
    points = at[0] + at[1] * np.arange(round((end - at[0]) / at[1]) + 1)
    within = np.polyval(x, drawn[:, None] + left + 1 + np.linspace(-0.45, 0.45, 10))
    weights = np.stack([np.interp(within, points, unit).mean(axis=1) for unit in np.eye(len(points))], axis=1)
    fitted: NDArray[np.float64] = np.linalg.lstsq(weights, heights, rcond=None)[0]
    return fitted


if __name__ == "__main__":
    main(sys.argv[1])
