"""Figures: where things are drawn, in which colours, from which data; the same bytes for the same figure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.drawing import CARD, SPACING, points, pretraining, save_two, scan
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

from mixcl import figures
from mixcl.data.registry import BTCV_NAMES, COLLECTIONS
from mixcl.figures import ct
from mixcl.figures.qualitative import Picture, _most_different, chosen, overlay
from mixcl.figures.style import Plot
from mixcl.labels import UNKNOWN
from mixcl.results.write import Table


def rendered(figure: Figure) -> NDArray[np.uint8]:
    """The figure as pixels [rows, columns, RGB]."""
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def panel(figure: Figure, number: int) -> NDArray[np.uint8]:
    """Pixels of one of the axes."""
    pixels = rendered(figure)
    box = figure.axes[number].get_window_extent()
    height = pixels.shape[0]
    rows = slice(round(height - box.y1), round(height - box.y0))
    return pixels[rows, round(box.x0) : round(box.x1)]


def test_the_patients_right_is_on_the_left_and_the_front_on_top() -> None:
    """A bright box far to the right and to the front is drawn at the upper left."""
    image = np.full((40, 30, 4), -150, np.int16)
    image[36:40, 27:30, 1] = 250
    label = np.zeros(image.shape, np.uint8)
    figure = overlay([Picture(image, label, SPACING, {1: "spleen"}, z=1)])
    bright = np.argwhere(panel(figure, 1).min(axis=2) > 200)  # the label panel has no writing in it
    height, width = panel(figure, 1).shape[:2]
    assert bright[:, 0].max() < 0.15 * height
    assert bright[:, 1].max() < 0.15 * width


def test_labels_lie_on_the_scan_and_have_their_colours() -> None:
    figure = overlay([scan()])
    pixels = panel(figure, 1).astype(float) / 255
    height, width = pixels.shape[:2]
    for organ, x, y in (("liver", 31.5, 16.5), ("spleen", 7.0, 11.5)):  # voxels, slice 5
        row, column = int(height * (1 - y / 30)), int(width * (1 - x / 40))
        grey = (40 + 150) / 400
        expected = 0.35 * np.array(to_rgb(ct.ORGAN_COLOURS[organ])) + 0.65 * grey
        np.testing.assert_allclose(pixels[row, column], expected, atol=0.02)


def test_voxels_keep_their_proportions() -> None:
    figure = overlay([scan()])
    for ax in figure.axes:
        box = ax.get_window_extent()
        assert box.height / box.width == pytest.approx(30 * 3.0 / (40 * 1.5), rel=1e-3)
        assert ax.get_aspect() == 1.0
        assert sorted(ax.get_xlim()) == [0, 60]
        assert sorted(ax.get_ylim()) == [0, 90]


def test_rows_columns_titles_legend_and_caption() -> None:
    one_arm = scan()._replace(predictions={"mixcl": scan().label}, title="another")
    figure = overlay([scan(), one_arm], caption="Profile phantom, seed 0.")
    assert len(figure.axes) == 2 * 4
    assert [ax.get_title() for ax in figure.axes[:4]] == ["CT", "label", "from scratch", "MixCL"]
    assert [figure.axes[k].get_ylabel() for k in (0, 4)] == ["a phantom", "another"]
    assert not figure.axes[6].axison  # no such prediction
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["spleen", "liver"]
    assert "Profile phantom, seed 0." in [text.get_text() for text in figure.texts]


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    ax = Figure().subplots()
    length = ct.scale_bar(ax, (40, 30, 8), SPACING)
    assert length == 20  # at most a third of 60 mm
    (bar,) = ax.lines
    assert np.ptp(bar.get_xdata()) == pytest.approx(length)
    assert "20 mm" in {text.get_text() for text in ax.texts}
    left, right = (next(t for t in ax.texts if t.get_text() == side).get_position()[0] for side in "RL")
    assert left < right


def test_slices_are_chosen_by_the_rule() -> None:
    label = np.zeros((6, 6, 5), np.uint8)
    label[1:4, 1:4, 2:4] = 1
    label[1:5, 1:5, 3] = 1
    assert ct.choose_slice(label) == 3
    label[..., 0] = UNKNOWN
    assert ct.choose_slice(label) == 3
    assert ct.choose_slice(np.zeros_like(label)) == 0


def views(colours: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Colours as seen with full colour vision, protanopia and deuteranopia (Machado et al., 2009)."""
    protan = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    deutan = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = [np.clip(linear @ np.array(matrix).T, 0, 1) for matrix in (protan, deutan)]
    return [colours, *(np.where(c <= 0.0031308, c * 12.92, 1.055 * c ** (1 / 2.4) - 0.055) for c in seen)]


