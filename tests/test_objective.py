"""Eq. 2 on a batch: the folded, recomputed, one-pass form equals the equations on the projected maps."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from helpers.memory import saved_bytes
from helpers.pretraining import SMALL, make_batch
from torch import Tensor

from mixcl import losses
from mixcl.batches import Batch
from mixcl.config.settings import LossConfig, ModelConfig
from mixcl.errors import InputError
from mixcl.model import LABEL_LEVEL, MixCL, level_edges, seeded
from mixcl.objective import Objective, floors, gradient_coverage, gradient_norms


def plain(net: MixCL, batch: Batch, config: LossConfig) -> Tensor:
    """Eq. 2 from the public forward pass, map by map."""
    output, samples = net(batch.views), len(batch.pixels)
    first = [level[:samples] for level in output.levels]
    second = [level[samples : 2 * samples] for level in output.levels]
    weights = config.level_weights
    if weights == "inverse_channels":
        weights = tuple(1 / level.shape[1] for level in output.levels)
    identity = losses.identity_consistency(
        first,
        second,
        lam=config.lam,
        center=config.center,
        level_weights=weights,  # type: ignore[arg-type]
    )
    label = []
    for i, ((p1, p2), (s1, s2)) in enumerate(zip(batch.pixels, batch.labels, strict=True)):
        level = output.levels[LABEL_LEVEL]
        z1, z2 = level[i].flatten(1)[:, p1].T, level[2 * samples + i].flatten(1)[:, p2].T
        label.append(
            losses.label_consistency(
                z1, z2, s1, s2, temperature=config.temperature, reduction=config.label_reduction,
                background=config.background,
            )
        )  # fmt: skip
    recon = losses.reconstruction_consistency(output.restored, batch.patches, reduction=config.recon_reduction)
    return losses.mixcl_loss(identity, torch.stack(label).mean(), recon, alpha=config.alpha, beta=config.beta)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"center": True, "alpha": 1.0, "label_reduction": "supcon"},
        {"level_weights": "inverse_channels", "alpha": 10.0, "beta": 1e-6, "background": "ignore_all"},
        {"level_weights": (1.0, 0.0, 2.0, 0.5, 1.0), "recon_reduction": "mean", "label_reduction": "sum"},
    ],
)
def test_the_one_pass_form_equals_the_equations(samples: int, changes: dict[str, object]) -> None:
    config, batch = LossConfig(**changes), make_batch(SMALL, samples)  # type: ignore[arg-type]
    with seeded(0):
        net = MixCL(SMALL).double()
    batch = batch._replace(views=batch.views.double(), patches=batch.patches.double())
    total = Objective(net, config)(batch).total
    total.backward()
    ours = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    reference = plain(net, batch, config)
    reference.backward()
    assert total.item() == pytest.approx(reference.item(), rel=1e-9)
    for name, p in net.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(
                ours[name], p.grad, rtol=1e-6, atol=1e-8 * float(p.grad.abs().max() + 1), msg=name
            )


def test_tokens_reading_runs_and_equals_the_equations() -> None:
    model = SMALL.model_copy(update={"levels": "tokens"})
    with seeded(0):
        net = MixCL(model).double()
    batch, config = make_batch(model, 2), LossConfig()
    batch = batch._replace(views=batch.views.double(), patches=batch.patches.double())
    torch.testing.assert_close(Objective(net, config)(batch).total, plain(net, batch, config))


@pytest.mark.parametrize(
    ("off", "silent"), [({"alpha": 0.0}, "label"), ({"beta": 0.0}, "recon"), ({"identity": 0.0}, "identity")]
)
def test_ablations_turn_one_term_off(off: dict[str, float], silent: str) -> None:
    with seeded(0):
        objective = Objective(MixCL(SMALL), LossConfig(**off))  # type: ignore[arg-type]
    terms = objective(make_batch(SMALL, 1))
    assert gradient_norms(objective, terms)[silent] == 0
    assert all(gradient_norms(objective, terms)[name] > 0 for name in {"identity", "label", "recon"} - {silent})
    weighted = objective.config.identity * terms.identity + objective.config.alpha * terms.label
    torch.testing.assert_close(terms.total, weighted + objective.config.beta * terms.recon)
    terms.total.backward()


@pytest.mark.parametrize("off", [{"identity": 0.0}, {"level_weights": (0.0,) * 5}])
def test_no_term_at_all_is_refused(off: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="leave no term to train on"):
        Objective(MixCL(SMALL), LossConfig(alpha=0.0, beta=0.0, **off))


def test_samples_without_a_positive_pair_are_counted_and_cost_nothing() -> None:
    batch = make_batch(SMALL, 2)
    labels = [(torch.zeros(60, dtype=torch.long),) * 2, batch.labels[1]]
    with seeded(0):
        objective = Objective(MixCL(SMALL), LossConfig())
    both, one = objective(batch), objective(batch._replace(labels=labels))
    assert both.without_positive.item() == 0
    assert one.without_positive.item() == 1
    assert 0 < one.label.item() < both.label.item()


def test_gradient_norms_are_those_of_separate_backward_passes() -> None:
    with seeded(0):
        objective = Objective(MixCL(SMALL), LossConfig())
    batch = make_batch(SMALL, 1)
    norms = gradient_norms(objective, objective(batch))
    objective.zero_grad()
    (0.01 * objective(batch).label).backward()
    encoder = [
        p.grad for n, p in objective.model.backbone.named_parameters()
        if p.grad is not None and n.split(".")[0] in ("vit", "encoder1", "encoder2", "encoder3", "encoder4")
    ]  # fmt: skip
    expected = torch.stack([g.norm() for g in encoder]).norm().item()
    assert norms["label"] == pytest.approx(expected, rel=1e-4)


def test_the_label_term_reaches_what_lies_before_its_level() -> None:
    """As many weights as make no difference to the term when a whole part of the encoder is changed."""
    with seeded(0):
        objective = Objective(MixCL(SMALL), LossConfig())
    batch = make_batch(SMALL, 1)
    shares = gradient_coverage(objective, objective(batch))
    assert 0 < shares["label"] < shares["identity"] <= 1
    before, parts = objective(batch).label.item(), defaultdict(list)
    for name, weight in objective.model.backbone.named_parameters():
        if name.startswith(("vit.", "encoder")):
            parts[".".join(name.split(".")[: 3 if "blocks" in name else 1])].append(weight)
    untouched, total = 0, 0
    for weights in parts.values():
        kept = [weight.data.clone() for weight in weights]
        for weight in weights:
            weight.data += 0.3
        size = sum(weight.numel() for weight in weights)
        total, untouched = total + size, untouched + size * (objective(batch).label.item() == before)
        for weight, value in zip(weights, kept, strict=True):
            weight.data = value
    assert shares["label"] == pytest.approx(1 - untouched / total, abs=0.02)


def test_centring_takes_one_from_the_rank_that_floors_count() -> None:
    with seeded(0):
        net = MixCL(SMALL)
    plain, centred = (floors(net, LossConfig(center=center), samples=1) for center in (False, True))
    positions = [edge**3 for edge in level_edges(net.config)]
    expected = [losses.identity_floor(c, max(m - 1, 1)) for c, m in zip(net.widths(), positions, strict=True)]
    assert centred == pytest.approx(expected)
    assert centred[-1] > plain[-1]


def test_level_shares_add_up_and_lie_above_their_floors() -> None:
    with seeded(0):
        net = MixCL(SMALL)
    objective = Objective(net, LossConfig())
    terms = objective(make_batch(SMALL, 1))
    assert terms.levels.sum().item() == pytest.approx(terms.identity.item(), rel=1e-6)
    least = floors(net, LossConfig(), samples=1)
    assert least[4] > 0  # 48 channels on 8 positions
    assert all(share >= floor for share, floor in zip(terms.levels.tolist(), least, strict=True))


def test_large_levels_keep_nothing_but_what_the_backbone_keeps() -> None:
    """Saved memory of Eq. 2 against the bare backbone's, in a model where a stored projector map would show."""
    model = ModelConfig(patch=64, feature=16, hidden=24, mlp=48, heads=2)
    with seeded(0):
        objective = Objective(MixCL(model), LossConfig(alpha=0.0))
    views = torch.rand(3, 1, 64, 64, 64)
    batch = Batch(views, views, (), (), torch.zeros(2, 64, 64, 64, dtype=torch.uint8), [0], [0])

    ours = saved_bytes(lambda: objective(batch).total)
    bare = saved_bytes(lambda: objective.model.backbone(views).square().mean())
    assert ours < 1.25 * bare


def test_wrong_number_of_level_weights() -> None:
    with pytest.raises(ValueError, match="3 entries for 5 levels"):
        Objective(MixCL(SMALL), LossConfig(level_weights=(1.0, 1.0, 1.0)))


def test_a_level_known_alone_keeps_its_place_and_weight() -> None:
    """Without the identity term only the label level's bracket is known; it is logged as that level's."""
    weights = (2.0, 3.0, 5.0, 7.0, 11.0)
    with seeded(0):
        net = MixCL(SMALL)
    batch = make_batch(SMALL, 1)
    whole = Objective(net, LossConfig(level_weights=weights))(batch)
    alone = Objective(net, LossConfig(level_weights=weights, identity=0))(batch)
    expected = torch.zeros(5)
    expected[LABEL_LEVEL] = whole.levels[LABEL_LEVEL]
    torch.testing.assert_close(alone.levels, expected, rtol=1e-5, atol=0)
    assert alone.identity.item() == pytest.approx(whole.levels[LABEL_LEVEL].item(), rel=1e-5)
