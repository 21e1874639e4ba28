"""An axial CT slice as radiologists expect it: window, orientation, millimetres, and one colour an organ."""

import colorsys
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from scipy import ndimage

from mixcl.figures.style import SMALL
from mixcl.labels import UNKNOWN

ORGAN_COLOURS: dict[str, str] = {
    "spleen": "#c90e2c", "right kidney": "#aaf5a2", "left kidney": "#0046bd", "gallbladder": "#d3d400",
    "esophagus": "#c8cfbe", "liver": "#e16894", "stomach": "#cd997b", "aorta": "#d46d08",
    "inferior vena cava": "#76a4e1", "portal and splenic vein": "#5869ff", "pancreas": "#5ce4f9",
    "right adrenal gland": "#b15764", "left adrenal gland": "#8e4569", "kidney": "#aaf5a2",
    "liver tumour": "#ecfffe", "lung tumour": "#ffff40", "pancreas tumour": "#800020", "kidney tumour": "#ff7f00",
    "portal vein": "#5869ff", "right lung": "#7fb8a4", "left lung": "#b9a2d8", "bone": "#f2e3b3",
}  # fmt: skip
"""Organ -> colour, the same everywhere.

Stomach, kidneys, pancreas and spleen have the colours of the paper's Fig. 3.  The others were searched for so
that any two of BTCV stay apart for readers with and without red-green blindness (CIEDE2000 above 12).
"""

Array = NDArray[Any]
Window = tuple[float, float]
WINDOW: Window = (-150.0, 250.0)
FINER = 6  # points a voxel's edge of a label map that is drawn between its voxels


def organ_colour(name: str) -> tuple[float, float, float]:
    """Colour of an organ; one that is not listed gets a colour that depends on its name alone.

    >>> organ_colour("Spleen") == organ_colour("spleen"), organ_colour("heart") == organ_colour("colon")
    (True, False)
    """
    key = name.strip().lower().replace("oesophagus", "esophagus").replace("tumor", "tumour")
    if key in ORGAN_COLOURS:
        return to_rgb(ORGAN_COLOURS[key])
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    return colorsys.hls_to_rgb(number % 360 / 360, (0.4, 0.6, 0.75)[number // 360 % 3], 0.6)


def axial(volume: Array, index: int) -> Array:
    """Slice [rows, columns] of a RAS+ volume [X, Y, Z]: anterior at the top, the patient's right on the left.

    >>> volume = np.zeros((3, 2, 1))
    >>> volume[2, 1, 0] = 1  # furthest to the patient's right, furthest to the front
    >>> axial(volume, 0).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    return np.asarray(volume[:, :, index])[::-1, ::-1].T


def choose_slice(label: Array) -> int:
    """The axial slice with most labelled voxels; the lowest of equal ones.

    >>> label = np.zeros((4, 4, 5), np.uint8)
    >>> label[1:3, 1:3, 3] = 1
    >>> choose_slice(label)
    3
    """
    return int(labelled(label).sum(axis=(0, 1)).argmax())


def labelled(label: Array) -> Array:
    """Where an organ is labelled; what is unknown is not (R33)."""
    return (label > 0) & (label != UNKNOWN)


def show_ct(
    ax: Axes, image: Array, index: int, spacing: Sequence[float], window: Window = WINDOW, cmap: str = "gray",
    interpolation: str = "nearest",
) -> None:  # fmt: skip
    """Draw an axial slice of a scan in HU on axes in mm."""
    ax.imshow(
        axial(image, index), cmap=cmap, vmin=window[0], vmax=window[1], interpolation=interpolation,
        extent=extent(image.shape, spacing), origin="upper", aspect="equal",
    )  # fmt: skip
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def show_labels(
    ax: Axes, labels: Array, index: int, spacing: Sequence[float], names: Mapping[int, str], opacity: float = 0.55
) -> list[str]:
    """Lay an axial slice of a label map over what is drawn, filled and outlined; the organs in it."""
    part = axial(labels, index)
    colours = np.zeros((*part.shape, 4))
    present = organs_in(part, names)
    for value, name in present.items():
        colours[part == value] = (*organ_colour(name), opacity)
    ax.imshow(colours, extent=extent(labels.shape, spacing), origin="upper", interpolation="nearest")
    outline(ax, labels, index, spacing, names, 0.8)
    return list(present.values())


def show_smooth_labels(
    ax: Axes, labels: Array, index: int, spacing: Sequence[float], names: Mapping[int, str], opacity: float = 0.35
) -> None:
    """Lay an axial slice of a label map over a scan that is drawn between its voxels, as that is drawn.

    Organs and background are interpolated linearly to a grid `FINER` times as fine; a point is of what has most of it.
    """
    part = axial(labels, index)
    values = [0, *organs_in(part, names)]
    shares = [ndimage.zoom((part == v).astype(float), FINER, order=1, mode="nearest", grid_mode=True) for v in values]
    finer = np.array(values)[np.argmax(shares, axis=0)]
    turned = finer.T[::-1, ::-1, None]  # as axial() turns a volume, undone
    step = [spacing[0] / FINER, spacing[1] / FINER, spacing[2]]
    show_labels(ax, turned, 0, step, names, opacity)


def outline(
    ax: Axes, labels: Array, index: int, spacing: Sequence[float], names: Mapping[int, str], width: float = 1.0
) -> None:
    """The outlines of the organs of an axial slice of a label map [X, Y, Z] on axes in mm."""
    part = axial(labels, index)
    style: Any = {"extent": extent(labels.shape, spacing), "origin": "upper", "linewidths": width}
    for value, name in organs_in(part, names).items() if min(part.shape) > 1 else ():
        ax.contour(part == value, levels=[0.5], colors=[organ_colour(name)], **style)


def organs_in(part: Array, names: Mapping[int, str]) -> dict[int, str]:
    """Label value -> organ of what is in a part of a label map, by rising value."""
    return {value: name for value, name in sorted(names.items()) if (part == value).any()}


def extent(shape: Sequence[int], spacing: Sequence[float]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of an axial slice in mm."""
    return 0.0, shape[0] * float(spacing[0]), 0.0, shape[1] * float(spacing[1])


def scale_bar(ax: Axes, shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Draw a scale bar at the lower right, and R and L at the sides; the bar's length in mm."""
    _, width, _, height = extent(shape, spacing)
    length = max((mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm <= width / 3), default=1)
    edge = [patheffects.withStroke(linewidth=1.5, foreground="black")]
    right, low = 0.96 * width, 0.05 * height
    ax.plot([right - length, right], [low, low], color="white", linewidth=2, solid_capstyle="butt", path_effects=edge)
    style: dict[str, Any] = {"color": "white", "fontsize": SMALL, "path_effects": edge}
    ax.text(right - length / 2, low + 0.02 * height, f"{length} mm", ha="center", va="bottom", **style)
    ax.text(0.02 * width, height / 2, "R", ha="left", va="center", **style)
    ax.text(0.98 * width, height / 2, "L", ha="right", va="center", **style)
    return float(length)
