"""What a run leaves on disk: exact, whole or absent, and never a pickle."""

from __future__ import annotations

import errno
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from mixcl import files
from mixcl.errors import InputError
from mixcl.run import checkpoint


def small() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten(), nn.LazyLinear(2))
    net(torch.zeros(1, 1, 4, 4, 4))
    return net, torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.rand(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(step))
        net(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_restored_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    net, optimizer = small()
    train(net, optimizer, range(5))
    checkpoint.save(tmp_path, 5, net, optimizer, {"note": 1})
    train(net, optimizer, range(5, 9))
    again, optimizer2 = small()
    assert checkpoint.restore(tmp_path, again, optimizer2) == {"step": 5, "note": 1}
    train(again, optimizer2, range(5, 9))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_nothing_to_restore(tmp_path: Path) -> None:
    assert checkpoint.restore(tmp_path, *small()) == {}


@pytest.mark.parametrize("killed_at", ["before the renames", "between the renames"])
def test_a_kill_while_saving_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    net, optimizer = small()
    train(net, optimizer, range(3))
    checkpoint.save(tmp_path, 3, net, optimizer, {})
    train(net, optimizer, range(3, 4))
    replace = Path.replace

    def die(self: Path, target: Path) -> Path:
        if self.name == (checkpoint.FOLDER if killed_at.startswith("before") else f".{checkpoint.FOLDER}.new"):
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 4, net, optimizer, {})
    monkeypatch.undo()
    again, optimizer2 = small()
    assert checkpoint.restore(tmp_path, again, optimizer2)["step"] == 3
    checkpoint.save(tmp_path, 4, again, optimizer2, {})
    assert checkpoint.restore(tmp_path, again, optimizer2)["step"] == 4


def test_a_finished_run_keeps_its_weights_alone(tmp_path: Path) -> None:
    net, optimizer = small()
    checkpoint.save(tmp_path, 1, net, optimizer, {})
    path = checkpoint.finish(tmp_path, net.state_dict(), {"profile": "smoke"})
    weights, metadata = checkpoint.read_weights(tmp_path)
    assert path.is_file()
    assert metadata == {"profile": "smoke"}
    assert all(torch.equal(weights[name], value) for name, value in net.state_dict().items())
    assert not (tmp_path / checkpoint.FOLDER).exists()


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("a pickle was loaded",))

    for name in ("w.pt", "w.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(InputError, match=name):
            checkpoint.read_weights(tmp_path / name)


def test_broken_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="no such weights"):
        checkpoint.read_weights(path)
    checkpoint.write_weights(path, {"a": torch.zeros(100)}, {})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"w\.safetensors: not a whole safetensors file"):
        checkpoint.read_weights(path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    net, optimizer = small()
    checkpoint.save(tmp_path, 1, net, optimizer, {})
    other = nn.Linear(3, 3)
    with pytest.raises(InputError, match="delete the folder"):
        checkpoint.restore(tmp_path, other, torch.optim.AdamW(other.parameters()))


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "permissions")])
def test_a_full_disk_gets_one_sentence_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    path = tmp_path / "run.json"
    files.write_text(path, "old")

    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(number, "trouble")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match=words):
        files.write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"


def test_metrics_are_taken_up_at_a_step(tmp_path: Path) -> None:
    metrics = checkpoint.Metrics(tmp_path, 0)
    for step in (1, 2, 3):
        metrics.write(step, {"total": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "tot')  # cut short by a kill
    checkpoint.Metrics(tmp_path, 2).write(3, {"total": 30.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "total": 1.0}, {"step": 2, "total": 2.0}, {"step": 3, "total": 30.0}]


def test_tensorboard_when_asked(tmp_path: Path) -> None:
    checkpoint.Metrics(tmp_path, 0, tensorboard=True).write(1, {"total": 1.0, "levels": [1.0]})
    assert list((tmp_path / "tensorboard").iterdir())
