"""R19: the correlation over ranks gives the loss and the gradients of one process with the whole batch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers import forked
from helpers.pretraining import SMALL, make_batch, part
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mixcl import losses
from mixcl.config.settings import LossConfig
from mixcl.model import MixCL, seeded
from mixcl.moments import correlation_from_moments, moments, sum_over_ranks
from mixcl.objective import Objective

SAMPLES = 6
SPLITS = {2: [(3, 3), (4, 2)], 3: [(2, 2, 2), (1, 2, 3)]}  # samples of each rank
READINGS = ((False, torch.float32), (True, torch.float64))  # centring by sums costs digits that float32 lacks


class Net(nn.Module):
    """A small encoder and Eq. 2 in one forward pass, as data-parallel training sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv3d(1, 6, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(6, 8, 1))
        self.decoder = nn.Conv3d(8, 1, 1)

    def forward(self, views: Tensor, labels: Tensor, parts: bool, center: bool) -> tuple[Tensor, Tensor]:
        """Views [B, 3, E, E, E]; ``parts`` adds the two terms that are means over samples; loss and C."""
        z_1, z_2, z_3 = (self.encoder(views[:, i : i + 1]) for i in range(3))
        sums = sum_over_ranks(moments(z_1, z_2))
        correlation = correlation_from_moments(sums, center=center)
        loss = losses.decorrelation(correlation)
        if parts:
            contrast = [
                losses.label_consistency(a.flatten(1).T, b.flatten(1).T, y, y.flip(0))
                for a, b, y in zip(z_1, z_3, labels, strict=True)
            ]
            recon = losses.reconstruction_consistency(self.decoder(z_1), views[:, :1], reduction="mean")
            loss = losses.mixcl_loss(loss, torch.stack(contrast).mean(), recon, alpha=0.5, beta=2.0)
        return loss, correlation


def problem(dtype: torch.dtype) -> tuple[Net, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
    views = torch.randn(SAMPLES, 3, 4, 4, 4, generator=g)
    return net.to(dtype), views.to(dtype), torch.randint(3, (SAMPLES, 64), generator=g)


def results(net: nn.Module, views: Tensor, labels: Tensor, parts: bool, center: bool) -> dict[str, Tensor]:
    """The loss, the correlation and the gradient of every parameter after one backward pass."""
    net.zero_grad()
    loss, correlation = net(views, labels, parts, center)
    loss.backward()
    gradients = {
        name.removeprefix("module."): p.grad.clone() for name, p in net.named_parameters() if p.grad is not None
    }
    return {"loss": loss.detach(), "correlation": correlation.detach(), **gradients}


def name(split: tuple[int, ...], center: bool) -> str:
    return f"{'-'.join(map(str, split))}-{center}.pt"


def objective_gradients(own: range, samples: int, parallel: bool) -> dict[str, Tensor]:
    """Of the whole objective, with all terms on: the gradient of every weight of its network."""
    with seeded(0):
        objective = Objective(MixCL(SMALL), LossConfig(alpha=1.0, beta=0.5, recon_reduction="mean"))
    net = DistributedDataParallel(objective, find_unused_parameters=True) if parallel else objective
    net(part(make_batch(SMALL, samples), own)).total.backward()
    return {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


@contextmanager
def ranks(rank: int, world: int, folder: str) -> Iterator[None]:
    """One of the processes that meet in a folder."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()
    os._exit(0)  # what is left of gloo has been seen to wait for ever at the end of a rank


def half(rank: int, folder: str) -> None:
    """One of two ranks, with one of two samples."""
    with ranks(rank, 2, folder):
        gradients = objective_gradients(range(rank, rank + 1), 2, parallel=True)
        if rank == 0:
            torch.save(gradients, Path(folder) / "objective.pt")


def work(rank: int, world: int, folder: str) -> None:
    """One rank: every split and reading, rank 0 writes."""
    with ranks(rank, world, folder):
        for (center, dtype), split in itertools.product(READINGS, SPLITS[world]):
            net, views, labels = problem(dtype)
            own = slice(sum(split[:rank]), sum(split[: rank + 1]))
            even = len(set(split)) == 1  # means over samples are means over ranks for equal shares alone
            parallel = DistributedDataParallel(net, find_unused_parameters=not even)
            found = results(parallel, views[own], labels[own], even, center)
            losses_of_all = [torch.zeros_like(found["loss"]) for _ in range(world)]
            dist.all_gather(losses_of_all, found["loss"])
            found["loss"] = torch.stack(losses_of_all).mean()
            if rank == 0:
                torch.save(found, Path(folder) / name(split, center))


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
@pytest.mark.parametrize("world", SPLITS)
def test_ranks_agree_with_one_process_over_the_whole_batch(world: int, tmp_path: Path) -> None:
    forked.run(work, world, world, str(tmp_path))
    for (center, dtype), split in itertools.product(READINGS, SPLITS[world]):
        expected = results(*problem(dtype), len(set(split)) == 1, center)
        found = torch.load(tmp_path / name(split, center), weights_only=True)
        assert found.keys() == expected.keys()
        tolerance = 1e-5 if dtype == torch.float32 else 1e-10
        for key, value in expected.items():
            scale = max(value.abs().max().item(), 1e-3)  # centring leaves the last bias without a gradient
            torch.testing.assert_close(
                found[key], value, rtol=tolerance, atol=tolerance * scale, msg=f"{key}, {split}, {center}"
            )


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_a_step_of_the_whole_objective_on_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """Eq. 2 to 6 with one sample a process, and with the joined batch of both: the same gradient of every weight."""
    forked.run(half, 2, str(tmp_path))
    found = torch.load(tmp_path / "objective.pt", weights_only=True)
    expected = objective_gradients(range(2), 2, parallel=False)
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        scale = max(float(gradient.abs().max()), 1e-3 * largest)
        torch.testing.assert_close(
            found[name], gradient, rtol=0, atol=1e-3 * scale, msg=lambda text, name=name: f"{name}: {text}"
        )
    alone = objective_gradients(range(1), 2, parallel=False)  # half of the batch is another step: the test can tell
    assert any((alone[name] - gradient).abs().max() > 1e-2 * largest for name, gradient in expected.items())


def test_the_comparison_can_tell() -> None:
    """Averaging the losses of halves, each with its own correlation, is another loss: Eq. 5 is not linear."""
    net, views, labels = problem(torch.float32)
    whole = results(net, views, labels, False, False)
    halves = [results(net, views[i : i + 3], labels[i : i + 3], False, False) for i in (0, 3)]
    key = "encoder.0.weight"
    average = (halves[0][key] + halves[1][key]) / 2
    assert (average - whole[key]).abs().max() > 1e-3 * whole[key].abs().max()


def test_one_process_gets_its_moments_back() -> None:
    sums = moments(torch.rand(1, 2, 3), torch.rand(1, 2, 3))
    assert sum_over_ranks(sums) is sums
