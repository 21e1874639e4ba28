"""The theme of every figure, how a notebook shows one, and how it is written to disk with its caption."""

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import matplotlib
import seaborn
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from PIL import Image

from mixcl.files import whole

_WINDOW = ("backend", "interactive", "toolbar", "tk.", "webagg.")  # how windows are shown is left to the user
STYLE: Any = {
    **{key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(_WINDOW)},
    **seaborn.axes_style("ticks"),
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8,
    "legend.fontsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.2, "pdf.fonttype": 42,
    "lines.solid_capstyle": "butt",
}  # fmt: skip
"""Every setting of a figure, for ``matplotlib.rc_context``: a user's matplotlibrc has no say in it."""
LESSON: Any = {
    **STYLE, "font.size": 12, "axes.titlesize": 11, "axes.labelsize": 11, "legend.fontsize": 10,
    "xtick.labelsize": 10, "ytick.labelsize": 10, "lines.linewidth": 1.8,
}  # fmt: skip
"""Of the walk-through's figures, which a class reads off a wall: no text is smaller than 10 points."""
COLOURS, PLAIN = 192, 32  # of a lesson's picture, beside 64 greys, and of one that holds no image
SMALL = "small"  # of what stands in a picture: 10 points in a lesson, below 7 in print
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that colour-blind readers can tell apart (Okabe and Ito)."""


class Plot(Figure):
    """A Figure that a notebook shows without pyplot; its ``caption`` is also written into its files."""

    caption = alt = ""  # alt: what is to be seen, for those who do not see it; else the caption is
    theme, room = STYLE, 0.5  # inches, below a grid

    @classmethod
    @contextmanager
    def sized(
        cls, width: float, height: float, rows: int = 1, columns: int = 1, **subplots: Any
    ) -> Iterator[tuple[Self, Any]]:
        """A figure of a width and height in inches and its axes, as ``subplots`` gives them, to draw on."""
        with matplotlib.rc_context(cls.theme):
            figure = cls(figsize=(width, height), layout="constrained")
            yield figure, figure.subplots(rows, columns, **subplots)

    @classmethod
    @contextmanager
    def grid(
        cls, count: int, columns: int, width: float, height: float, **sharing: Any
    ) -> Iterator[tuple[Self, list[Axes]]]:
        """A figure of ``count`` panels of a width and height in inches, at least one, to draw on in its theme."""
        columns = max(min(count, columns), 1)
        rows = max(-(-count // columns), 1)
        size = (width * columns, height * rows + cls.room)
        with cls.sized(*size, rows, columns, squeeze=False, **sharing) as (figure, table):
            axes = list(table.ravel())
            for ax in axes[max(count, 1) :]:
                ax.set_axis_off()
            if not count:
                axes[0].set_title("no run of it yet")
            yield figure, axes[: max(count, 1)]

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        return self._png(110), {"alt": self.alt or self.caption}

    def _png(self, dpi: float) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        return buffer.getvalue()


class Sketch(Plot):
    """A Plot of the walk-through: twice the pixels, in few colours so that a notebook stays small."""

    theme, room = LESSON, 0.4

    def __repr__(self) -> str:
        return f"Figure: {self.alt}"

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        picture, small = Image.open(io.BytesIO(self._png(192))).convert("RGB"), io.BytesIO()
        few = picture.quantize(PLAIN, method=Image.Quantize.MAXCOVERAGE)
        if any(ax.images or any(isinstance(c, QuadMesh) for c in ax.collections) for ax in self.axes):
            many = picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
            both = [*many[: 3 * COLOURS], *(255 * k // 63 for k in range(64) for _ in range(3))]
            few.putpalette([level if level < 248 else 255 for level in both])  # white is white
        picture.quantize(palette=few, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
        wide, tall = (edge // 2 for edge in picture.size)
        return small.getvalue(), {"width": wide, "height": tall, "alt": self.alt}


AnyPlot = TypeVar("AnyPlot", bound=Plot)


def plain(text: str) -> str:
    """A name of the user's, as it is: matplotlib takes what stands between two dollars for mathematics.

    >>> plain("liver_$2$")
    'liver_\\\\$2\\\\$'
    """
    return text.replace("$", r"\$")


def write_caption(figure: AnyPlot, text: str, alt: str = "") -> AnyPlot:
    """Lines of text below a figure with constrained layout, and what there is to be seen on it; the figure."""
    figure.caption, figure.alt = text.strip(), alt
    if figure.caption:
        points = 10 if isinstance(figure, Sketch) else 6
        lines = textwrap.wrap(figure.caption, int(figure.get_figwidth() * 126 / points))
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=points, linespacing=1.3)
    return figure


def save(figure: Plot, path: Path) -> None:
    """Write ``path``.pdf and ``path``.png, each whole or not at all; the same figure gives the same bytes.

    The caption is the PDF's ``Subject`` and the PNG's ``Description``.  Raises `InputError` for a full disk or missing
    permission.
    """
    undated: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None, "Subject": figure.caption},
        "png": {"Software": None, "Description": figure.caption},
    }
    for suffix, metadata in undated.items():
        with whole(path.with_name(f"{path.name}.{suffix}")) as draft, matplotlib.rc_context(STYLE):
            figure.savefig(draft, format=suffix, dpi=200, metadata=metadata)
