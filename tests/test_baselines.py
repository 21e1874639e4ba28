"""The comparison pre-trainings: what each optimises, from its definition, and that each trains an encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.settings import change

from mixcl import baselines, model, objective, trainer
from mixcl.batches import Batch
from mixcl.config import load_profile
from mixcl.config.profile import with_settings
from mixcl.config.settings import Experiment, FinetuneConfig
from mixcl.data.registry import collections
from mixcl.data.splits import start
from mixcl.errors import InputError
from mixcl.evaluate import evaluate
from mixcl.model import ENCODER, seeded
from mixcl.objective import Pretraining
from mixcl.results import effects
from mixcl.run import checkpoint, jobs, record

SAMPLES = 3


@pytest.fixture
def batch() -> Batch:
    g = torch.Generator().manual_seed(1)
    views, patches = torch.rand(2, 3 * SAMPLES, 1, 32, 32, 32, generator=g)
    maps = torch.randint(0, 3, (2 * SAMPLES, 32, 32, 32), generator=g).to(torch.uint8)
    return Batch(views, patches, (), (), maps, range(SAMPLES), [0, 2, 4])


def make(method: str, **settings: object) -> Pretraining:
    config = change(load_profile("smoke"), pretrain={"method": method, "batch": SAMPLES, **settings})
    with seeded(0):
        return baselines.objective(config)


def test_barlow_twins_correlates_pooled_vectors_over_samples(batch: Batch) -> None:
    objective = make("barlow")
    encode, levels = objective.model.backbone.encode, objective.model.level_maps
    pooled = [
        torch.cat([z.mean((2, 3, 4)) for z in levels(encode(part))], 1) for part in batch.views.split(SAMPLES)[:2]
    ]
    a, b = (objective.projector(part) for part in pooled)  # each view has its own batch statistics
    a, b = a - a.mean(0), b - b.mean(0)
    c = (a.T @ b) / torch.outer(a.norm(dim=0), b.norm(dim=0))
    expected = (1 - c.diagonal()).square().sum() + 0.0051 * (c - c.diag().diag()).square().sum()
    assert objective(batch).total.item() == pytest.approx(expected.item(), rel=1e-4)


def test_barlow_twins_needs_more_than_one_sample() -> None:
    with pytest.raises(InputError, match="batch to 2"):
        make("barlow", batch=1)


def test_masked_restoration_is_l1_times_one_plus_the_contrast(batch: Batch) -> None:
    terms = make("masked")(batch)
    assert float(terms.total.detach()) == pytest.approx(float((terms.recon * (1 + terms.contrast)).detach()), rel=1e-6)
    again = make("masked")(batch)
    assert float(again.total.detach()) == float(terms.total.detach())  # masks depend on seed and sample alone


def test_a_mask_changes_some_voxels_and_never_the_patch_it_is_given() -> None:
    patch = torch.rand(1, 32, 32, 32)
    before, shares = patch.clone(), []
    for seed in range(20):
        masked = baselines.mask(patch, seed)
        shares.append(float((masked != before).float().mean()))
    assert torch.equal(patch, before)
    assert min(shares) < 0.3  # boxes are emptied
    assert max(shares) > 0.4  # or all around boxes is


def test_supervision_is_dice_and_cross_entropy_under_the_head_of_each_collection(batch: Batch) -> None:
    objective = make("supervised")
    config = load_profile("smoke")
    sets = collections(config.data)
    names = [sets[name].names for name in config.data.pretrain]
    assert [head.out_channels for head in objective.heads] == [len(one) + 1 for one in names]
    views = torch.cat([batch.views[:SAMPLES], batch.views[2 * SAMPLES :]])
    backbone = objective.model.backbone
    features = backbone.features(backbone.encode(views))
    losses = []
    for row, number in enumerate(batch.collections):
        truth = batch.maps[[row, SAMPLES + row]].long()
        truth = torch.where(truth < len(names[number]) + 1, truth, 0)  # a value that is none of its labels
        scores = objective.heads[number](features[[row, SAMPLES + row]])
        p = scores.softmax(1)
        y = torch.nn.functional.one_hot(truth, scores.shape[1]).movedim(-1, 1)
        first = 0 if config.finetune.dice_background else 1
        overlap, size = (p * y).sum((2, 3, 4)), p.sum((2, 3, 4)) + y.sum((2, 3, 4))
        dice = 1 - ((2 * overlap + 1e-5) / (size + 1e-5))[:, first:].mean()
        losses.append(dice + torch.nn.functional.cross_entropy(scores, truth))
    assert objective(batch).total.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_a_class_counts_by_its_voxels_to_the_power_of_one_less_the_balance(balance: float) -> None:
    """Against a loop over voxels; at 1, every class that is there counts alike."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, 3, 3, generator=generator, dtype=torch.float64)
    classes = torch.randint(0, 3, (2, 1, 3, 3, 3), generator=generator)  # class 3 is not there
    classes[0, 0, :2] = 0
    loss = baselines.SegmentationLoss(FinetuneConfig(balance=balance))
    x, y = logits.movedim(1, -1).reshape(-1, 4).numpy(), classes.flatten().numpy()
    count = np.bincount(y, minlength=4)
    total, weights = 0.0, 0.0
    for row, k in zip(x, y, strict=True):
        weight = float(count[k]) ** -balance
        total += weight * (np.log(np.exp(row).sum()) - row[k])
        weights += weight
    assert float(loss(logits, classes) - loss.dice(logits, classes)) == pytest.approx(total / weights, rel=1e-9)
    if balance == 1:
        rare = [np.mean([np.log(np.exp(r).sum()) - r[k] for r in x[y == k]]) for k in range(3)]
        assert total / weights == pytest.approx(np.mean(rare))
    images = logits.clone().requires_grad_()
    loss(images, classes).backward()
    assert torch.isfinite(images.grad).all()


