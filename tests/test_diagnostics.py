"""What features are like: each number against its definition, and that measuring changes nothing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.settings import change

from mixcl import batches, diagnostics, trainer
from mixcl.config.settings import Experiment
from mixcl.data.store import Store
from mixcl.model import Encoded, MixCL, seeded
from mixcl.run import checkpoint, record


@pytest.fixture
def patches(smoke: Experiment, prepared: Path) -> diagnostics.Probe:
    store = Store(prepared / "data" / "store", settings=smoke.data)
    return diagnostics.probe([case for name in smoke.data.pretrain for case in store.cases(name)], smoke)


def test_effective_rank_is_e_to_the_entropy_of_the_spectrum() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, 6, 10, 10, 10, generator=g) * torch.tensor([1, 1, 2, 3, 0.1, 0.5]).view(1, 6, 1, 1, 1) + 4
    rank, ceiling, share = diagnostics._spectrum(diagnostics._sums(z))
    flat = z[0].flatten(1).numpy().astype(np.float64)
    values = np.linalg.svd(flat - flat.mean(1, keepdims=True), compute_uv=False) ** 2
    p = values / values.sum()
    assert rank == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-6)
    assert ceiling == 6
    assert share == pytest.approx((flat.mean(1) ** 2 / (flat**2).mean(1)).mean(), rel=1e-9)


def test_equal_independent_channels_have_full_rank_and_copies_rank_1() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, 8, 20, 20, 20, generator=g)
    assert diagnostics._spectrum(diagnostics._sums(z))[0] == pytest.approx(8, rel=0.01)
    copies = z[:, :1].repeat(1, 8, 1, 1, 1)
    assert diagnostics._spectrum(diagnostics._sums(copies))[0] == pytest.approx(1, abs=1e-6)


def test_agreement_counts_nearest_pixels_of_other_collections() -> None:
    names = {"a": {1: "pancreas", 2: "tumour"}, "b": {1: "pancreas"}, "c": {1: "liver"}}
    classes = [("a", 1, 0), ("a", 2, 0), ("b", 1, 0), ("b", 1, 1), ("c", 1, 0), ("a", 0, 0)]
    rows = torch.eye(6)
    rows[2] = rows[0]  # b's first pancreas lies on a's
    rows[3] = rows[4]  # b's second pancreas lies on c's liver
    measured = diagnostics.agreement(rows, classes, names)
    # a's pancreas finds b's; b's first finds a's; b's second finds the liver: 2 of 3.
    assert measured["agreement"] == pytest.approx(2 / 3)
    # Candidates: of a {b, b, c}: 2/3; of b's two {a pancreas, a tumour, c liver}: 1/3 each.
    assert measured["chance"] == pytest.approx((2 / 3 + 1 / 3 + 1 / 3) / 3)
    assert diagnostics.agreement(rows[:2], classes[:2], names) == {}


def test_the_linear_probe_finds_what_is_linear_and_nothing_in_noise(patches: diagnostics.Probe) -> None:
    edge = patches.grids.shape[-1]
    g = torch.Generator().manual_seed(0)
    perfect, noise = [], []
    for number, grid in enumerate(patches.grids):
        labels = grid.flatten()[diagnostics._voxels(edge, number)].long()
        perfect.append(torch.nn.functional.one_hot(labels, 4).T.float())
        noise.append(torch.randn(4, len(labels), generator=g))
    assert diagnostics.probe_dice(perfect, patches)["probe_dice"] > 0.99
    assert diagnostics.probe_dice(noise, patches)["probe_dice"] < 0.4


def test_of_scans_with_hardly_a_known_voxel_no_probe_is_learnt(patches: diagnostics.Probe) -> None:
    """Sparse annotation (R33): the voxels that are looked at may all be unknown, or all but one."""
    features = [torch.randn(4, min(grid.numel(), diagnostics.VOXELS)) for grid in patches.grids]
    for known in (0, 1):
        grids = torch.full_like(patches.grids, 255)
        for number, grid in enumerate(grids):
            grid.flatten()[diagnostics._voxels(grid.shape[-1], number)[:known]] = 1
        assert diagnostics.probe_dice(features, patches._replace(grids=grids)) == {}


def test_measuring_leaves_model_and_random_numbers_as_they_were(smoke: Experiment, patches: diagnostics.Probe) -> None:
    with seeded(0):
        model = MixCL(smoke)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    first, second = (diagnostics.measure_features(model, patches) for _ in (0, 1))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(0 < rank <= most for rank, most in zip(first["rank"], first["ceiling"], strict=True))
    assert 0 <= first["agreement"] <= 1
    assert first["uniformity"] <= 0


def test_measuring_does_not_change_the_training(smoke: Experiment, tmp_path: Path) -> None:
    cards = []
    for every in (0, 1):
        out = tmp_path / str(every)
        run = trainer.pretrain(change(smoke, pretrain={"probe_every": every}), out, progress=False)
        cards.append(record.read_card(run)["weights"])
    assert cards[0] == cards[1]
    records = checkpoint.read_metrics(run / "metrics.jsonl")
    assert [line["probe"]["step"] for line in records] == [0, 1, 2, 3]


def test_warnings_name_the_number() -> None:
    measured = {"rank": [1.0, 8.0], "ceiling": [16, 16], "mean_share": [0.2, 0.95]}
    messages = diagnostics.warnings(measured, {"identity": 500.0, "label": 1.0, "recon": 0.0})
    assert len(messages) == 3
    for text, parts in zip(
        messages, [("level 0", "1.0"), ("level 1", "95 %"), ("identity", "500", "label")], strict=True
    ):
        assert all(part in text for part in parts), text
    assert diagnostics.warnings({"rank": [8.0], "ceiling": [16], "mean_share": [0.2]}, {"a": 2.0, "b": 1.0}) == []


@pytest.mark.parametrize("edge", [4, 8])
def test_the_probe_sees_a_level_where_its_labels_were_taken(edge: int) -> None:
    """Voxels that are their own numbers, as features and as labels, at the voxels that the probe draws."""
    numbers = torch.arange(16**3).reshape(1, 16, 16, 16)
    ramp = numbers[None].double()
    encoded = Encoded((ramp,), (), ramp)
    labels = batches.coarse(numbers, edge).flatten()[diagnostics._voxels(edge, 0)]
    assert torch.equal(diagnostics._at_label_grid(encoded, edge, 0), labels.float().expand(2, -1))
