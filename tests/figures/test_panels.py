"""Panels that several figures share: points lie where their voxels are drawn, and committed pictures stay small."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from mixcl.figures import panels
from mixcl.figures.style import STYLE, Plot, Sketch, plain


def test_names_with_dollars_are_no_mathematics() -> None:
    """Neither an organ's nor a caption's is parsed: each would raise."""
    name = "liver $x^$"
    with matplotlib.rc_context(STYLE):
        figure = Figure()
        figure.legend(handles=panels.organ_handles([name]))
        figure.text(0, 0, plain(f"{name} and $\\nothing$"))
        figure.canvas.draw()
        assert plain("no dollar") == "no dollar"


def test_a_spot_lies_on_its_voxel() -> None:
    """On a patch that is bright in the voxel a coarse pixel stands for, the point is in the middle of that voxel."""
    edge, grid, spacing = 12, 6, (2.0, 3.0, 5.0)
    image = np.zeros((edge,) * 3)
    x, y, z = 1, 4, 2  # of the coarse grid; it stands for the fine voxel 2 k + 1 (R12)
    image[2 * x + 1, 2 * y + 1, 2 * z + 1] = 1
    ax = Figure().subplots()
    panels.patch(ax, image, 2 * z + 1, spacing, bar=False)
    pixel = np.array([np.ravel_multi_index((x, y, z), (grid,) * 3)])
    panels.spots(ax, pixel, grid, edge, spacing, (z, z), marker="o")
    shown = ax.images[0].get_array()
    assert shown is not None
    row, column = np.argwhere(np.asarray(shown) == 1)[0]
    point = ax.lines[0].get_xydata()
    np.testing.assert_allclose(point, [[(column + 0.5) * spacing[0], (edge - row - 0.5) * spacing[1]]])
    panels.spots(ax, pixel, grid, edge, spacing, (z + 1, z + 2), marker="o")
    assert len(np.asarray(ax.lines[1].get_xydata())) == 0  # another slice


def test_a_sketch_is_the_same_picture_in_less_room() -> None:
    noise = np.random.default_rng(0).random((60, 60))
    made = []
    for kind in (Plot, Sketch):
        figure = kind(figsize=(3, 3))
        figure.subplots().imshow(noise, cmap="gray")
        made.append(figure._repr_png_())
    assert len(made[1]) < 0.7 * len(made[0])
    small = imread(io.BytesIO(made[1]), format="png")[..., :3]
    assert len(np.unique(small)) <= 32
    whole, buffer = Plot(figsize=(3, 3)), io.BytesIO()
    whole.subplots().imshow(noise, cmap="gray")
    with matplotlib.rc_context(STYLE):
        whole.savefig(buffer, format="png", dpi=96)
    buffer.seek(0)
    assert np.abs(imread(buffer, format="png")[..., :3] - small).max() < 0.02