def test_organs_of_a_collection_can_be_told_apart() -> None:
    for collection in COLLECTIONS.values():
        names = list(collection.names.values())
        assert set(names) <= set(ct.ORGAN_COLOURS)
        for seen in views(np.array([to_rgb(ct.ORGAN_COLOURS[name]) for name in names])):
            lab = rgb2lab(seen[None])[0]
            distance = deltaE_ciede2000(lab[:, None], lab[None]) + 1e3 * np.eye(len(names))
            assert distance.min() > 12, (collection.title, names, distance.min())


def test_tumours_can_be_told_apart_and_from_their_organs() -> None:
    """Of all collections that are pre-trained on, in one picture."""
    names = ["liver", "pancreas", "kidney", "liver tumour", "lung tumour", "pancreas tumour", "kidney tumour"]
    for seen in views(np.array([to_rgb(ct.ORGAN_COLOURS[name]) for name in names])):
        lab = rgb2lab(seen[None])[0]
        distance = deltaE_ciede2000(lab[:, None], lab[None]) + 1e3 * np.eye(len(names))
        assert distance[3:].min() > 12, distance.round(0)


def test_the_papers_colours() -> None:
    """Fig. 3: stomach light brown, kidneys green and blue, pancreas cyan, spleen red."""
    r, g, b = ct.organ_colour("spleen")
    assert r > 0.7 > 0.2 > max(g, b)
    green, blue = ct.organ_colour("right kidney"), ct.organ_colour("left kidney")
    assert green[1] == max(green)
    assert blue[2] == max(blue)
    r, g, b = ct.organ_colour("pancreas")
    assert min(g, b) > 0.7 > r
    r, g, b = ct.organ_colour("stomach")
    assert 0.85 > r > g > b > 0.3


def test_unknown_organs_have_a_colour_by_name() -> None:
    assert ct.organ_colour("heart") == ct.organ_colour(" Heart")
    assert ct.organ_colour("heart") != ct.organ_colour("colon")
    assert ct.organ_colour("oesophagus") == ct.organ_colour("esophagus")
    assert ct.organ_colour("liver tumor") == ct.organ_colour("liver tumour")


def test_losses_of_a_pretraining_run() -> None:
    records = pretraining()
    figure = figures.losses(records, CARD)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:4] == ["total, Eq. 2", "identity, Eq. 4", "label, Eq. 6", "reconstruction, Eq. 3"]
    assert len(titles) == 8
    for ax, name in zip(figure.axes, ("total", "identity", "label", "recon"), strict=False):
        x, y = ax.lines[0].get_data()
        assert list(x) == [record["step"] for record in records]
        assert list(y) == [record[name] for record in records]
    levels, shares, gradients = figure.axes[4:7]
    assert [line.get_ydata()[0] for line in levels.lines if line.get_linestyle() == "--"] == [2.5]
    top = shares.collections[-1].get_paths()[0].vertices
    assert top[:, 1].max() == pytest.approx(1.0)
    assert list(gradients.lines[0].get_xdata()) == [10, 40, 70, 100]
    assert "Profile phantom, job pretrain, seed 0, commit 0123456789ab" in figure.get_supxlabel()
    assert "phantoms, not patients" in figure.get_supxlabel()


def test_losses_of_a_finetuning_run_and_of_ablations() -> None:
    figure = figures.losses([{"step": s, "total": 1.0 / s, "lr": 1e-3} for s in (1, 2)], {**CARD, "task": "btcv"})
    assert [ax.get_title() for ax in figure.axes] == ["Dice + cross-entropy (R17)", "learning rate"]
    records = pretraining()
    for record in records:  # a term that is off is logged as zero
        record.update(label=0.0, identity=0.0, levels=[0.0] * 5, gradients={"identity": 0.0, "recon": 1.0})
    rendered(figures.losses(records))


