"""What is not finite is told with its step and scans; what is averaged survives a stop."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from mixcl.errors import InputError
from mixcl.run import record
from mixcl.run.log import Metrics, Steps, gradient_norm


def taken(terms: list[float], gradients: list[float], state: object = ()) -> Steps:
    steps = Steps(state)  # type: ignore[arg-type]
    for number, (term, gradient) in enumerate(zip(terms, gradients, strict=True), start=1):
        values = {"total": torch.tensor(term), "levels": torch.tensor([term, 1.0])}
        steps.add(number, [2 * number, 2 * number + 1], values, torch.tensor(gradient))
    return steps


def names(samples: list[int]) -> str:
    return f"a/{samples[0]}, b/{samples[1]}"


@pytest.mark.parametrize(
    ("terms", "gradients", "words"),
    [
        ([1, math.nan, 1], [1, math.nan, 1], "total is not finite at step 2, with scans a/4, b/5"),
        ([1, 1, math.inf], [1, math.inf, 1], "the gradient's norm is not finite at step 2, with scans a/4, b/5"),
    ],
)
def test_the_first_step_that_is_not_finite_is_told(terms: list[float], gradients: list[float], words: str) -> None:
    with pytest.raises(InputError, match=f"^pretrain: {words}; lower the learning rate"):
        taken(terms, gradients).check("pretrain", names)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_not_saved(value: float) -> None:
    net, steps = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), taken([1, 1], [1, 1])
    with torch.no_grad():
        net[1].weight[0, 1] = 1e38  # large, and finite
        steps.check("pretrain", names, net)
        net[0].weight[0, 1] = value
        with pytest.raises(InputError, match=r"1 of 4 weights are not finite after step 2, with scans a/4, b/5"):
            steps.check("pretrain", names, net)
        steps.check("pretrain", names)  # nothing is to be saved


def test_a_run_goes_on_in_another_precision() -> None:
    """In fp16 no gradient's norm is watched: of steps before and after a stop what all have is looked at."""
    steps = Steps(json.loads(json.dumps(taken([1.0], [1.0]).state())))
    steps.add(2, [4, 5], {"total": torch.tensor(1.0), "levels": torch.tensor([1.0, 1.0])}, None)
    steps.check("pretrain", names)
    steps = Steps(json.loads(json.dumps(steps.state())))
    steps.add(3, [6, 7], {"total": torch.tensor(math.nan), "levels": torch.tensor([1.0, 1.0])}, torch.tensor(1.0))
    with pytest.raises(InputError, match="total is not finite at step 3"):
        steps.check("pretrain", names)


def test_what_a_stop_kept_is_every_ranks() -> None:
    """A stopped run that more ranks take up: what it kept is not shared again, counts of new steps are sums."""
    steps = Steps(json.loads(json.dumps(taken([1.0, 2.0], [1.0, 1.0]).state())))
    steps.add(
        2, [4, 5], {"total": torch.tensor(3.0), "levels": torch.tensor([1.0, 1.0]), "count": torch.tensor(2)}, None
    )
    seen: list[tuple[list[float], str]] = []

    def over_ranks(tensor: torch.Tensor, kind: str) -> torch.Tensor:
        seen.append((tensor.flatten().tolist(), kind))
        return tensor * (2 if kind == "sum" else 1)

    steps.share(over_ranks)
    assert seen == [([3.0], "mean"), ([1.0, 1.0], "mean"), ([2.0], "sum")]
    assert float(steps.entries[-1]["tensors"]["count"]) == 4.0


def test_means_are_those_of_a_run_without_a_stop() -> None:
    generator = torch.Generator().manual_seed(0)
    terms = torch.rand(7, generator=generator).tolist()
    whole = taken(terms, terms)
    whole.entries[2]["names"].append("probe")
    whole.entries[2]["others"]["probe"] = {"step": 2}
    stopped = Steps(json.loads(json.dumps(Steps.state(whole)))[:4])
    stopped.entries += whole.entries[4:]
    assert stopped.means() == whole.means()
    assert whole.means()["probe"] == {"step": 2}
    stopped.check("pretrain", names)


def test_the_gradient_of_a_scaled_loss_may_overflow() -> None:
    net = nn.Linear(2, 1)
    net(torch.ones(1, 2)).sum().backward()
    optimizer = torch.optim.SGD(net.parameters())
    norm = gradient_norm(optimizer, None)
    assert norm is not None
    assert float(norm) == pytest.approx(math.sqrt(3))
    assert gradient_norm(optimizer, object()) is None


def logged(folder: Path, steps: int = 3) -> dict[str, object]:
    """Records of so many steps, of which two are in the state of a checkpoint."""
    metrics, state = Metrics(folder, {}), {}
    for step in range(1, steps + 1):
        metrics.write(step, {"total": float(step)})
        if step == 2:
            state = {"step": 2, **metrics.state()}
    return state


def test_metrics_are_taken_up_at_a_step(tmp_path: Path) -> None:
    state = logged(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "tot')  # cut short by a kill
    assert [line["step"] for line in record.read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    Metrics(tmp_path, state, warn=pytest.fail).write(3, {"total": 30.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "total": 1.0}, {"step": 2, "total": 2.0}, {"step": 3, "total": 30.0}]


@pytest.mark.parametrize(("damage", "left"), [("cut", 1), ("NULs", 0), ("a digit", 2), ("missing", 0)])
def test_metrics_that_lost_their_past_are_told(tmp_path: Path, damage: str, left: int) -> None:
    state, path = logged(tmp_path), tmp_path / "metrics.jsonl"
    content = path.read_bytes()
    damaged = {"cut": content[:30], "NULs": bytes(len(content)), "a digit": content.replace(b"1.0", b"1.5")}
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    told: list[str] = []
    Metrics(tmp_path, state, warn=told.append).write(3, {})
    assert told == [f"{path}: was cut or changed since step 2 was saved; {left} records are left"]
    assert len(record.read_metrics(path)) == left + 1


def test_metrics_of_a_finished_run_that_are_damaged(tmp_path: Path) -> None:
    logged(tmp_path)
    path = tmp_path / "metrics.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    for text in (first + "{broken\n" + "".join(rest), first + "\0" * 40):
        path.write_text(text)
        with pytest.raises(InputError, match=r"metrics\.jsonl: line 2 is damaged"):
            record.read_metrics(path)
