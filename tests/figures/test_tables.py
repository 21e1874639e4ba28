"""Statistical plots: what is drawn is what was computed, and no text is cut or lies on another."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from helpers.drawing import bars, points
from helpers.runs import CONFIG, GRID, LABELS, write_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from mixcl import results
from mixcl.data.registry import BTCV_NAMES
from mixcl.figures import tables
from mixcl.figures.style import STYLE

FULL = {
    **GRID, "percents": {"msd_spleen": [5, 15, 50, 100], "btcv": [15, 50, 100]},
    "ablation": {"msd_spleen": 30, "btcv": 100}, "folds": [0, 1, 2],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of all cells of both tables but ``id-label`` of BTCV; 2 cases a fold, 13 organs in BTCV."""
    out = tmp_path_factory.mktemp("plots")
    generator = np.random.default_rng(0)
    config = {**CONFIG, "grid": FULL}
    arms = {"scratch": 0.0, "id": 0.01, "id-label": 0.03, "mixcl": 0.05}
    spread = {(task, percent) for task, percents in FULL["percents"].items() for percent in percents}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LABELS, "btcv", BTCV_NAMES)
        for (task, percent), (arm, gain), fold in itertools.product(
            sorted({*spread, ("msd_spleen", 30)}), arms.items(), range(3)
        ):
            if (FULL["ablation"][task] != percent and arm.startswith("id")) or (task, arm) == ("btcv", "id-label"):
                continue
            low = 0.4 + gain + 0.1 * np.log10(percent)
            dice = {
                f"{fold}{case}": {label: float(low + generator.uniform(0, 0.2)) for label in LABELS[task]}
                for case in "ab"
            }
            write_run(out, task, percent, arm, fold, dice, config=config)
    return out


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    """All text that is drawn, and where, in pixels."""
    drawn: list[Text] = []
    draw = Text.draw

    def noted(text: Text, *arguments: Any, **rest: Any) -> None:
        drawn.append(text)
        draw(text, *arguments, **rest)

    figure.set_dpi(150)
    canvas = FigureCanvasAgg(figure)
    with pytest.MonkeyPatch.context() as patch, matplotlib.rc_context(STYLE):
        patch.setattr(Text, "draw", noted)
        canvas.draw()
        texts = {id(text): text for text in drawn if text.get_visible() and text.get_text().strip()}
        return [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts.values()]


