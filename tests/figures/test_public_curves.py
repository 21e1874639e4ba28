"""The evidence on R15: curves read off pictures, the paper's column, and what the readings say of them."""

from __future__ import annotations

import importlib
import io
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers.pages import ROOT, table
from PIL import Image

sys.path.insert(0, str(ROOT / "figures"))
public = importlib.import_module("public_curves")
CURVES = {name: column.dropna() for name, column in public.curves().items()}
POINTS = public.paper_points()


@pytest.mark.parametrize("name", CURVES)
def test_a_picture_is_read_to_what_is_said(name: str) -> None:
    """Drawn as the notebooks draw it and read off, a curve of the same shape comes back."""
    dice = CURVES[name].to_numpy()
    ticks = public.TICKS[public.RUNS[name]["notebook"]]
    first, every = ticks[2]
    figure = plt.figure(figsize=(12, 6))
    figure.add_subplot(1, 2, 1).plot([0, 1000], [2.5, 0.5])
    panel = figure.add_subplot(1, 2, 2)
    panel.plot(first + every * np.arange(len(dice)), dice)
    panel.set(title="Val Mean Dice", xlabel="Iteration")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=72, bbox_inches="tight")
    plt.close(figure)
    read = public.line(public.pixels(picture.getvalue()), *ticks)
    assert len(read) == len(dice)
    assert np.abs(read - dice).max() <= public.READ_WITHIN


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_reaches_the_dice_that_its_notebook_prints(name: str) -> None:
    best = public.RUNS[name]["best"]
    assert best is None or CURVES[name].max() == pytest.approx(best, abs=0.001)
    assert (best is None) == (name == "L")


def test_evaluations_are_where_the_notebooks_had_them() -> None:
    """A to C every 500 of 25,000 steps; L every 30 epochs of 24 steps, up to 1300 epochs, after a look at step 0."""
    for name in "ABC":
        assert list(CURVES[name].index) == list(range(500, 25001, 500))
    assert list(CURVES["L"].index) == [30 * 24 * k for k in range(1300 // 30 + 1)]


def test_organs_alone() -> None:
    """By hand: 14 classes of which 13 have 0.5 and the background what it is have the mean that is taken apart here."""
    printed = CURVES["A"] * 0 + (13 * 0.5 + public.ALL_BACKGROUND) / 14
    assert public.organs_alone(printed).to_numpy() == pytest.approx(0.5)
    assert public.organs_alone(CURVES["L"]) is CURVES["L"]


def test_the_paper_s_points() -> None:
    points = POINTS.set_index("percent")
    assert points["by_epochs"].to_dict() == {15: 4000, 50: 12000, 100: 24000}
    assert points["by_steps"].to_dict() == {15: 2000, 50: 2000, 100: 2000}
    assert points["scratch"].to_dict() == {15: 0.2459, 50: 0.5851, 100: 0.7524}
    kept = pd.read_csv(ROOT / "figures" / "public_points.csv")
    pd.testing.assert_frame_equal(kept, POINTS, check_dtype=False)


def test_the_readings_quote_the_curves() -> None:
    """The table under "Steps or epochs", and what is said below it."""
    text = (ROOT / "reproduce/READINGS.md").read_text(encoding="utf-8")
    at = public.curves().interpolate("index")
    rows = table(ROOT / "reproduce/READINGS.md", "## Steps or epochs")
    assert [row[0] for row in rows] == ["2,000", "4,000", "12,000", "24,000"]
    for row in rows:
        steps = int(row[0].replace(",", ""))
        assert [float(cell) for cell in row[1:5]] == pytest.approx(at.loc[steps, list("ABCL")].tolist(), abs=0.00501)
        paper = POINTS[POINTS["by_epochs"] == steps]
        assert row[5] == (f"{paper['scratch'].item():.4f} ({paper['percent'].item()} %)" if len(paper) else "-")
    fits = [abs(at.loc[row.by_epochs, name] - row.scratch) for name in "BC" for row in POINTS.itertuples()]
    assert max(fits) <= 0.04
    assert "Epochs fit B\nand C within 0.04" in text
    assert at.loc[2000].max() == pytest.approx(0.25, abs=0.005)


def test_both_panels_hold_the_curves_and_the_paper_s_points() -> None:
    whole, organs = public.drawn(public.curves(), POINTS).axes
    lines = {ax: [line for line in ax.lines if line.get_linestyle() != "None"] for ax in (whole, organs)}
    assert [len(lines[ax]) for ax in (whole, organs)] == [3, 4]
    for line, curve in zip(lines[whole], CURVES.values(), strict=False):
        assert np.array_equal(line.get_ydata(), curve)
        assert np.array_equal(line.get_xdata(), curve.index)
    assert [line.get_linestyle() for line in lines[organs]] == ["--", "--", "--", "-"]
    for ax in (whole, organs):
        points = {(*line.get_xdata(), *line.get_ydata()) for line in ax.lines} - {
            (*line.get_xdata(), *line.get_ydata()) for line in lines[ax]
        }
        filled = {(r.by_epochs, dice) for r in POINTS.itertuples() for dice in (r.scratch, r.mixcl)}
        assert points == filled | {(2000, dice) for _, dice in filled}


def test_its_caption_names_every_source_and_what_is_read_or_derived() -> None:
    caption = public.drawn(public.curves(), POINTS).caption
    for name, run in public.RUNS.items():
        assert f"{name}: {run['notebook']} @ {run['commit'][:8]}" in caption
    for words in ("Project-MONAI/tutorials", "read off pictures, to 0.005", "erived", "arXiv 2203.02114"):
        assert words in caption
    with Image.open(ROOT / "figures" / "public_curves.png") as kept:
        assert kept.info["Description"] == caption
