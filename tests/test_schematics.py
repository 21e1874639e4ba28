"""Figures 1 and 2: what they hold is what the objective sees and what the package's functions give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from reference import relation as relation_by_loops

from mixcl import schematics, trainer
from mixcl.config import Experiment
from mixcl.schematics import Sample


@pytest.fixture(scope="module")
def made(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Sample]:
    from mixcl.config import load_profile

    config = load_profile("smoke", [f"data.store={prepared / 'data' / 'store'}", "pretrain.steps=1"])
    out = tmp_path_factory.mktemp("schematics")
    trainer.pretrain(config, out, progress=False)
    return config, schematics.sample(config, out)


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


def test_relation_is_sorted_and_as_the_loops_say(made: tuple[Experiment, Sample]) -> None:
    config, shown = made
    rows, columns = shown.relation_labels
    assert (np.diff(rows) >= 0).all()
    assert (np.diff(columns) >= 0).all()
    expected = relation_by_loops(rows.tolist(), columns.tolist(), config.loss.background)
    np.testing.assert_array_equal(shown.relation, expected)


def test_correlation_of_two_views_is_square_and_bounded(made: tuple[Experiment, Sample]) -> None:
    _, shown = made
    assert shown.correlation.shape[0] == shown.correlation.shape[1]
    assert np.abs(shown.correlation).max() <= 1 + 1e-5


def test_figures_show_every_part(made: tuple[Experiment, Sample]) -> None:
    config, shown = made
    first, second = schematics.overview(shown, config), schematics.parts(shown)
    titles = [ax.get_title() for ax in first.axes]
    assert all(any(name in title for title in titles) for name in ("$P_1$", "$V_1$", "$V'_1$", "$V_2$", "tilde P_2"))
    assert sum(title.startswith("(") for title in (ax.get_title() for ax in second.axes)) == 4
    assert "Phantoms, not patients" in shown.caption


def test_torch_is_left_as_it_was(made: tuple[Experiment, Sample]) -> None:
    assert torch.is_grad_enabled()