@pytest.fixture
def table() -> Table:
    rows = [
        {
            "task": task,
            "percent": float(percent),
            "arm": arm,
            "fold": fold,
            "seed": 0,
            "dice": base + fold / 50,
            "weights": f"{task}-{percent}-{arm}-{fold}",
        }
        for task, percents in (("msd_spleen", (5, 15, 50, 100)), ("btcv", (15, 50, 100)))
        for k, percent in enumerate(percents)
        for arm, base in (("scratch", 0.3 + k / 6), ("mixcl", 0.4 + k / 7))
        for fold in range(5)
    ]
    from mixcl.results.statistics import over_folds

    folds = pd.DataFrame(rows)
    return Table(folds, over_folds(folds), "Profile phantom; seed 0. " * 8, (), True)


def test_table1_plot(table: Table) -> None:
    figure = figures.table1_plot(table)
    assert [ax.get_title() for ax in figure.axes] == ["Spleen", "BTCV"]
    for ax, task in zip(figure.axes, ("msd_spleen", "btcv"), strict=True):
        drawn = np.sort(np.concatenate([dots.get_offsets()[:, 1] for dots in ax.collections]))
        np.testing.assert_array_equal(drawn, np.sort(table.folds.loc[table.folds["task"] == task, "dice"]))
        assert not len(points(ax, "D"))  # phantoms stand without the paper
    real = Table(table.folds, table.cells, "", (), False)
    diamonds = points(figures.table1_plot(real).axes[1], "D")
    assert diamonds[:, 1].tolist() == [0.2459, 0.5851, 0.7524, 0.3871, 0.5939, 0.7656]


@pytest.mark.slow
def test_figures_are_saved_whole_and_without_dates(tmp_path: Path) -> None:
    """Another process, later, with another hash seed and matplotlibrc, writes the same bytes; pyplot holds none."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from helpers.drawing import CARD, SPACING, points, pretraining, save_two, scan\n"
        "save_two(Path(sys.argv[1]))\n"
        "import matplotlib, matplotlib.pyplot as plt\n"
        "from mixcl.figures import sample\n"
        "assert plt.get_fignums() == []\n"
        "assert matplotlib.rcParams['font.size'] == 30\n"
        "assert matplotlib.get_backend().lower() == 'svg'\n"
        "assert 'torch' not in sys.modules\n"
    )
    save_two(tmp_path / "1")
    hostile = ("image.origin: lower", "text.usetex: True", "savefig.bbox: tight", "font.size: 30", "backend: svg")
    (tmp_path / "matplotlibrc").write_text("\n".join(hostile))
    settings = {
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": ":".join(sys.path),
        "MATPLOTLIBRC": str(tmp_path),
        "MPLBACKEND": "",
    }
    words = [sys.executable, "-c", code, str(tmp_path / "2"), str(Path(__file__).parents[1])]
    subprocess.run(words, check=True, env={**os.environ, **settings})
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == ["a.b.pdf", "a.b.png", "losses.pdf", "losses.png"]
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name
    assert b"CreationDate" not in (tmp_path / "1" / "a.b.pdf").read_bytes()
    assert b"/Subject (seed 0)" in (tmp_path / "1" / "a.b.pdf").read_bytes()
    assert b"Description\0seed 0" in (tmp_path / "1" / "a.b.png").read_bytes()


def test_a_notebook_shows_a_figure_without_pyplot(table: Table) -> None:
    figure = figures.table1_plot(table)
    assert isinstance(figure, Plot)
    assert figure._repr_png_()[0].startswith(b"\x89PNG")


def shown_case(names: dict[int, str], label: NDArray[np.uint8]) -> Any:
    """What the figure needs of a prepared case."""
    from types import SimpleNamespace

    return SimpleNamespace(
        spacing=SPACING, names=names, image=lambda: np.zeros(label.shape, np.int16), label=lambda: label
    )


def test_the_case_shown_is_one_that_the_best_arm_has_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both arms at 5 and 15 %, one at 50 %: 15 % is shown; the largest difference is on a case that failed."""

    from helpers.runs import write_run

    from mixcl.config import load_profile

    dice = {"a": {1: 0.9}, "b": {1: 0.8}, "c": {1: 0.1}}
    worse = {"a": {1: 0.2}, "b": {1: 0.1}, "c": {1: 0.4}}
    for percent, arm, fold in (
        (5, "scratch", 0),
        (5, "mixcl", 0),
        (15, "scratch", 1),
        (15, "mixcl", 1),
        (50, "mixcl", 0),
    ):
        write_run(tmp_path, "msd_spleen", percent, arm, fold, dice if arm == "mixcl" else worse)  # type: ignore[arg-type]
    label = np.zeros((6, 6, 5), np.uint8)
    label[2:4, 2:4, 1:4] = 1

    class Store:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def cases(self, task: str) -> list[Any]:
            cases = [shown_case({1: "spleen"}, label) for _ in dice]
            for case, name in zip(cases, dice, strict=True):
                case.id = name
            return cases

    def prediction(run: Path, case: str) -> NDArray[np.uint8]:
        predicted = label.copy()
        if json.loads((run / "run.json").read_text())["arm"] == "mixcl":
            predicted[: {"a": 2, "b": 4, "c": 6}[case], 0, 2] = 1
        return predicted

    monkeypatch.setitem(chosen.__globals__, "Store", Store)
    monkeypatch.setitem(chosen.__globals__, "read_prediction", prediction)
    config = load_profile("smoke")
    (shown,), caption = chosen(config, tmp_path)
    assert shown.title == "Spleen, 15 %, fold 1\ncase b, slice 2"
    assert shown.z == 2
    assert list(shown.predictions) == ["scratch", "mixcl"]
    assert shown.dice == {"scratch": 0.1, "mixcl": 0.8}
    assert caption.startswith("Of the test cases on which the best arm (MixCL on Spleen, by its mean Dice)")
    assert "fold 1; seed 0; commit 0123456789ab" in caption
    axes = figures.qualitative(config, tmp_path).axes
    assert len(axes) == 4
    assert [[text.get_text() for text in ax.texts] for ax in axes[2:]] == [["Dice 0.10"], ["Dice 0.80"]]


