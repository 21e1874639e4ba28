"""What the walk-through notebooks show is what the equations and the package's own parts give."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import reference

from mixcl import trainer
from mixcl.batches import Batch
from mixcl.config.settings import Experiment, ViewsConfig
from mixcl.data.store import Store
from mixcl.lessons import identity, overview, pixels, restore, sampling, scene, similarity, views
from mixcl.lessons.scene import Pair
from mixcl.model import LABEL_LEVEL, MixCL


@pytest.fixture
def store(smoke: Experiment, tmp_path: Path) -> Store:
    return scene.ready(smoke, tmp_path)


@pytest.fixture
def pair(smoke: Experiment, store: Store) -> Pair:
    return scene.choose(smoke, store)


@pytest.fixture
def batch(smoke: Experiment, pair: Pair) -> Batch:
    return scene.batch(smoke, pair.raw, spatial_prob=0.0, intensity_prob=1.0)


@pytest.fixture
def model(smoke: Experiment) -> MixCL:
    return scene.untrained(smoke)


def test_the_pair_is_the_first_with_most_in_common(smoke: Experiment, store: Store, pair: Pair) -> None:
    stream = scene.pair_stream(smoke, store)
    sizes = []
    for k in range(scene.LOOKED_AT):
        first, second = (part.numpy() for part in stream[k]["label"])
        both = {int(v) for v in np.unique(first) if v and (second == v).any()}
        sizes.append((len(both), min((first > 0).sum(), (second > 0).sum())))
    assert int(pair.raw["sample"]) == sizes.index(max(sizes))
    assert pair.told.endswith("Phantoms, not patients.")
    assert pair.places[0][0].collection == pair.places[1][0].collection


def test_another_stamp_for_patients(smoke: Experiment, store: Store) -> None:
    files = smoke.model_copy(update={"data": smoke.data.model_copy(update={"source": "files"})})
    assert "hantom" not in scene.told(files, store)


def test_still_views_leave_the_patch_where_it_was(smoke: Experiment, pair: Pair, batch: Batch) -> None:
    assert torch.equal(batch.patches[[0, 2]], pair.raw["image"])
    grid = pair.grid.flatten(1)
    for k in (0, 1):
        assert torch.equal(grid[k][batch.pixels[0][k]].long(), batch.labels[0][k])


def test_the_profile_s_own_training_is_preferred(smoke: Experiment, tmp_path: Path) -> None:
    short, told = scene.trained(smoke, tmp_path, 1, "walkthrough")
    assert told == "after 1 steps"
    assert not torch.equal(*(next(iter(m.parameters())) for m in (short, scene.untrained(smoke))))
    trainer.pretrain(smoke, tmp_path, progress=False)
    own, told = scene.trained(smoke, tmp_path, 1, "walkthrough")
    assert told == f"after {smoke.pretrain.steps} steps"
    weights = own.state_dict()
    assert any(not torch.equal(weights[name], value) for name, value in short.state_dict().items())
    other = smoke.model_copy(update={"model": smoke.model.model_copy(update={"hidden": 36, "heads": 3})})
    assert scene.trained(other, tmp_path, 1, "other")[1] == "after 1 steps"  # what does not fit is not taken


def test_a_slider_only_where_somebody_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    for name in scene.SERVED:
        monkeypatch.delenv(name, raising=False)
    scene.slider(seen.append, draw=(0, 4))
    assert "JupyterLab" in capsys.readouterr().out
    assert not seen
    shown: list[Any] = []
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    monkeypatch.setattr("ipywidgets.widgets.interaction.display", shown.append)
    scene.slider(lambda draw: seen.append(draw), draw=(0, 4))
    (box,) = shown
    assert not box.children[0].continuous_update
    box.update()
    box.children[0].value = 3
    assert seen[-1] == 3


def test_embeddings_are_those_of_the_projected_level(model: MixCL, batch: Batch) -> None:
    (drawn,) = pixels.embed(model, batch)
    with torch.no_grad():
        level = model(batch.views).levels[LABEL_LEVEL]
    for k, view in ((0, 0), (1, 2)):
        expected = level[view].flatten(1)[:, drawn.pixels[k]].T
        torch.testing.assert_close(drawn.embeddings[k], expected, rtol=1e-4, atol=1e-5)


def hand_made() -> pixels.Drawn:
    g = torch.Generator().manual_seed(0)
    z = (torch.randn(5, 3, generator=g), torch.randn(4, 3, generator=g))
    labels = (torch.tensor([0, 1, 1, 2, 3]), torch.tensor([0, 1, 2, 2]))
    return pixels.Drawn((torch.tensor([0, 1, 2, 9, 10]), torch.arange(4)), labels, z)


def test_row_losses_against_loops() -> None:
    drawn = hand_made()
    table = pixels.row_losses(drawn, {1: "liver", 2: "spleen", 3: "colon"}, 0.5)
    a, b = (z.numpy() / np.linalg.norm(z.numpy(), axis=1, keepdims=True) for z in drawn.embeddings)
    expected = []
    for i, p in enumerate(drawn.labels[0].tolist()):
        every = {j: math.exp(float(a[i] @ b[j]) / 0.5) for j, q in enumerate(drawn.labels[1].tolist()) if p or q}
        same = sum(value for j, value in every.items() if int(drawn.labels[1][j]) == p)
        if p and same:
            expected.append(-math.log(same / sum(every.values())))
    assert table["organ"].tolist() == ["liver", "liver", "spleen"]  # no colon in P_2, and no positive background
    np.testing.assert_allclose(table["loss"], expected, rtol=1e-5)


def test_the_anchor_is_in_the_middle() -> None:
    assert pixels.anchor(hand_made(), 2, 4) == 3
    drawn = hand_made()._replace(labels=(torch.tensor([1, 1, 1, 2, 2]), torch.zeros(4, dtype=torch.long)))
    assert pixels.anchor(drawn, 1, 4) == 1  # z = 0, 1, 2 on one line


def test_conflict_counts_what_contradicts(smoke: Experiment, store: Store) -> None:
    shown = pixels.conflict(smoke, scene.choose(smoke, store, [pixels.richest(smoke, store)]))
    rows, columns = shown.true
    assert [int(w.sum()) for w in shown.wrong.values()][:2] == [0, 0]
    (last, matrix) = list(shown.matrices.items())[-1]
    for i, p in enumerate(rows):
        for j, q in enumerate(columns):
            says_same, says_other = matrix[i, j] == 1, matrix[i, j] == 0
            assert says_same == (p == 1 and q == 2)  # both are called 1
            assert shown.wrong[last][i, j] == ((says_same and p != q) or (says_other and p == q))


def test_pooled_pixels_and_their_likeness_across_collections(smoke: Experiment, store: Store, model: MixCL) -> None:
    points = pixels.pooled(model, smoke, store, each=2, budget=7)
    np.testing.assert_allclose(np.linalg.norm(points.embeddings, axis=1), 1, rtol=1e-6)
    labelled = {n: set(store.cases(n)[0].names.values()) for n in smoke.data.pretrain}
    assert {(c, o) for c, o in zip(points.collections.tolist(), points.organs.tolist(), strict=True)} <= {
        (c, o) for c, organs in labelled.items() for o in organs
    }
    z = np.array([[1.0, 0], [1, 0], [0, 1], [-1, 0]])
    made = pixels.Points(z, np.array(["liver", "liver", "liver", "colon"]), np.array(["a", "b", "b", "b"]))
    (row,) = pixels.across(made).itertuples(index=False)
    assert row[0] == "liver"
    assert row[1:] == pytest.approx(((1 + 0 + 1 + 0) / 4, -1.0))


def test_temperature_and_its_hardest_negatives() -> None:
    cosines = np.array([0.9, 0.5, 0.1, -0.3])
    weights = [math.exp(c / 0.2) for c in cosines]
    assert similarity.hardest(cosines, 0.2, 0.5) == pytest.approx(sum(weights[:2]) / sum(weights))


def test_identity_is_the_equations(smoke: Experiment, model: MixCL, batch: Batch) -> None:
    seen = identity.see(model, smoke, batch)
    with torch.no_grad():
        levels = [z.double().numpy() for z in model(batch.views).levels]
    deep = levels[-1]
    for got, center in ((seen.matrices, False), (seen.centred, True)):
        np.testing.assert_allclose(got[-1], reference.correlation(deep[:1], deep[1:2], center), atol=1e-4)
    expected = reference.identity([deep[:1]], [deep[1:2]], 0.01)
    assert identity.parts(seen, 0.01)["Eq. 4"].iloc[-1] == pytest.approx(expected, rel=1e-3)
    share = deep[0].reshape(len(deep[0]), -1).mean(1)
    energy = np.square(deep[0]).sum() / deep[0][0].size
    assert seen.in_mean[-1] == pytest.approx(np.square(share).sum() / energy, rel=1e-4)


def test_alignment_finds_a_shift(batch: Batch) -> None:
    assert identity.alignment(batch).argmax() == 6
    moved = batch._replace(views=torch.stack([batch.views[0], batch.views[0].roll(-2, 1), batch.views[2]]))
    assert identity.alignment(moved).argmax() == 8


def test_sampling_shows_equation_7(pair: Pair, smoke: Experiment) -> None:
    grid = pair.grid[0]
    shown = sampling.maps(grid, 20, 8.0, 0.05)
    distances = np.linspace(1, 20, 7)
    expected = [reference.weight(float(d), 8.0, 0.05) for d in distances]
    np.testing.assert_allclose(sampling.weight(distances, 8.0, 0.05), expected)
    np.testing.assert_allclose(shown.weight, sampling.weight(shown.distance, 8.0, 0.05), rtol=1e-5)
    _, counts = np.unique(grid.numpy().ravel()[shown.pixels], return_counts=True)
    assert counts.tolist() == [min(20, int((grid == v).sum())) for v in grid.unique()]
    table = sampling.budgets(scene.untrained(smoke), pair, [4, 8], 8.0, 0.05, draws=2)
    assert table["r"].tolist() == [4, 4, 8, 8]
    assert (table["pixels"] <= table["r"] * len(grid.unique())).all()


def test_sizes_are_those_of_a_network_that_runs(smoke: Experiment, model: MixCL) -> None:
    table = overview.sizes(smoke.model)
    output = model(torch.zeros(1, 1, smoke.model.patch, smoke.model.patch, smoke.model.patch))
    assert table["projected channels"].tolist() == [z.shape[1] for z in output.levels]
    assert table["edge"].tolist() == [z.shape[2] for z in output.levels]
    assert int(overview.parts(smoke.model).sum()) == sum(p.numel() for p in model.parameters())


def test_the_matrix_counts_labelled_scans(smoke: Experiment, store: Store) -> None:
    table = overview.matrix(smoke, store)
    for name in ("msd_pancreas", "btcv"):
        for value, organ in store.cases(name)[0].names.items():
            assert table.loc[organ, name] == sum((np.asarray(c.label()) == value).any() for c in store.cases(name))
    assert table.loc["liver", "kits19"] == 0


def test_each_distortion_alone(pair: Pair) -> None:
    image, label, config = pair.raw["image"][0, 0], pair.raw["label"][0], ViewsConfig()
    shown = views.moved(config, image, label, 3)
    assert torch.equal(shown["as cut"][0], image)
    for name in ("affine", "elastic", "both"):
        assert not torch.equal(shown[name][0], image)
        assert set(shown[name][1].unique().tolist()) <= set(label.unique().tolist())
    corner = views.moved(config, torch.arange(32.0).expand(32, 32, 32), label, 3)["affine"][0]
    second = corner[1:-1, 1:-1, 2:] - 2 * corner[1:-1, 1:-1, 1:-1] + corner[1:-1, 1:-1, :-2]
    assert second[8:-8, 8:-8, 8:-8].abs().max() < 1e-3  # an affine map bends no line
    changed = views.changed(config, image, 3)
    by = changed["shift"] - image
    assert by.std() < 1e-6 < by.abs().max() <= config.shift + 1e-6
    assert torch.stack([changed["gamma"].min(), changed["gamma"].max()]).tolist() == pytest.approx(
        [float(image.min()), float(image.max())], abs=1e-6
    )
    assert changed["smoothing"].std() < image.std()
    assert abs(float((changed["noise"] - image).mean())) < 0.01


def test_restoring_by_strength(pair: Pair, model: MixCL) -> None:
    shown = restore.restore(model, pair, ViewsConfig(), (0.0, 1.0, 2.0))
    assert np.array_equal(shown[0.0].view, shown[0.0].patch)
    assert shown[0.0].errors()["view, RMS"] == 0 < shown[1.0].errors()["view, RMS"] < shown[2.0].errors()["view, RMS"]
    one = shown[1.0]
    squares = np.square(one.restored.astype(float) - one.patch)
    assert one.errors()["restored, sum"] == pytest.approx(squares.sum(), rel=1e-4)
    assert one.errors()["restored, RMS"] == pytest.approx(math.sqrt(squares.mean()), rel=1e-4)
