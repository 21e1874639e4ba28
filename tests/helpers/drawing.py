"""Figures for tests of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mixcl import figures
from mixcl.data.registry import BTCV_NAMES
from mixcl.figures.qualitative import Picture, overlay


def scan(shape: tuple[int, int, int] = (40, 30, 8)) -> Picture:
    """Grey body, liver on the patient's right, spleen on the left, and predictions that differ in slice 5."""
    image = np.full(shape, 40, np.int16)
    label = np.zeros(shape, np.uint8)
    label[26:36, 10:22, 2:7] = 6
    label[4:9, 8:14, 3:6] = 1
    off = label.copy()
    off[20:26, 10:22, 5] = 6
    return Picture(image, label, SPACING, BTCV_NAMES, {"scratch": off, "mixcl": label}, "a phantom", 5)


def points(ax: Axes, marker: str = "o") -> NDArray[np.float64]:
    """x and y of all points drawn with a marker, [n, 2]."""
    drawn = [line.get_xydata() for line in ax.lines if line.get_marker() == marker]
    places = np.concatenate([np.empty((0, 2)), *drawn])
    return places[np.isfinite(places).all(1)]


def bars(ax: Axes) -> NDArray[np.float64]:
    """Both ends of all bars of intervals, [n, 2 ends, 2]."""
    lines = [line for line in ax.lines if line.get_marker() in ("", "None") and line.get_transform() is ax.transData]
    ends = np.array([line.get_xydata() for line in lines if len(line.get_xydata()) == 2]).reshape(-1, 2, 2)
    return ends[np.isfinite(ends).all((1, 2))]


def pretraining(steps: int = 12) -> list[dict[str, Any]]:
    records = []
    for step in range(1, steps + 1):
        levels = [3.0 / step, 5.0 / step, 9.0 / step, 20.0 / step, 40.0 / step]
        record: dict[str, Any] = {
            "step": step * 10, "total": sum(levels) + 50.0 / step, "identity": sum(levels),
            "label": 1.5 / step**0.5, "recon": 5000.0 / step, "levels": levels, "without_positive": 0.0,
            "lr": 1e-4 * (1 - step / steps),
        }  # fmt: skip
        if step % 3 == 1:
            record["gradients"] = {"identity": 5.0 / step, "label": 0.01, "recon": 1.0}
        records.append(record)
    return records


SPACING = (1.5, 3.0, 2.0)
CARD = {
    "profile": "phantom", "job": "pretrain", "seed": 0, "commit": "0123456789abcdef",
    "data": "fedcba9876543210", "floors": [0.0, 0.0, 0.0, 0.0, 2.5],
    "config": {"data": {"source": "phantom"}},
}  # fmt: skip


def save_two(place: Path) -> None:
    figures.save(overlay([scan()], caption="seed 0"), place / "a.b")
    figures.save(figures.losses(pretraining(), CARD), place / "losses")
