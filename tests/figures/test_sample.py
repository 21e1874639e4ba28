"""Figures 1 and 2: what they hold is what the objective sees and what the package's functions give."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.reference import correlation as correlation_by_loops
from helpers.reference import relation as relation_by_loops
from helpers.reference import weight as weight_of_distance
from matplotlib.patches import Rectangle

from mixcl import batches, illustration, trainer
from mixcl.config.settings import Experiment
from mixcl.data.store import Store
from mixcl.figures import sample
from mixcl.illustration import Sample
from mixcl.model import LABEL_LEVEL, MixCL
from mixcl.run import checkpoint


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schematics")


@pytest.fixture(scope="module")
def made(prepared: Path, results: Path) -> tuple[Experiment, Sample]:
    from mixcl.config import load_profile

    config = load_profile("smoke", [f"data.store={prepared / 'data' / 'store'}", "pretrain.steps=1"])
    trainer.pretrain(config, results, progress=False)
    return config, illustration.sample(config, results)


def pairs(config: Experiment, results: Path) -> batches.PairDataset:
    store = Store(config.data.store_dir(results), settings=config.data)
    cases = [case for name in config.data.pretrain for case in store.cases(name)]
    return batches.PairDataset(cases, config, illustration.CANDIDATES)


def number(shown: Sample) -> int:
    match = re.search(r"Sample (\d+) ", shown.chosen)
    assert match
    return int(match[1])


def test_the_sample_is_one_whose_views_differ_and_of_those_has_most_in_common(
    made: tuple[Experiment, Sample], results: Path
) -> None:
    config, shown = made
    best, chosen = (False, False, 0, -1), -1
    for k in range(illustration.CANDIDATES):
        item = pairs(config, results)[k]
        first, second = item["label"].flatten(1).tolist()
        both = {label for label in first if label and label in second}
        batch = batches.pretraining_batch(batches.collate([item]), config, torch.device("cpu"))
        three = [batch.patches[0].flatten(), batch.views[0].flatten(), batch.views[1].flatten()]
        apart = min(float((three[a] - three[b]).norm()) / len(three[0]) ** 0.5 for a, b in ((0, 1), (0, 2), (1, 2)))
        voxels = min(sum(label > 0 for label in labels) for labels in (first, second))
        merit = (bool(both), apart >= illustration.VISIBLE, len(both), voxels)
        if merit > best:
            best, chosen = merit, k
    assert number(shown) == chosen
    assert len(np.unique(shown.labels)) > 1
    assert best[1]  # 35 of 100 samples have three pictures that differ
    for a, b in ((shown.patches["$P_1$"], shown.views["$V_1$"]), (shown.views["$V_1$"], shown.views["$V'_1$"])):
        assert illustration.rms(a, b) >= illustration.VISIBLE


def test_boxes_lie_where_the_patches_were_cut(made: tuple[Experiment, Sample], results: Path) -> None:
    """Left of the box is its highest x; all of it is within the panel, also what is padding."""
    config, shown = made
    edge, places = config.model.patch, pairs(config, results).places(number(shown))
    figure = sample.overview(shown, config)
    for ax, (case, origin) in zip((figure.axes[0], figure.axes[5]), places, strict=True):
        (box,) = (patch for patch in ax.patches if isinstance(patch, Rectangle))
        width = case.shape[0] * case.spacing[0]
        assert box.get_x() == pytest.approx(width - (origin[0] + edge) * case.spacing[0])
        assert box.get_y() == pytest.approx(origin[1] * case.spacing[1])
        assert box.get_width() == pytest.approx(edge * case.spacing[0])
        for low, high, (first, last) in (
            (box.get_x(), box.get_x() + box.get_width(), ax.get_xlim()),
            (box.get_y(), box.get_y() + box.get_height(), ax.get_ylim()),
        ):
            assert first < low < high < last
        assert f"{case.collection}, case {case.id}" in ax.get_title()


def test_the_terms_add_up_to_eq_2(made: tuple[Experiment, Sample]) -> None:
    config, shown = made
    terms = shown.terms
    total = terms["identity"] + config.loss.alpha * terms["label"] + config.loss.beta * terms["recon"]
    assert terms["total"] == pytest.approx(total, rel=1e-5)


def test_reconstruction_is_that_of_the_shown_patches(made: tuple[Experiment, Sample]) -> None:
    """Eq. 3 from the shown arrays: V_1 and V_2 are there; V'_1's share is the rest, and no less than nothing."""
    _, shown = made
    two = sum(
        float(((shown.restored[view] - shown.patches[patch]) ** 2).sum())
        for view, patch in (("$V_1$", "$P_1$"), ("$V_2$", "$P_2$"))
    )
    assert 0 < two / 3 < shown.terms["recon"]


def test_pixels_are_drawn_from_every_label_present(made: tuple[Experiment, Sample]) -> None:
    config, shown = made
    drawn = shown.labels.ravel()[shown.pixels]
    for value in np.unique(shown.labels):
        there = int((shown.labels == value).sum())
        assert (drawn == value).sum() == min(there, config.sampler.budget)


def test_labels_shown_are_those_the_label_loss_saw(made: tuple[Experiment, Sample]) -> None:
    _, shown = made
    np.testing.assert_array_equal(np.sort(shown.labels.ravel()[shown.pixels]), shown.relation_labels[0])


def test_weights_are_those_of_the_shown_labels(made: tuple[Experiment, Sample]) -> None:
    """Eq. 7 at every 97th voxel, its distance to each voxel of another label tried."""
    config, shown = made
    everywhere = np.argwhere(np.ones_like(shown.labels, bool))
    for place in everywhere[::97]:
        borders = np.argwhere(shown.labels != shown.labels[tuple(place)])
        distance = math.sqrt(((borders - place) ** 2).sum(1).min())
        expected = weight_of_distance(distance, config.sampler.mu, config.sampler.eps)
        assert shown.weights[tuple(place)] == pytest.approx(expected, rel=1e-5)


def test_relation_is_sorted_and_as_the_loops_say(made: tuple[Experiment, Sample]) -> None:
    config, shown = made
    rows, columns = shown.relation_labels
    assert (np.diff(rows) >= 0).all()
    assert (np.diff(columns) >= 0).all()
    expected = relation_by_loops(rows.tolist(), columns.tolist(), config.loss.background)
    np.testing.assert_array_equal(shown.relation, expected)


def test_correlation_is_that_of_the_shown_views_under_the_trained_network(
    made: tuple[Experiment, Sample], results: Path
) -> None:
    """Eq. 5 by loops; neither fresh weights nor V_2 in place of V'_1 would do."""
    config, shown = made
    model = MixCL(config)
    views = torch.from_numpy(np.stack([shown.views[name] for name in ("$V_1$", "$V'_1$", "$V_2$")]))[:, None]

    def correlation(other: int) -> np.ndarray:
        with torch.no_grad():
            level = model(views).levels[LABEL_LEVEL].double().numpy()
        return correlation_by_loops(level[:1], level[other : other + 1], config.loss.center)

    fresh = correlation(1)
    model.load_state_dict(checkpoint.read_weights(results / "runs" / "pretrain")[0])
    np.testing.assert_allclose(shown.correlation, correlation(1), atol=1e-4)
    assert np.abs(shown.correlation - correlation(2)).max() > 1e-2
    assert np.abs(shown.correlation - fresh).max() > 1e-2


def test_figures_show_every_part(made: tuple[Experiment, Sample]) -> None:
    config, shown = made
    first, second = sample.overview(shown, config), sample.parts(shown)
    titles = [ax.get_title() for ax in first.axes]
    assert all(any(name in title for title in titles) for name in ("$P_1$", "$V_1$", "$V'_1$", "$V_2$", "tilde P_2"))
    assert sum(title.startswith("(") for title in (ax.get_title() for ax in second.axes)) == 4
    assert "phantoms, not patients" in first.caption


def test_torch_is_left_as_it_was(made: tuple[Experiment, Sample]) -> None:
    assert torch.is_grad_enabled()
