"""The figure of the evidence on R15."""

from __future__ import annotations

import numpy as np

from mixcl import figures
from mixcl.results import public


def test_both_panels_hold_the_curves_and_the_paper_s_points() -> None:
    curves, paper = public.curves(), public.paper_points()
    figure = figures.published_curves(curves, paper)
    whole, organs = figure.axes
    drawn = {ax: [line for line in ax.lines if line.get_linestyle() != "None"] for ax in (whole, organs)}
    assert [len(drawn[ax]) for ax in (whole, organs)] == [3, 4]
    for line, curve in zip(drawn[whole], curves, strict=False):
        assert np.array_equal(line.get_ydata(), curve.dice)
        assert np.array_equal(line.get_xdata(), curve.dice.index)
    assert [line.get_linestyle() for line in drawn[organs]] == ["--", "--", "--", "-"]
    for ax in (whole, organs):
        points = {(*line.get_xdata(), *line.get_ydata()) for line in ax.lines} - {
            (*line.get_xdata(), *line.get_ydata()) for line in drawn[ax]
        }
        filled = {(r.by_epochs, dice) for r in paper.itertuples() for dice in (r.scratch, r.mixcl)}
        assert points == filled | {(2000, dice) for _, dice in filled}


def test_its_caption_names_every_source_and_what_is_read_or_derived() -> None:
    caption = figures.published_curves(public.curves(), public.paper_points()).caption
    for curve in public.curves():
        assert f"{curve.name}: {curve.source}" in caption
    for words in ("Project-MONAI/tutorials", "read off pictures, to 0.005", "erived", "arXiv 2203.02114"):
        assert words in caption
