"""README's table of the equations is true: a training step runs the functions that it names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
from helpers.pages import README, code, table
from torch import Tensor

from mixcl import batches, losses
from mixcl.config.settings import Experiment
from mixcl.data.store import Store
from mixcl.model import MixCL, seeded
from mixcl.objective import Objective

ROWS = {paper: functions.partition(";")[::2] for paper, functions, *_ in table(README, "## From the paper to the code")}
EQUATIONS = {paper: cells for paper, cells in ROWS.items() if paper.startswith(("Eq.", "Fig. 2d", "Sec. 2.3"))}
STEP = [(paper, name) for paper, (run, _) in EQUATIONS.items() for name in code(run)]
MAPS = [(code(run)[0], name) for run, maps in EQUATIONS.values() for name in code(maps)]


def spoil(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let every module of ours that knows a function of ours have another result of it."""
    function = resolve_name(f"mixcl.{name}")
    for module in [module for key, module in sys.modules.items() if key.startswith("mixcl.")]:
        if vars(module).get(function.__name__) is function:
            monkeypatch.setattr(module, function.__name__, lambda *given, **named: changed(function(*given, **named)))


def changed(value: Any) -> Any:
    """Numbers doubled and squared, so that their ratios change, too; indices halved, and A without positive pairs."""
    if isinstance(value, tuple):
        return tuple(changed(part) for part in value)
    whole = isinstance(value, int) or (isinstance(value, Tensor) and not value.is_floating_point())
    return value // 2 if whole else (2 * value) ** 2


@pytest.fixture
def step(smoke: Experiment, prepared: Path) -> Callable[[], Tensor]:
    """A pre-training step of the smoke profile: its batch's pixels and labels, its terms, one vector."""
    store = Store(smoke.data.store_dir(prepared), settings=smoke.data)
    pairs = batches.PairDataset([case for name in smoke.data.pretrain for case in store.cases(name)], smoke, 4)
    with seeded(0):
        objective = Objective(MixCL(smoke), smoke.loss)

    def run() -> Tensor:
        raw = next(batches.batches(pairs, 4, start=0, steps=1))
        batch = batches.pretraining_batch(raw, smoke, torch.device("cpu"))
        drawn = [part for sample in (*batch.pixels, *batch.labels) for part in sample]
        return torch.cat([objective(batch).total.detach().reshape(1), *drawn])

    return run


@pytest.mark.parametrize(("paper", "name"), STEP)
def test_a_step_runs_it(paper: str, name: str, step: Callable[[], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    before = step()
    assert torch.equal(step(), before)
    spoil(monkeypatch, name)
    assert not torch.equal(step(), before), f"{paper}: no step runs {name}"


@pytest.mark.parametrize(("run", "name"), MAPS)
def test_whole_maps_go_through_the_same(run: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.rand(2, 2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    given = {losses.identity_consistency: ([z[0]], [z[1]]), losses.cross_correlation: (z[0], z[1])}
    function = resolve_name(f"mixcl.{name}")
    arguments = given.get(function, (torch.arange(9),))
    before = function(*arguments)
    spoil(monkeypatch, run)
    assert not torch.equal(function(*arguments), before)


def test_the_table_has_every_equation() -> None:
    assert {f"Eq. {number}" for number in range(2, 8)} | {"Fig. 2d", "Sec. 2.3"} == EQUATIONS.keys()
    assert {name for _, name in MAPS} >= {"losses.identity_consistency", "losses.cross_correlation"}
    assert ("Eq. 7", "sampler.weight") in STEP
