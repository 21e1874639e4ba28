"""Streams: the same samples for any number of workers and ranks, distorted in the order of R11."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.volumes import affine_of, scan, write_case

from mixcl import batches
from mixcl.config.settings import Collection, DataConfig, Experiment
from mixcl.data import patches
from mixcl.data.prepare.run import prepare
from mixcl.data.store import Case, Store, verify
from mixcl.errors import InputError
from mixcl.model import level_edges

CPU = torch.device("cpu")


@pytest.fixture
def cases(prepared: Path, smoke: Experiment) -> list[Case]:
    store = Store(prepared / "data" / "store")
    return [case for name in smoke.data.pretrain for case in store.cases(name)]


def test_a_sample_depends_on_seed_and_number_alone(cases: list[Case], smoke: Experiment) -> None:
    first, again = batches.PairDataset(cases, smoke, 10), batches.PairDataset(cases, smoke, 10)
    _ = again[7]
    for key in ("image", "label"):
        assert torch.equal(first[3][key], again[3][key])
    other = smoke.model_copy(update={"pretrain": smoke.pretrain.model_copy(update={"seed": 1})})
    assert not torch.equal(first[3]["image"], batches.PairDataset(cases, other, 10)[3]["image"])


def test_pairs_come_from_one_collection_and_hold_labels(cases: list[Case], smoke: Experiment) -> None:
    pairs = batches.PairDataset(cases, smoke, 40)
    for index in range(40):
        item = pairs[index]
        assert item["image"].shape == (2, 1, 32, 32, 32)
        assert item["image"].dtype == torch.float32
        assert item["image"].min() >= 0
        assert item["image"].max() <= 1
        assert (item["label"] > 0).flatten(1).any(1).all()  # R14: centred on a labelled voxel


@pytest.mark.parametrize("kind", ["pairs", "single patches"])
def test_workers_do_not_change_the_stream(cases: list[Case], smoke: Experiment, kind: str) -> None:
    """0, 1 or 2 workers, whatever the global generators have been used for, give the same samples in the same order."""
    patches = (
        batches.PairDataset(cases, smoke, 8) if kind == "pairs" else batches.SegmentationDataset(cases, smoke, 3, 8)
    )
    found = []
    for workers in (0, 1, 2):
        torch.manual_seed(workers)
        np.random.seed(workers)  # noqa: NPY002
        found.append(list(batches.batches(patches, 2, start=1, steps=4, workers=workers)))
        assert torch.cat([batch["sample"] for batch in found[-1]]).tolist() == [2, 3, 4, 5, 6, 7]
    for alone, one, two in zip(*found, strict=True):
        for key, value in alone.items():
            torch.testing.assert_close(one[key], value, rtol=0, atol=0)
            torch.testing.assert_close(two[key], value, rtol=0, atol=0)


def test_labels_take_turns_whatever_their_size(tmp_path: Path, smoke: Experiment) -> None:
    """R14: a label of 30 voxels is the centre as often as one of 8000; without the bias it is hardly ever seen."""
    image, label = scan((60, 60, 60))
    label[:] = 0
    label[5:25, 5:25, 5:25] = 1
    label[50:55, 50:53, 50:52] = 2
    write_case(tmp_path / "raw/own", "c", image, label, affine_of((1.5, 1.5, 2.0)))
    data = DataConfig(
        root=str(tmp_path / "raw"), collections={"own": Collection(root="own", names={1: "large", 2: "small"})},
        pretrain=("own",), finetune=(),
    )  # fmt: skip
    prepare(Experiment(data=data), tmp_path, progress=False)
    cases = Store(data.store_dir(tmp_path)).cases("own")
    shares = {}
    for biased in (0.0, 1.0):
        sampler = smoke.sampler.model_copy(update={"foreground_prob": biased})
        pairs = batches.PairDataset(cases, smoke.model_copy(update={"data": data, "sampler": sampler}), 150)
        labels = torch.cat([pairs[k]["label"] for k in range(150)])
        shares[biased] = [(labels == value).flatten(1).any(1).float().mean().item() for value in (1, 2)]
    assert 0.4 < shares[1.0][1] < 0.6  # 300 draws of a fair coin: within 0.42 and 0.58 in 99 % of cases
    assert sum(shares[1.0]) == pytest.approx(1)  # they lie too far apart to be seen together
    assert shares[0.0][1] < 0.3  # corners at most 28 of which the small one needs 19 or more along each axis


def test_ranks_share_the_same_steps(cases: list[Case], smoke: Experiment) -> None:
    pairs = batches.PairDataset(cases, smoke, 12)
    whole = list(batches.batches(pairs, 6, start=1, steps=2))
    parts = [next(iter(batches.batches(pairs, 6, start=1, steps=2, rank=r, ranks=3))) for r in range(3)]
    assert whole[0]["sample"].tolist() == [6, 7, 8, 9, 10, 11]
    assert torch.equal(torch.cat([part["image"] for part in parts]), whole[0]["image"])
    with pytest.raises(InputError, match="multiple of 4"):
        next(iter(batches.batches(pairs, 6, start=0, steps=1, ranks=4)))


def test_pixels_lie_where_the_spatial_step_leaves_their_labels(cases: list[Case], smoke: Experiment) -> None:
    """Their labels are those of the distorted map, but where the last bit of a rounding decides between two voxels."""
    edge = level_edges(smoke.model)[1]
    raw = next(batches.batches(batches.PairDataset(cases, smoke, 12), 12, start=0, steps=1))
    batch = batches.pretraining_batch(raw, smoke, CPU)
    grids = batches.coarse(batch.maps, edge).flatten(1)  # all P_1, then all P_2
    agree = [
        float((grids[12 * which + row][batch.pixels[row][which]] == batch.labels[row][which]).float().mean())
        for row in range(12) for which in (0, 1)
    ]  # fmt: skip
    assert min(agree) > 0.95
    assert sum(share == 1 for share in agree) > 12


def test_a_batch_has_the_same_pixels_whatever_the_device_rounds(
    cases: list[Case], smoke: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the device to move every label by a voxel, the pixels that Eq. 6 compares would stay."""
    raw = next(batches.batches(batches.PairDataset(cases, smoke, 3), 3, start=0, steps=1))
    here = batches.pretraining_batch(raw, smoke, CPU)
    spatial = batches.augment.spatial

    def other_rounding(*given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = spatial(*given)
        return image, label.roll(1, -1)

    monkeypatch.setattr(batches.augment, "spatial", other_rounding)
    there = batches.pretraining_batch(raw, smoke, CPU)
    assert not torch.equal(here.maps, there.maps)
    for name in ("pixels", "labels"):
        for ours, others in zip(getattr(here, name), getattr(there, name), strict=True):
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours, others, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_given_the_pixels_of_a_cpu(cases: list[Case], smoke: Experiment) -> None:
    raw = next(batches.batches(batches.PairDataset(cases, smoke, 3), 3, start=0, steps=1))
    here, there = (batches.pretraining_batch(raw, smoke, torch.device(name)) for name in ("cpu", "cuda"))
    for ours, others in zip(here.pixels, there.pixels, strict=True):
        assert all(torch.equal(mine, theirs.cpu()) for mine, theirs in zip(ours, others, strict=True))


def test_batches_on_a_cpu_are_handed_on_as_they_are(cases: list[Case], smoke: Experiment) -> None:
    given = [{"image": torch.zeros(1), "label": torch.zeros(1)} for _ in range(3)]
    assert [id(raw) for raw in batches.prefetch(iter(given), CPU)] == [id(raw) for raw in given]


def with_views(config: Experiment, **changes: float) -> Experiment:
    return config.model_copy(update={"views": config.views.model_copy(update=changes)})


def test_views_follow_r11(cases: list[Case], smoke: Experiment) -> None:
    """V_1 and V'_1 share their patch, each restores to it, and with no intensity step they are that patch."""
    quiet = with_views(smoke, intensity_prob=0.0, spatial_prob=1.0)
    raw = next(iter(batches.batches(batches.PairDataset(cases, quiet, 2), 2, start=0, steps=1)))
    batch = batches.pretraining_batch(raw, quiet, CPU)
    assert torch.equal(batch.views, batch.patches)
    assert torch.equal(batch.patches[:2], batch.patches[2:4])
    assert not torch.equal(batch.patches[:2], raw["image"][:, 0])  # the spatial step is part of the target
    loud = with_views(smoke, intensity_prob=1.0, spatial_prob=0.0)
    batch = batches.pretraining_batch(raw, loud, CPU)
    assert torch.equal(batch.patches[:2], raw["image"][:, 0])
    assert torch.equal(batch.patches[4:], raw["image"][:, 1])
    assert not torch.equal(batch.views[:2], batch.views[2:4])


def test_pixels_are_drawn_on_the_label_levels_grid(cases: list[Case], smoke: Experiment) -> None:
    still = with_views(smoke, spatial_prob=0.0)
    raw = next(iter(batches.batches(batches.PairDataset(cases, still, 3), 3, start=0, steps=1)))
    batch = batches.pretraining_batch(raw, still, CPU)
    grid = raw["label"].numpy()[:, :, 1::2, 1::2, 1::2]
    for sample in range(3):
        for which in (0, 1):
            indices, labels = batch.pixels[sample][which].numpy(), batch.labels[sample][which].numpy()
            flat = grid[sample, which].reshape(-1)
            np.testing.assert_array_equal(flat[indices], labels)
            for value, count in zip(*np.unique(flat, return_counts=True), strict=True):
                assert (labels == value).sum() == min(count, smoke.sampler.budget)


def test_a_sample_does_not_depend_on_its_batch(cases: list[Case], smoke: Experiment) -> None:
    pairs = batches.PairDataset(cases, smoke, 4)
    together = batches.pretraining_batch(next(iter(batches.batches(pairs, 4, start=0, steps=1))), smoke, CPU)
    alone = list(batches.batches(pairs, 1, start=0, steps=4))
    for k, raw in enumerate(alone):
        one = batches.pretraining_batch(raw, smoke, CPU)
        for view in range(3):
            torch.testing.assert_close(one.views[view], together.views[view * 4 + k], rtol=0, atol=1e-6)
        assert torch.equal(one.pixels[0][1], together.pixels[k][1])


def test_coarse_takes_the_nearest_voxel() -> None:
    labels = torch.arange(8).expand(1, 8, 8, 8)
    assert batches.coarse(labels, 4)[0, 0, 0].tolist() == [1, 3, 5, 7]
    assert batches.coarse(labels, 2)[0, 0, 0].tolist() == [2, 6]


def test_label_values_become_classes(cases: list[Case], smoke: Experiment) -> None:
    raw = {
        "image": torch.zeros(1, 1, 1, 32, 32, 32), "sample": torch.tensor([0]),
        "label": torch.tensor([0, 7, 3, 200], dtype=torch.uint8).repeat(8).expand(1, 1, 32, 32, 32),
    }  # fmt: skip
    _, label = batches.finetuning_batch(raw, smoke.finetune_augment, 0, (200, 7, 3), CPU)
    assert label.shape == (1, 1, 32, 32, 32)
    assert sorted(label.unique().tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("when", ["before", "later"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_scan_that_is_cut_while_a_run_reads_it_is_named(
    prepared: Path, smoke: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, workers: int
) -> None:
    """A voxel that is mapped and not there ends a process by SIGBUS, in which no Python runs any more."""
    store = Path(shutil.copytree(prepared / "data" / "store", tmp_path / "store"))
    cases = Store(store).cases("msd_spleen")[:1]
    verify(cases)
    image = cases[0].path / "image.npy"
    if when == "before":
        os.truncate(image, 4096)
    else:  # between the look at the size and the reading
        monkeypatch.setattr(patches, "prefetch", lambda *_: os.truncate(image, 4096))
    pairs, told = batches.PairDataset(cases, smoke, 4), tmp_path / "told"
    if not (child := os.fork()):
        os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT), 2)
        try:
            list(batches.batches(pairs, 1, start=0, steps=1, workers=workers))
        except InputError as error:
            os.write(2, f"mixcl: {error}\n".encode())
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    size = image.stat().st_size, 128 + 2 * np.prod(cases[0].shape)
    sentence = f"mixcl: {image}: cannot be read (has {size[0]} bytes instead of {size[1]})"
    lines = told.read_text().splitlines()
    assert lines
    assert [line for line in lines if not line.startswith(sentence)] == []
