"""Panels that several figures share: points lie where their voxels are drawn, and committed pictures stay small."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from mixcl.figures import panels
from mixcl.figures.style import COLOURS, STYLE, Sketch, plain


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
    """At twice the pixels, with the size at which a page shows it and words for those who do not see it."""
    noise = np.random.default_rng(0).random((60, 60))
    figure, buffer = Sketch(figsize=(3, 3)), io.BytesIO()
    figure.subplots().imshow(noise, cmap="gray")
    figure.alt = "Noise."
    picture, metadata = figure._repr_png_()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=192)
    small, whole = (imread(io.BytesIO(png), format="png")[..., :3] for png in (picture, buffer.getvalue()))
    assert np.abs(whole - small).max() < 0.04
    assert len(np.unique(small.reshape(-1, 3), axis=0)) <= COLOURS + 64
    assert len(picture) < 0.7 * len(buffer.getvalue())
    assert (small[0, 0] == 1).all()  # the page around it
    assert metadata == {"width": 288, "height": 288, "alt": "Noise."}
    assert repr(figure) == "Figure: Noise."


def test_rare_colours_of_a_sketch_stay_what_they_are() -> None:
    """An organ of a few pixels in a grey scan keeps its colour."""
    image = np.repeat(np.random.default_rng(0).random((60, 60, 1)), 3, axis=2)
    image[30, 30] = (1.0, 0.5, 0.0)
    figure = Sketch(figsize=(3, 3))
    figure.subplots().imshow(image)
    shown = imread(io.BytesIO(figure._repr_png_()[0]), format="png")[..., :3]
    assert np.abs(shown - np.array([1.0, 0.5, 0.0])).max(-1).min() < 0.07
