"""What a run leaves on disk: exact, whole or absent, and never a pickle."""

from __future__ import annotations

import errno
import itertools
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from helpers.broken import flip
from torch import nn

from mixcl import files
from mixcl.errors import InputError
from mixcl.run import checkpoint, record


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


def places(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / checkpoint.FOLDER).iterdir())


def two(folder: Path) -> Path:
    """Checkpoints of steps 3 and 4; that of step 4."""
    net, optimizer = small()
    for step in (3, 4):
        train(net, optimizer, range(step - 1, step))
        checkpoint.save(folder, step, net, optimizer, {"note": step})
    return folder / checkpoint.FOLDER / f"{4:09d}"


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    net, optimizer = small()
    for step in range(1, 12):
        checkpoint.save(tmp_path, step, net, optimizer, {})
    assert places(tmp_path) == [f"{10:09d}", f"{11:09d}"]


@pytest.mark.parametrize("killed_in", ["write_weights", "write_sealed", "rename", "rmtree"])
def test_a_kill_while_saving_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    net, optimizer = small()
    train(net, optimizer, range(3))
    checkpoint.save(tmp_path, 3, net, optimizer, {})
    train(net, optimizer, range(3, 4))
    calls = itertools.count()

    def die(*_: object, **__: object) -> None:
        if killed_in == "write_sealed" or next(calls) == 1:
            raise KeyboardInterrupt

    owner = {"rename": Path, "rmtree": shutil}.get(killed_in, checkpoint)
    with monkeypatch.context() as killed:
        if killed_in == "rename":
            calls = itertools.count(1)
        killed.setattr(owner, killed_in, die)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 4, net, optimizer, {})
    again, optimizer2 = small()
    assert checkpoint.restore(tmp_path, again, optimizer2, pytest.fail)["step"] in (3, 4)
    checkpoint.save(tmp_path, 5, again, optimizer2, {})
    assert checkpoint.restore(tmp_path, again, optimizer2, pytest.fail)["step"] == 5
    assert len(places(tmp_path)) == 2


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.MANIFEST])
@pytest.mark.parametrize("damage", ["flipped", "cut", "a tail of NULs", "empty", "missing"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_taken(tmp_path: Path, name: str, damage: str) -> None:
    file = two(tmp_path) / name
    content = file.read_bytes()
    if damage == "flipped":
        flip(file)
    elif damage == "missing":
        file.unlink()
    else:
        kept = {"empty": 0, "cut": len(content) - 30, "a tail of NULs": len(content) // 2}[damage]
        file.write_bytes(content[:kept] + bytes(len(content) - kept) * (damage == "a tail of NULs"))
    told: list[str] = []
    state = checkpoint.restore(tmp_path, *small(), told.append)
    assert (state["step"], state["note"]) == (3, 3)
    assert "000000004: this checkpoint is damaged" in told[0]
    assert "\n" not in told[0]


def test_another_step_in_the_manifest_is_damage(tmp_path: Path) -> None:
    manifest = two(tmp_path) / checkpoint.MANIFEST
    manifest.write_text(manifest.read_text().replace('"step": 4', '"step": 9'))
    told: list[str] = []
    assert checkpoint.restore(tmp_path, *small(), told.append)["step"] == 3
    assert len(told) == 1


def test_no_whole_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    two(tmp_path)
    for place in places(tmp_path):
        flip(tmp_path / checkpoint.FOLDER / place / checkpoint.WEIGHTS)
    with pytest.raises(InputError, match=r"no checkpoint there is whole; delete the folder to start over"):
        checkpoint.restore(tmp_path, *small(), lambda _: None)


def test_a_finished_run_keeps_its_weights_alone(tmp_path: Path) -> None:
    net, optimizer = small()
    checkpoint.save(tmp_path, 1, net, optimizer, {})
    path = checkpoint.finish(tmp_path, net.state_dict(), {"profile": "smoke"})
    weights, metadata = checkpoint.read_weights(tmp_path)
    assert path.is_file()
    assert metadata == {"profile": "smoke", "id": checkpoint.weights_id(net.state_dict())}
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


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "others", "no card"])
def test_a_finished_run_is_believed_by_content(tmp_path: Path, damage: str) -> None:
    net, _ = small()
    identity = checkpoint.weights_id(net.state_dict())
    assert not checkpoint.finished(tmp_path)
    record.write_card(tmp_path, {"weights": identity})
    path = checkpoint.finish(tmp_path, net.state_dict(), {"id": identity})
    assert checkpoint.finished(tmp_path)
    if damage == "flipped":
        flip(path)
    elif damage == "others":
        others = {name: value + 1 for name, value in net.state_dict().items()}
        checkpoint.write_weights(path, others, {"id": checkpoint.weights_id(others)})
    elif damage == "no card":
        (tmp_path / "run.json").unlink()
    else:
        path.write_bytes(path.read_bytes()[: -40 if damage == "cut" else 0])
    with pytest.raises(InputError) as raised:
        checkpoint.finished(tmp_path)
    assert str(path if damage != "no card" else tmp_path) in str(raised.value)


def test_a_claimed_id_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    checkpoint.write_weights(
        path, {"a": torch.zeros(3, dtype=torch.bfloat16), "b": torch.tensor(2.0)}, {"id": "0" * 64}
    )
    with pytest.raises(InputError, match=r"w\.safetensors: its weights are not those that were written"):
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
