"""Labels as people have them: merged ones, and voxels of which nothing is known (R33), from the files to the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import reference
from helpers.volumes import affine_of, scan, write_case
from monai.losses import DiceLoss
from numpy.typing import NDArray

from mixcl import baselines, batches, losses, sampler, trainer
from mixcl import evaluate as ev
from mixcl.config import load_profile
from mixcl.config.settings import Collection, Experiment, FinetuneConfig
from mixcl.data.files import Volume
from mixcl.data.files.volume import label_map
from mixcl.data.patches import read_patch
from mixcl.data.prepare.case import original_label
from mixcl.data.prepare.run import prepare
from mixcl.data.store import Case, Store
from mixcl.errors import InputError
from mixcl.labels import UNKNOWN
from mixcl.metrics import measure
from mixcl.run.record import read_card
from mixcl.windows import measure_test

ORGANS = {1: "liver", 2: "kidney"}
COLLECTION = {
    "names": {1: "liver", 2: "right kidney", 3: "left kidney", 7: "liver tumour"},
    "merge": {"kidney": [2, 3], "liver": [1, 7]},
    "unknown": [9],
}


@pytest.mark.parametrize("reduction", ["ratio", "supcon", "sum"])
def test_unknown_pixels_take_part_in_no_pair_of_eq_6(reduction: str) -> None:
    """Loss and gradients are those of the loops and of the known pixels alone, whatever the unknown ones are."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(6, 3, generator=g, dtype=torch.float64), torch.randn(5, 3, generator=g, dtype=torch.float64)
    labels_a, labels_b = torch.tensor([0, 1, 255, 2, 1, 255]), torch.tensor([255, 1, 0, 2, 2])
    a.requires_grad_()
    loss = losses.label_consistency(a, b, labels_a, labels_b, reduction=reduction)
    loops = reference.label(
        a.detach().numpy(), b.numpy(), labels_a.tolist(), labels_b.tolist(), 0.1, reduction, "ignore_pairs"
    )
    assert loss.item() == pytest.approx(loops, rel=1e-9)
    known_a, known_b = labels_a != UNKNOWN, labels_b != UNKNOWN
    alone = losses.label_consistency(a[known_a], b[known_b], labels_a[known_a], labels_b[known_b], reduction=reduction)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, a)
    assert (gradient[~known_a] == 0).all()
    assert (gradient[known_a] != 0).any()


