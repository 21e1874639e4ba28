"""What the walk-through notebooks show is what the equations and the package's own parts give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.patches import Rectangle

from mixcl import augment, losses, sampler
from mixcl.batches import Batch, generator
from mixcl.config.settings import Experiment, ViewsConfig
from mixcl.data.store import Store
from mixcl.errors import InputError
from mixcl.figures.style import Sketch
from mixcl.lessons import identity, label, networks, overview, restore, sampling, scene, similarity, views
from mixcl.lessons.scene import Pair
from mixcl.model import MixCL


@pytest.fixture
def store(smoke: Experiment, tmp_path: Path) -> Store:
    return scene.ready(smoke, tmp_path)


@pytest.fixture
def pair(smoke: Experiment, store: Store) -> Pair:
    return scene.choose(smoke, store)


def test_patches_whose_common_labels_the_coarse_grid_loses_are_refused(
    smoke: Experiment, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene.batches, "coarse", lambda labels, edge: torch.zeros(2, edge, edge, edge))
    with pytest.raises(InputError, match=r"set a larger model\.patch"):
        scene.choose(smoke, store)


@pytest.fixture
def batch(smoke: Experiment, pair: Pair) -> Batch:
    return scene.batch(smoke, pair.raw, spatial_prob=0.0, intensity_prob=1.0)


@pytest.fixture
def model(smoke: Experiment) -> MixCL:
    return networks.untrained(smoke)


def test_the_pair_is_the_first_with_most_in_common(smoke: Experiment, store: Store, pair: Pair) -> None:
    stream = scene.pair_dataset(smoke, store)
    sizes = []
    for k in range(scene.CANDIDATES):
        first, second = (part.numpy() for part in stream[k]["label"])
        both = {int(v) for v in np.unique(first) if v and (second == v).any()}
        sizes.append((len(both), min((first > 0).sum(), (second > 0).sum())))
    assert int(pair.raw["sample"]) == sizes.index(max(sizes))
    assert "Phantoms, not patients." in pair.origin
    assert pair.places[0][0].collection == pair.places[1][0].collection


def test_another_stamp_for_patients(smoke: Experiment, store: Store) -> None:
    files = smoke.model_copy(update={"data": smoke.data.model_copy(update={"source": "files"})})
    assert "hantom" not in scene.origin(files, store)


def test_still_views_leave_the_patch_where_it_was(smoke: Experiment, pair: Pair, batch: Batch) -> None:
    assert torch.equal(batch.patches[[0, 2]], pair.raw["image"])
    grid = pair.grid.flatten(1)
    for k in (0, 1):
        assert torch.equal(grid[k][batch.pixels[0][k]].long(), batch.labels[0][k])


def test_a_slider_only_where_somebody_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    values: list[int] = []
    for name in scene.SERVED:
        monkeypatch.delenv(name, raising=False)
    scene.slider(values.append, draw=(0, 4))
    assert "JupyterLab" in capsys.readouterr().out
    assert not values
    shown: list[Any] = []
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    monkeypatch.setattr("ipywidgets.widgets.interaction.display", shown.append)
    scene.slider(lambda draw: values.append(draw), draw=(0, 4))
    (box,) = shown
    assert not box.children[0].continuous_update
    box.update()
    box.children[0].value = 3
    assert values[-1] == 3
    scene.slider(lambda tau=0.1: values.append(tau), tau=[1.0, 0.01])
    assert shown[-1].children[0].options == (0.01, 0.1, 1.0)
    assert shown[-1].children[0].value == 0.1  # where the function starts, in its place among the stops


def drawn(figure: Sketch) -> list[np.ndarray[Any, Any]]:
    """Images, bars and outlines of a figure."""
    images = [np.asarray(image.get_array()) for ax in figure.axes for image in ax.images]
    patches = [patch for ax in figure.axes for patch in ax.patches]
    return images + [np.array(p.get_bbox()) if isinstance(p, Rectangle) else np.array(p.get_xy()) for p in patches]


def test_a_slider_moves_what_it_changes_and_no_axis(pair: Pair) -> None:
    parts = pd.DataFrame({"channels": [8, 16], "diagonal": [1.0, 2.0], "off-diagonal": [30.0, 400.0]})
    cosines, relation = torch.linspace(-1, 1, 300)[None], (torch.arange(300) % 2)[None]
    grid = pair.grid[0]
    distance = sampler.boundary_distance(grid)

    def by_weight(mu: float) -> Sketch:
        return sampling.steps(pair, distance, sampler.weight_map(grid, mu=mu), torch.arange(4))

    for first, second in (
        (identity.weighed(parts, 0.0051), identity.weighed(parts, 0.5)),
        (similarity.attention(cosines, relation, 0.1), similarity.attention(cosines, relation, 0.9)),
        (by_weight(8.0), by_weight(1.0)),
    ):
        for before, after in zip(first.axes, second.axes, strict=True):
            assert (before.get_xlim(), before.get_ylim()) == (after.get_xlim(), after.get_ylim())
            assert [i.get_clim() for i in before.images] == [i.get_clim() for i in after.images]
        assert any(not np.array_equal(a, b) for a, b in zip(drawn(first), drawn(second), strict=True))


def test_the_deepest_pixel_is_inside(pair: Pair, batch: Batch) -> None:
    pixels, labels = batch.pixels[0][0], batch.labels[0][0]
    value = int(labels.max())
    place = np.unravel_index(int(pixels[label.deepest(pair, pixels, labels, value)]), pair.grid[0].shape)
    apart = np.argwhere(pair.grid[0].numpy() != value) - np.array(place)
    drawn = np.array(np.unravel_index(pixels[labels == value].numpy(), pair.grid[0].shape)).T
    least = [((np.argwhere(pair.grid[0].numpy() != value) - pixel) ** 2).sum(1).min() for pixel in drawn]
    assert (apart**2).sum(1).min() == max(least)


def test_free_points_come_together_with_a_logarithm_a_pair() -> None:
    """What the toy of notebook 02 shows, in numbers; the alternative text says them."""
    labels, generator_ = torch.arange(60) % 3 + 1, generator(0)
    start = torch.randn(60, 2, generator=generator_)
    apart = torch.stack([labels.float().cos(), labels.float().sin()], 1)
    figure = similarity.toy({"ratio": [start], "supcon": [apart]}, labels)
    assert "supcon: mean cosine of positive pairs 1.00" in figure.alt
    shown = float(figure.axes[0].get_title())
    unit = torch.nn.functional.normalize(start)
    pairs = [float(unit[i] @ unit[j]) for i in range(60) for j in range(60) if i != j and labels[i] == labels[j]]
    assert shown == pytest.approx(sum(pairs) / len(pairs), abs=0.006)


def test_alignment_finds_a_shift(batch: Batch) -> None:
    assert identity.alignment(batch).argmax() == 6
    moved = batch._replace(views=torch.stack([batch.views[0], batch.views[0].roll(-2, 1), batch.views[2]]))
    assert identity.alignment(moved).argmax() == 8


def test_sizes_are_those_of_a_network_that_runs(smoke: Experiment, model: MixCL) -> None:
    table = overview.sizes(smoke.model)
    output = model(torch.zeros(1, 1, smoke.model.patch, smoke.model.patch, smoke.model.patch))
    assert table["projected channels"].tolist() == [z.shape[1] for z in output.levels]
    assert table["edge"].tolist() == [z.shape[2] for z in output.levels]
    assert sum(overview.parts(smoke.model).values()) == sum(p.numel() for p in model.parameters())


def test_the_matrix_counts_labelled_scans(smoke: Experiment, store: Store) -> None:
    table = overview.matrix(smoke, store)
    for name in ("msd_pancreas", "btcv"):
        for value, organ in store.cases(name)[0].names.items():
            assert table.loc[organ, name] == sum((np.asarray(c.label()) == value).any() for c in store.cases(name))
    assert table.loc["liver", "kits19"] == 0


def test_each_distortion_alone(pair: Pair) -> None:
    image, labels, config = pair.raw["image"][:1], pair.raw["label"][:1], ViewsConfig()
    for alone in views.spatial_alone(config).values():
        moved, moved_labels = augment.spatial(image, labels, alone, generator(3))
        assert not torch.equal(moved, image)
        assert set(moved_labels.unique().tolist()) <= set(labels.unique().tolist())
    ramp = torch.arange(32.0).expand(1, 1, 32, 32, 32)
    (((ramp,),), _) = augment.spatial(ramp, labels, views.spatial_alone(config)["affine"], generator(3))
    second = ramp[1:-1, 1:-1, 2:] - 2 * ramp[1:-1, 1:-1, 1:-1] + ramp[1:-1, 1:-1, :-2]
    assert second[8:-8, 8:-8, 8:-8].abs().max() < 1e-3  # an affine map bends no line
    changed = {k: augment.views(image, c, generator(3)) for k, c in views.intensity_alone(config).items()}
    by = changed["shift"] - image
    assert by.std() < 1e-6 < by.abs().max() <= config.shift + 1e-6
    assert [float(changed["gamma"].min()), float(changed["gamma"].max())] == pytest.approx(
        [float(image.min()), float(image.max())], abs=1e-6
    )
    assert changed["smoothing"].std() < image.std()
    assert abs(float((changed["noise"] - image).mean())) < 0.01


def test_lattice_lines() -> None:
    lines = views.lattice(24)
    assert lines.shape == (1, 1, 24, 24, 24)
    assert (lines[0, 0, 0] == 1).all()
    assert lines[0, 0, 1, 1].sum() == 0


def test_stronger_distortion_is_further_from_the_patch(pair: Pair) -> None:
    patch, config = pair.raw["image"][:1], ViewsConfig()
    made = [augment.views(patch, restore.stronger(config, s), generator(0)) for s in (0.0, 1.0, 2.0)]
    assert torch.equal(made[0], patch)
    errors = [float(losses.reconstruction_consistency(view, patch)) for view in made]
    assert errors[0] == 0 < errors[1] < errors[2]


def test_two_organs_and_what_contradicts_them(smoke: Experiment, store: Store) -> None:
    rich = scene.choose(smoke, store, [scene.richest(smoke, store)])
    grids, names = label.two_organs(rich)
    sizes = {name: min(int((grid == value).sum()) for grid in rich.grid) for value, name in rich.names.items()}
    assert sorted((sizes[names[1]], sizes[names[2]])) == sorted(sizes.values())[-2:]
    for value in (1, 2):
        (key,) = (key for key, name in rich.names.items() if name == names[value])
        assert torch.equal(grids == value, rich.grid == key)
    kinds = torch.tensor([0, 1, 2])
    for title, a, b in (("both", kinds, kinds), ("X", kinds == 1, kinds == 1), ("X against Y", kinds == 1, kinds == 2)):
        matrix = losses.label_relation(a.long(), b.long())
        wrong = label.contradicts(matrix, kinds, kinds)
        for i in range(3):
            for j in range(3):
                is_same, is_other = matrix[i, j] == 1, matrix[i, j] == 0
                assert wrong[i, j] == ((is_same and i != j) or (is_other and i == j > 0)), title
        assert int(wrong.sum()) == (3 if title == "X against Y" else 0)


def test_pooled_pixels_are_labelled_ones(smoke: Experiment, store: Store, model: MixCL) -> None:
    embeddings, table = similarity.pooled(model, smoke, store, each=2, budget=7)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
    assert len(embeddings) == len(table)
    labelled = {(name, organ) for name in smoke.data.pretrain for organ in store.cases(name)[0].names.values()}
    assert set(zip(table["collection"], table["organ"], strict=True)) <= labelled
    assert table.value_counts().max() <= 2 * 7


def test_an_example_is_of_one_collection(smoke: Experiment, tmp_path: Path) -> None:
    own = smoke.model_copy(update={"data": smoke.data.model_copy(update={"store": None})})
    folder, collection = scene.example(own, tmp_path)
    assert collection.title.endswith("as mine, phantoms")
    cases = list(folder.glob(collection.image.replace("{case}", "*")))
    assert len(cases) == smoke.data.phantom.counts[smoke.data.pretrain[0]]
    assert {path.name for path in folder.parent.iterdir() if path.is_dir()} == {folder.name}