def assert_text_is_whole(figure: Figure) -> None:
    texts = boxes(figure)
    for text, box in texts:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text
    for (text, first), (another, second) in itertools.combinations(texts, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        along = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert across <= 1 or along <= 1, (text, another)


def test_text_that_overlaps_or_is_cut_is_noticed(folder: Path) -> None:
    assert len(boxes(tables.table1_plot(results.table1(folder)))) > 15
    for x in (0.5, 0.95):
        figure = Figure(figsize=(4, 3))
        ax = figure.subplots()
        ax.text(0.5, 0.5, "one text", transform=figure.transFigure)
        ax.text(x, 0.5, "another text", transform=figure.transFigure)
        with pytest.raises(AssertionError, match=r"text"):
            assert_text_is_whole(figure)


def test_no_text_is_cut_or_lies_on_another(folder: Path) -> None:
    table, ablation, organs = results.table1(folder), results.table2(folder), results.organs(folder)
    assert_text_is_whole(tables.table1_plot(table))
    assert_text_is_whole(tables.ablation_plot(ablation))
    assert_text_is_whole(tables.dumbbells(organs, table.origin))


def test_text_fits_with_a_single_task_and_nothing_to_show(tmp_path: Path) -> None:
    write_run(tmp_path, "msd_spleen", 15, "scratch", 0, {"7": {1: 0.75}, "8": {1: 0.25}})
    table, organs = results.table1(tmp_path), results.organs(tmp_path)
    assert_text_is_whole(tables.table1_plot(table))
    assert_text_is_whole(tables.dumbbells(organs, table.origin))
    assert_text_is_whole(tables.ablation_plot(results.table2(tmp_path)))
    nothing = table.folds.iloc[:0]
    empty = results.Table(nothing, table.cells.iloc[:0], "", (), True)
    assert tables.table1_plot(empty).axes[0].get_title() == "no run of it yet"
    assert tables.dumbbells(organs.iloc[:0]).axes[0].get_title() == "no run of it yet"
    assert tables.ablation_plot(empty).axes[0].get_title() == "no run of it yet"


def test_table1_plot_draws_folds_means_and_intervals(folder: Path) -> None:
    table = results.table1(folder)
    figure = tables.table1_plot(table)
    assert [ax.get_title() for ax in figure.axes] == ["Spleen", "BTCV"]
    for ax, task in zip(figure.axes, ("msd_spleen", "btcv"), strict=True):
        folds = np.concatenate([dots.get_offsets() for dots in ax.collections])
        for drawn, frame, column in ((folds, table.folds, "dice"), (points(ax, "_"), table.cells, "mean")):
            np.testing.assert_array_equal(np.sort(drawn[:, 1]), np.sort(frame.loc[frame["task"] == task, column]))
        expected = table.intervals.loc[table.intervals["task"] == task, ["low", "high"]]
        np.testing.assert_allclose(np.sort(bars(ax)[..., 1], axis=0), np.sort(expected, axis=0))
        assert not len(points(ax, "D"))  # phantoms stand without the paper
    caption = figure.get_supxlabel().replace("\n", " ")
    for part in ("Profile phantom; folds 0, 1, 2; seed 0; commit 0123456789ab", "phantoms, not patients", "95 %"):
        assert part in caption


def test_the_papers_values_are_drawn_unless_of_phantoms(folder: Path) -> None:
    table = results.table1(folder)
    real = results.Table(table.folds, table.cells, "", (), False)
    figure = tables.table1_plot(real)
    assert points(figure.axes[1], "D")[:, 1].tolist() == [0.2459, 0.5851, 0.7524, 0.3871, 0.5939, 0.7656]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["from scratch", "MixCL", "from scratch, the paper's", "MixCL, the paper's"]
    folds = np.concatenate([dots.get_offsets()[:, 0] for dots in figure.axes[1].collections])
    places = np.concatenate([folds, *(points(figure.axes[1], marker)[:, 0] for marker in "_D")])
    assert len(np.unique(places.round(6))) == 3 * 2 * 3  # shares, arms and kinds: nothing hides another


def test_dumbbells_join_the_two_arms(folder: Path) -> None:
    organs = results.organs(folder)
    figure = tables.dumbbells(organs, "Seed 0.")
    assert [ax.get_title() for ax in figure.axes] == ["Spleen, 100 % of the labels", "BTCV, 100 % of the labels"]
    assert "Seed 0." in figure.get_supxlabel()
    ax = figure.axes[1]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == list(BTCV_NAMES.values())
    part = organs.query("task == 'btcv' and percent == 100 and arm in ['scratch', 'mixcl']")
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first organ is on top
    for line, arm in zip([line for line in ax.lines if line.get_marker() == "o"], ("scratch", "mixcl"), strict=True):
        expected = part[part["arm"] == arm].set_index("organ")["dice"]
        assert {names[int(y)]: x for x, y in line.get_xydata()} == dict(expected)
        assert line.get_color() == tables.ARM_COLOURS[arm]
    joins = bars(ax)
    assert len(joins) == 13
    for (first, y), (last, _) in joins:
        values = part.loc[part["organ"] == names[int(y)], "dice"]
        assert (first, last) == pytest.approx((values.min(), values.max()))


def test_dumbbells_of_one_arm_and_of_unequal_shares(folder: Path) -> None:
    """At 100 % one arm alone is there: the largest share with both is drawn; with no such share, the largest."""
    organs = results.organs(folder)
    organs = organs[~((organs["percent"] == 100) & (organs["arm"] == "mixcl"))]
    assert [ax.get_title()[-19:-14] for ax in tables.dumbbells(organs).axes] == [" 50 %", " 50 %"]
    alone = organs[organs["arm"] == "scratch"]
    ax = tables.dumbbells(alone).axes[1]
    assert ax.get_title() == "BTCV, 100 % of the labels"
    assert len(points(ax)) == 13
    assert not len(bars(ax))


def test_ablation_plot_draws_the_comparisons(folder: Path) -> None:
    table = results.table2(folder)
    figure = tables.ablation_plot(table)
    assert [ax.get_title() for ax in figure.axes] == ["Spleen, 30 % of the labels", "BTCV, 100 % of the labels"]
    rows = [label.get_text().split("\n")[0] for label in figure.axes[0].get_yticklabels()]
    assert rows == ["id", "id-label", "MixCL"]
    compared = table.comparisons[table.comparisons["metric"] == "dice"].set_index(["task", "percent", "arm"])
    for ax, cell in zip(figure.axes, (("msd_spleen", 30.0), ("btcv", 100.0)), strict=True):
        there = [arm for arm in ("id", "id-label", "mixcl") if compared.loc[(*cell, arm), "n"]]
        arms = ["id", "id-label", "mixcl"]
        dots = {arms[int(y)]: x for x, y in points(ax)}
        assert dots == {arm: compared.loc[(*cell, arm), "difference"] for arm in there}
        drawn = {tuple(ends) for ends in bars(ax)[..., 0].tolist()}
        assert drawn == {tuple(compared.loc[(*cell, arm), ["low", "high"]]) for arm in there}
    assert [text.get_text() for text in figure.axes[1].texts] == ["no pairs"]