def volumes(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [2, 4, 6, 5, 4] and classes whose last two planes along the first axis are unknown."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 6, 5, 4, generator=g, dtype=torch.float64)
    classes = torch.randint(0, 4, (2, 1, 6, 5, 4), generator=g)
    classes[:, :, 4:] = UNKNOWN
    return logits, classes


@pytest.mark.parametrize("settings", [{}, {"balance": 0.5}, {"dice_background": False}])
def test_dice_and_cross_entropy_are_those_without_the_unknown_voxels(settings: dict[str, Any]) -> None:
    loss, (logits, classes) = baselines.SegmentationLoss(FinetuneConfig(**settings)), volumes()
    whole = logits.clone().requires_grad_()
    value = loss(whole, classes)
    assert value.item() == pytest.approx(float(loss(logits[:, :, :4], classes[:, :, :4])), rel=1e-9)
    value.backward()
    assert (whole.grad[:, :, 4:] == 0).all()
    assert (whole.grad[:, :, :4] != 0).any()
    other = logits.clone()
    other[:, :, 4:] = 50 * torch.randn(2, 4, 2, 5, 4, dtype=torch.float64)
    assert float(loss(other, classes)) == value.item()


def test_a_patch_of_which_nothing_is_known_has_no_loss_and_no_gradient() -> None:
    loss, (logits, classes) = baselines.SegmentationLoss(FinetuneConfig(balance=0.5)), volumes()
    logits.requires_grad_()
    value = loss(logits, torch.full_like(classes, UNKNOWN))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


def test_without_unknown_voxels_the_loss_is_monais_and_torchs_to_the_last_bit() -> None:
    logits, classes = volumes()
    logits, classes = logits.float(), classes.where(classes != UNKNOWN, 1)
    dice = DiceLoss(to_onehot_y=True, softmax=True)(logits, classes)
    expected = dice + torch.nn.functional.cross_entropy(logits, classes[:, 0])
    assert torch.equal(baselines.SegmentationLoss(FinetuneConfig())(logits, classes), expected)


def test_metrics_are_those_of_the_scan_without_the_unknown_part() -> None:
    """The unknown part is cut away as the scan's border cuts it; what is predicted there changes nothing."""
    rng = np.random.default_rng(0)
    label, predicted = (rng.integers(0, 3, (9, 8, 7)).astype(np.uint8) for _ in range(2))
    label[6:] = UNKNOWN
    how: dict[str, Any] = {"spacing": (1.0, 1.5, 2.0), "tolerance_mm": 1.0}
    rows = measure(label, predicted, ORGANS, **how)
    assert rows == measure(label[:6], predicted[:6], ORGANS, **how)
    for value in (0, 1, 2, UNKNOWN):
        predicted[6:] = value
        assert measure(label, predicted, ORGANS, **how) == rows


def test_values_that_files_give_what_is_unknown() -> None:
    """Also those that no uint8 holds: -1 and 65535 are what people take for it."""
    own = Collection(names={1: "liver", 255: "spleen"}, unknown=(-1, 9, 65535))
    for kind in (np.int32, np.float32):
        label = Volume(Path("seg.nii"), np.array([[[0, 1, 255], [-1, 9, 65535]]], kind), np.eye(4), "")
        assert label_map(label, own.stored).tolist() == [[[0, 1, 254], [UNKNOWN] * 3]]
    for foreign in (-2, 2, 300):
        label = Volume(Path("seg.nii"), np.array([[[1, -1, foreign]]], np.int32), np.eye(4), "")
        with pytest.raises(InputError, match=r"seg.nii: .*label value.*mend the map"):
            label_map(label, own.stored)
    nothing = Volume(Path("seg.nii"), np.array([[[0, -1, 9]]], np.int32), np.eye(4), "")
    with pytest.raises(InputError, match="labels nothing"):
        label_map(nothing, own.stored)


def unknown_box(label: NDArray[np.uint8]) -> None:
    label[34:, :, :12] = 9


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five scans with two kidneys, a liver with a tumour, and a part in which nobody has looked."""
    root = tmp_path_factory.mktemp("ward")
    for k in range(5):
        image, label = scan((44, 36, 30), seed=k, values=(1, 2, 3))
        label[4:8, 4:6, 3:6] = 7
        unknown_box(label)
        for name in ("ward", "other"):
            noisy = image + np.int16(name == "other")
            write_case(root / name, f"00{k}", noisy, label, affine_of((8.0, 9.5, 10.0), (-150.0, 120.0, -200.0)))
    return root


@pytest.fixture(scope="module")
def config(ward: Path) -> Experiment:
    values = {
        "extends": "smoke",
        "data": {
            "source": "files", "root": str(ward), "store": str(ward / "store"), "pretrain": ["other"],
            "finetune": ["ward"], "collections": {name: {"root": name, **COLLECTION} for name in ("ward", "other")},
        },
        "grid": {"n_folds": 2, "percents": {"ward": [100]}},
        "pretrain": {"steps": 2, "batch": 2}, "finetune": {"steps": 2, "foreground_prob": 0.0},
    }  # fmt: skip
    (ward / "ward.yaml").write_text(json.dumps(values))  # JSON is YAML
    config = load_profile(ward / "ward.yaml")
    prepare(config, ward, workers=1, progress=False)
    return config


def cases(config: Experiment, name: str = "ward") -> tuple[Case, ...]:
    return Store(config.data.store_dir(Path())).cases(name)


def test_the_store_has_the_organs_and_what_is_unknown(config: Experiment) -> None:
    for case in cases(config):
        assert case.names == ORGANS
        label = np.asarray(case.label())
        assert np.unique(label).tolist() == [0, 1, 2, UNKNOWN]
        assert sorted(case.foreground()) == [1, 2]  # no patch is centred on what is unknown
        given = original_label(case)
        before = json.loads((case.path / "case.json").read_text())["source_voxels"]
        assert {value: int((given == int(value)).sum()) for value in before} == before
        assert sorted(before) == ["0", "1", "2"]
        patch = read_patch(case, (-4, -4, -4), 32, config.data.hu)[1]
        assert (patch[:4] == 0).all()  # beyond the scan is background, as ever


def test_other_rules_make_the_store_anew(config: Experiment, ward: Path, tmp_path: Path) -> None:
    def made(rules: dict[str, Any]) -> tuple[int, str]:
        own = {"ward": {"root": "ward", "names": COLLECTION["names"], "unknown": [9], **rules}}
        values = {"extends": "smoke", "data": {"source": "files", "root": str(ward), "collections": own}}
        values["data"] |= {"pretrain": ["ward"], "finetune": []}
        (tmp_path / "own.yaml").write_text(json.dumps(values))
        own_config = load_profile(tmp_path / "own.yaml")
        report = prepare(own_config, tmp_path, workers=1, progress=False)
        return report.collections[0].made, Store(own_config.data.store_dir(tmp_path)).fingerprint()

    apart = made({})
    assert apart[0] == 5
    assert made({}) == (0, apart[1])
    merged = made({"merge": COLLECTION["merge"]})
    assert merged[0] == 5
    assert merged[1] != apart[1]
    assert made({"merge": {"Niere": [2, 3], "Leber": [1, 7]}}) == (0, merged[1])  # only the names are others


def test_no_unknown_pixel_is_drawn_and_none_decides_a_step(config: Experiment) -> None:
    """Not one pixel is drawn where nothing is known, though the patches hold such voxels, distorted or not."""
    stream = batches.PairDataset(cases(config, "other"), config, 12)
    seen = 0
    for index in range(12):
        item = stream[index]
        seen += int((item["label"] == UNKNOWN).sum())
        for _, labels in item["pixels"]:
            assert not (labels == UNKNOWN).any()
    assert seen > 1000


def test_a_sample_of_which_nothing_is_known_has_no_pair(config: Experiment) -> None:
    """Its label term is 0 (R14); the other sample's stays as it was."""
    stream = batches.PairDataset(cases(config, "other"), config, 2)
    raw = batches.collate([stream[0], stream[1]])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = baselines.objective(config)
    both = objective(batches.pretraining_batch(raw, config, torch.device("cpu")))
    for patch in range(2):
        nothing = sampler.sample_pixels(torch.full((16, 16, 16), UNKNOWN, dtype=torch.uint8), 8)
        raw["pixels"][1][patch] = (nothing, nothing)
    one = objective(batches.pretraining_batch(raw, config, torch.device("cpu")))
    assert one.without_positive.item() == both.without_positive.item() + 1
    assert 0 < one.label.item() < both.label.item()
    assert one.identity.item() == pytest.approx(both.identity.item(), rel=1e-6)
    one.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters() if p.grad is not None)


