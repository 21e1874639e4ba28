"""The evidence on R15: curves read off pictures, the paper's column, and what the readings say of them."""

from __future__ import annotations

import importlib
import io
import sys
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers.pages import ROOT, table

from mixcl.results import public
from mixcl.results.public import Curve

sys.path.insert(0, str(ROOT / "reproduce"))
read_curves = importlib.import_module("read_curves")
CURVES = {curve.name: curve for curve in public.curves()}


@pytest.mark.parametrize("curve", CURVES.values(), ids=lambda curve: curve.name)
def test_a_picture_is_read_to_what_is_said(curve: Curve) -> None:
    """Drawn as the notebooks draw it and read off, a curve of the same shape comes back."""
    ticks = read_curves.TICKS[curve.source.partition(" @ ")[0]]
    first, every = ticks[2]
    figure = plt.figure(figsize=(12, 6))
    figure.add_subplot(1, 2, 1).plot([0, 1000], [2.5, 0.5])
    panel = figure.add_subplot(1, 2, 2)
    panel.plot(first + every * np.arange(len(curve.dice)), curve.dice.to_numpy())
    panel.set(title="Val Mean Dice", xlabel="Iteration")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=72, bbox_inches="tight")
    plt.close(figure)
    read = read_curves.read(read_curves.pixels(picture.getvalue()), *ticks)
    assert len(read) == len(curve.dice)
    assert np.abs(read - curve.dice.to_numpy()).max() <= public.READ_WITHIN


@pytest.mark.parametrize("curve", CURVES.values(), ids=lambda curve: curve.name)
def test_a_curve_reaches_the_dice_that_its_notebook_prints(curve: Curve) -> None:
    assert curve.best is None or curve.dice.max() == pytest.approx(curve.best, abs=0.001)
    assert (curve.best is None) == (curve.name == "L")


def test_evaluations_are_where_the_notebooks_had_them() -> None:
    """A to C every 500 of 25,000 steps; L every 30 epochs of 24 steps, up to 1300 epochs, after a look at step 0."""
    for name in "ABC":
        assert list(CURVES[name].dice.index) == list(range(500, 25001, 500))
    assert list(CURVES["L"].dice.index) == [30 * 24 * k for k in range(1300 // 30 + 1)]


def test_organs_alone() -> None:
    """By hand: 14 classes of which 13 have 0.5 and the background what it is have the mean that is taken apart here."""
    printed = CURVES["A"]._replace(dice=CURVES["A"].dice * 0 + (13 * 0.5 + public.ALL_BACKGROUND) / 14)
    assert printed.organs.to_numpy() == pytest.approx(0.5)
    assert CURVES["L"].organs is CURVES["L"].dice


def test_dice_between_two_evaluations() -> None:
    (a, b), *_ = pairwise(CURVES["B"].dice)
    assert CURVES["B"].at(500) == a
    assert CURVES["B"].at(750) == pytest.approx((a + b) / 2)


def test_the_paper_s_points() -> None:
    points = public.paper_points().set_index("percent")
    assert points["by_epochs"].to_dict() == {15: 4000, 50: 12000, 100: 24000}
    assert points["by_steps"].to_dict() == {15: 2000, 50: 2000, 100: 2000}
    assert points["scratch"].to_dict() == {15: 0.2459, 50: 0.5851, 100: 0.7524}


def test_the_readings_quote_the_curves() -> None:
    """The table under "Steps or epochs", and what is said below it."""
    text = (ROOT / "reproduce/READINGS.md").read_text(encoding="utf-8")
    points = public.paper_points()
    rows = table(ROOT / "reproduce/READINGS.md", "## Steps or epochs")
    assert [row[0] for row in rows] == ["2,000", "4,000", "12,000", "24,000"]
    for row in rows:
        steps = int(row[0].replace(",", ""))
        quoted = [float(cell) for cell in row[1:5]]
        assert quoted == pytest.approx([CURVES[name].at(steps) for name in "ABCL"], abs=0.00501)
        paper = points[points["by_epochs"] == steps]
        assert row[5] == (f"{paper['scratch'].item():.4f} ({paper['percent'].item()} %)" if len(paper) else "-")
    fits = [abs(CURVES[name].at(row.by_epochs) - row.scratch) for name in "BC" for row in points.itertuples()]
    assert max(fits) <= 0.04
    assert "Epochs fit B\nand C within 0.04" in text
    assert max(curve.at(2000) for curve in CURVES.values()) == pytest.approx(0.25, abs=0.005)