def test_a_slice_with_few_organs_is_not_shown(tmp_path: Path) -> None:
    """However much the arms differ there."""
    names = {1: "spleen", 2: "liver", 3: "stomach"}
    label = np.zeros((6, 6, 2), np.uint8)
    label[0, :3, 0], label[0, 0, 1] = (1, 2, 3), 1
    wrong = label.copy()
    wrong[5, 0, 0], wrong[3:, :, 1] = 1, 1
    case = Picture(np.zeros(label.shape), label, SPACING, names, {"scratch": wrong, "mixcl": label})
    assert _most_different([case], ["scratch", "mixcl"]).z == 0


def test_a_case_that_one_arm_lacks_is_not_shown_before_one_that_both_have() -> None:
    """Its many labelled voxels are no difference between arms, however few the other case has."""
    label = np.zeros((6, 6, 3), np.uint8)
    label[:, :, 1] = 1
    wrong = label.copy()
    wrong[0, 0, 1] = 0
    first = Picture(np.zeros(label.shape), label, SPACING, {1: "spleen"}, {"scratch": wrong}, "a")
    picture = _most_different(
        [first, first._replace(predictions={"mixcl": label, "scratch": wrong}, title="b")], ["scratch", "mixcl"]
    )
    assert picture.title == "b, slice 1"
    assert list(picture.predictions) == ["scratch", "mixcl"]


def test_of_one_arm_the_slice_with_most_labels_is_shown_and_unknown_is_none() -> None:
    label = np.zeros((6, 6, 3), np.uint8)
    label[:2, :, 1], label[1:, :, 2], label[0, :, 2] = 1, UNKNOWN, 1
    picture = Picture(np.zeros(label.shape), label, SPACING, {1: "spleen"}, {"scratch": label})
    assert _most_different([picture], ["scratch"]).z == 1


def test_labels_between_voxels_lie_where_the_voxels_lie() -> None:
    """The finer map has each voxel's label at its centre, and the area of a straight-edged organ."""
    labels = np.zeros((12, 8, 1), np.uint8)
    labels[2:7, 1:5] = 6
    labels[7:10, 1:5] = 1
    figure = Plot()
    ax = figure.add_subplot()
    ct.show_smooth_labels(ax, labels, 0, SPACING, BTCV_NAMES)
    drawn = np.asarray(ax.images[0].get_array())
    middle = drawn[ct.FINER // 2 :: ct.FINER, ct.FINER // 2 :: ct.FINER]
    for value in (1, 6):
        here = np.isclose(middle[..., :3], ct.organ_colour(BTCV_NAMES[value])).all(-1) & (middle[..., 3] > 0)
        np.testing.assert_array_equal(here, ct.axial(labels, 0) == value)
    assert ax.images[0].get_extent() == pytest.approx(list(ct.extent(labels.shape, SPACING)))