def test_supervised_pretraining_learns_nothing_where_nothing_is_known(config: Experiment) -> None:
    supervised = baselines.Supervised(baselines.MixCL(config), config)
    assert [head.out_channels for head in supervised.heads] == [len(ORGANS) + 1]
    stream = batches.PairDataset(cases(config, "other"), config, 2)
    raw = batches.collate([stream[0], stream[1]])
    batch = batches.pretraining_batch(raw, config, torch.device("cpu"))
    assert (batch.maps == UNKNOWN).any()
    scores: list[torch.Tensor] = []
    supervised.heads[0].register_forward_hook(lambda module, given, out: (out.retain_grad(), scores.append(out))[0])
    supervised(batch).total.backward()
    for row, out in enumerate(scores):
        unknown = (batch.maps[[row, 2 + row]] == UNKNOWN)[:, None].expand_as(out)
        assert (out.grad[unknown] == 0).all()
        assert (out.grad[~unknown] != 0).any()


def test_from_pretraining_to_the_table(config: Experiment, tmp_path: Path) -> None:
    """Pre-train, fine-tune and evaluate; classes, names and rows are those of the merged organs."""
    init = trainer.pretrain(config, tmp_path, progress=False)
    run = trainer.finetune(config, tmp_path, task="ward", percent=100, fold=0, arm="mixcl", init=init, progress=False)
    assert read_card(run)["labels"] == {"1": "liver", "2": "kidney"}
    table = ev.evaluate(config, tmp_path, run, progress=False)
    assert set(zip(table["label"], table["organ"], strict=True)) == set(ORGANS.items())
    case = cases(config)[[case.id for case in cases(config)].index(read_card(run)["test"][0])]
    predicted = ev.read_prediction(run, case.id)
    assert UNKNOWN not in predicted
    for row in table[table["case"] == case.id].itertuples():
        a, b = case.label() == row.label, (predicted == row.label) & (case.label() != UNKNOWN)
        assert row.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), abs=1e-6)


def test_what_is_predicted_on_unknown_voxels_counts_neither_way(
    config: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On both grids, and in the curves of a training."""
    case = cases(config)[0]
    for grid, label in (("prepared", case.label()), ("original", original_label(case))):
        settings = config.evaluate.model_copy(update={"grid": grid})
        predicted = np.where(label == UNKNOWN, 0, label)
        rows = ev._rows(case, predicted, settings, case.names)
        assert [row["dice"] for row in rows] == [1.0, 1.0]
        assert [row["hd95_mm"] for row in rows] == [0.0, 0.0]
        for value in (1, 2):
            assert ev._rows(case, np.where(label == UNKNOWN, value, predicted), settings, case.names) == rows
    found = []
    for value in (0, 1, 2):
        classes = torch.from_numpy(np.where(case.label() == UNKNOWN, value, case.label())).long()
        scores = 50 * torch.nn.functional.one_hot(classes, 3).movedim(-1, 0).float()
        monkeypatch.setattr("mixcl.windows.window_scores", lambda *_, scores=scores: scores)
        found.append(measure_test(torch.nn.Identity(), [case], config, case.names))
    assert found[0]["dice"] == {"liver": 1.0, "kidney": 1.0}
    assert found[1] == found[2] == found[0]
