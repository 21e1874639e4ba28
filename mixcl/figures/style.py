"""The sheet that figures are drawn on: its look, how a notebook shows it, how it is written to disk."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave

from mixcl.files import whole

STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8,
    "legend.fontsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.2, "pdf.fonttype": 42,
    "figure.facecolor": "white",
}  # fmt: skip
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that colour-blind readers can tell apart (Okabe and Ito)."""


class Plot(Figure):
    """A Figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()


class Sketch(Plot):
    """A Plot of a notebook that is committed with its pictures: in 32 steps a colour, which take half the room."""

    def _repr_png_(self) -> bytes:
        drawn, small = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png", dpi=96, metadata={"Software": None})
        drawn.seek(0)
        steps = (imread(drawn, format="png")[..., :3] * 31).round() / 31
        imsave(small, steps, format="png", metadata={"Software": "mixcl"}, pil_kwargs={"optimize": True})
        return small.getvalue()


def write_caption(figure: Figure, text: str) -> None:
    """Lines of text below a figure with constrained layout."""
    if text:
        lines = textwrap.wrap(text, int(figure.get_figwidth() * 21))
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=6, linespacing=1.3)


def save(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Write ``path``.pdf and ``path``.png, each whole or not at all; the same figure gives the same bytes.

    Raises
    ------
    InputError
        A full disk or missing permission.
    """
    path = Path(path)
    written = []
    undated: dict[str, dict[str, None]] = {
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None},
    }  # fmt: skip
    for suffix, metadata in undated.items():
        place = path.with_name(f"{path.name}.{suffix}")
        with whole(place) as draft, matplotlib.rc_context(STYLE):
            figure.savefig(draft, format=suffix, dpi=200, metadata=metadata)
        written.append(place)
    return written[0], written[1]