@pytest.mark.parametrize("method", ["barlow", "masked", "supervised"])
def test_every_method_moves_the_encoder_and_hands_it_over(method: str, smoke: Experiment, tmp_path: Path) -> None:
    config = change(smoke, pretrain={"method": method, "batch": 2, "steps": 2, "probe_every": 1})
    run = trainer.pretrain(config, tmp_path, progress=False)
    weights, _ = checkpoint.read_weights(run)
    with seeded(config.pretrain.seed):
        fresh = baselines.objective(config).model.state_dict()
    moved = {name.split(".")[1] for name in weights if not torch.equal(weights[name], fresh[name])}
    assert set(ENCODER) <= moved
    records = checkpoint.read_metrics(run / "metrics.jsonl")
    assert all(norm > 0 for norm in records[0]["gradients"].values())
    tuned = trainer.finetune(
        config, tmp_path, task="msd_spleen", percent=100, fold=0, arm=method, init=run, progress=False
    )
    assert "weights loaded" in record.read_card(tuned)["hand_over"]


def test_without_a_method_there_is_nothing_to_train() -> None:
    with pytest.raises(InputError, match="nothing to pre-train"):
        make("none")


def test_a_frozen_encoder_keeps_its_weights_and_the_decoder_learns(smoke: Experiment, tmp_path: Path) -> None:
    config = change(smoke, finetune={"freeze": True})
    run = trainer.finetune(config, tmp_path, task="msd_spleen", percent=100, fold=0, arm="scratch", progress=False)
    weights, _ = checkpoint.read_weights(run)
    with seeded(start(0, 0)):
        fresh = model.segmentation_model(config.model, 1).state_dict()
    for name, value in weights.items():
        same = torch.equal(value, fresh[name])
        assert same == (name.split(".")[0] in ENCODER) or name.endswith("bias"), name


class Brightness(objective.Pretraining):
    """A made-up pre-training: the bottleneck's mean is to tell how bright a patch is."""

    def __init__(self, net: model.MixCL, config: Experiment) -> None:
        super().__init__(net)
        self.head = torch.nn.Linear(net.config.hidden, 1)

    def forward(self, batch: Batch) -> baselines.Total:
        z = self.model.backbone.encode(batch.views).bottleneck.flatten(2).mean(2)  # [3B, hidden]
        return baselines.Total((self.head(z)[:, 0] - batch.patches.flatten(1).mean(1)).square().mean())


@pytest.mark.slow
def test_a_new_baseline_is_a_class_and_a_line(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It trains, logs, is fine-tuned and evaluated, and stands in the table of effects, by its profile line alone."""
    monkeypatch.setitem(baselines.METHODS, "brightness", Brightness)
    arms = "grid.variants={bright: [pretrain.method=brightness, pretrain.steps=2]}"
    common = [
        f"data.store={prepared / 'data' / 'store'}",
        arms,
        "finetune.steps=2",
        "grid.percents={msd_spleen: [100]}",
    ]
    config = load_profile("smoke", [*common, "grid.ablation={msd_spleen: 100}"])
    for job in jobs.pretrainings(config):
        if job.name == "pretrain-bright":
            run = trainer.pretrain(with_settings(config, job.settings), tmp_path, job=job.name, progress=False)
    totals = [line["total"] for line in checkpoint.read_metrics(run / "metrics.jsonl")]
    assert len(totals) == 2
    for fold in config.grid.folds:
        for arm, init in (("scratch", None), ("bright", run)):
            tuned = trainer.finetune(
                config, tmp_path, task="msd_spleen", percent=100, fold=fold, arm=arm, init=init, progress=False
            )
            evaluate(config, tmp_path, tuned)
    table = effects.effects(config, tmp_path)
    assert ("bright", "scratch") in set(zip(table["arm"], table["against"], strict=True))
