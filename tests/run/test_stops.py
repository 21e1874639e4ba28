"""Stops that are asked for lose no step, and two never work in one folder."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.settings import change
from torch.optim.optimizer import register_optimizer_step_post_hook

from mixcl import cli, evaluate, trainer
from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.run import checkpoint, determinism, folders, record, signals

STEPS = {"steps": 5, "log_every": 4, "checkpoint_every": 100, "probe_every": 0}


@contextmanager
def at_step(number: int, act: Callable[[], Any]) -> Iterator[None]:
    """Do something in the middle of a step of the block's training."""
    taken: list[int] = []

    def hook(*_: object) -> None:
        taken.append(1)
        if len(taken) == number:
            act()

    handle = register_optimizer_step_post_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.fixture
def config(smoke: Experiment) -> Experiment:
    return change(smoke, pretrain=STEPS)


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mixcl.config import load_profile

    config = load_profile("smoke", [f"data.store={prepared / 'data' / 'store'}"])
    return trainer.pretrain(change(config, pretrain=STEPS), tmp_path_factory.mktemp("whole"), progress=False)


def same(run: Path, other: Path) -> bool:
    ours, theirs = (checkpoint.read_weights(folder)[1]["id"] for folder in (run, other))
    logged = [(folder / "metrics.jsonl").read_text() for folder in (run, other)]
    return ours == theirs and logged[0] == logged[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_saves_the_step_and_the_next_run_goes_on(
    undisturbed: Path, config: Experiment, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Between two records and two checkpoints; metrics and weights end as if nothing had been."""
    before = signal.getsignal(number)
    with at_step(2, lambda: signal.raise_signal(number)), pytest.raises(signals.Stopped) as stopped:
        trainer.pretrain(config, tmp_path, progress=False)
    assert stopped.value.code == code
    run = tmp_path / "runs" / "pretrain"
    assert [path.name for path in (run / "checkpoint").iterdir()] == ["000000002"]
    assert signal.getsignal(number) is before
    assert same(trainer.pretrain(config, tmp_path, progress=False), undisturbed)


def test_the_command_leaves_with_the_signals_code(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"data.store={prepared / 'data' / 'store'}", "pretrain.steps=3"]
    words = ["pretrain", "--profile", "smoke", "--out", str(tmp_path)]
    words += [word for item in settings for word in ("--set", item)]
    for number, code, step in ((signal.SIGTERM, 143, 1), (signal.SIGINT, 130, 2)):
        with at_step(1, lambda number=number: signal.raise_signal(number)), pytest.raises(SystemExit) as stop:  # type: ignore[misc]
            cli.main(words)
        assert stop.value.code == code
        assert f"mixcl: stopped by {number.name}; the same command goes on where it was\n" in capsys.readouterr().err
        assert (tmp_path / f"runs/pretrain/checkpoint/{step:09d}").is_dir()
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 0


def test_a_run_that_goes_on_elsewhere_does_not_forget_it(
    config: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other instructions, other code, and then the first machine again: neither's bits, and its card says so."""
    real = determinism.environment
    for step, place in ((2, "AVX2"), (1, "another"), (9, "AVX2")):
        with monkeypatch.context() as here:
            here.setattr(determinism, "environment", lambda *a, of=place, **k: {**real(*a, **k), "instructions": of})
            here.setattr(record, "code_id", lambda of=place: f"code of {of}")
            with at_step(step, lambda: signal.raise_signal(signal.SIGTERM)), suppress(signals.Stopped):
                trainer.pretrain(config, tmp_path, progress=False)
    card = record.read_card(tmp_path / "runs" / "pretrain")
    assert card["weights"]
    assert card["code"] == "code of AVX2+code of another+code of AVX2"
    assert card["bits"]["began"] == "went on with instructions another, not AVX2"
    assert "goes on with instructions another, not AVX2, as it began" in capsys.readouterr().err


def test_a_stop_in_the_last_step_finishes_first(undisturbed: Path, config: Experiment, tmp_path: Path) -> None:
    with at_step(5, lambda: signal.raise_signal(signal.SIGTERM)), pytest.raises(signals.Stopped):
        trainer.pretrain(config, tmp_path, progress=False)
    assert same(tmp_path / "runs" / "pretrain", undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_processes_that_cut_patches_leave_the_stop_to_the_one_that_trains(
    undisturbed: Path, config: Experiment, tmp_path: Path, number: signal.Signals
) -> None:
    """A scheduler signals every process of a job."""
    config = change(config, run={"workers": 2})

    def all_of_them() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, number)
        time.sleep(0.3)
        signal.raise_signal(number)

    with at_step(2, all_of_them), pytest.raises(signals.Stopped):
        trainer.pretrain(config, tmp_path, progress=False)
    deadline = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not multiprocessing.active_children()
    assert (tmp_path / "runs/pretrain/checkpoint/000000002").is_dir()
    assert same(trainer.pretrain(config, tmp_path, progress=False), undisturbed)


BUSY = """
import time
from mixcl.run import signals
signals.GRACE = 1.0
with signals.leaving(), signals.stopping():
    print(flush=True)
    while True:
        time.sleep(0.05)
"""


def test_whatever_it_does_it_is_gone_in_time() -> None:
    """A step that takes longer than schedulers wait."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        _, told = process.communicate(timeout=20)
    assert process.returncode == 143
    assert told.endswith("mixcl: no end within 1 s; what was saved before is kept\n")


def sent(*numbers: signal.Signals) -> None:
    """Signals one after the other, which a handler may cut short."""
    for number in numbers:
        signal.raise_signal(number)


def test_a_second_interruption_does_not_wait() -> None:
    """Torchrun and the scheduler may both send SIGTERM."""
    with signals.stopping() as stop:
        sent(signal.SIGTERM, signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        with pytest.raises(signals.Stopped):
            sent(signal.SIGINT)
        stop.number = 0


def test_a_command_that_does_not_train_is_stopped_where_it_is() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(signals.Stopped) as stopped, signals.leaving():
        sent(signal.SIGTERM)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("restart", ["never", "changed", "always"])
def test_two_do_not_train_in_one_folder(config: Experiment, tmp_path: Path, restart: folders.Restart) -> None:
    folder = record.run_folder(tmp_path, "pretrain")
    record.write_card(folder, {"job": "pretrain", "decides": {}})
    other = change(config, loss={"alpha": 0.5})
    with record.alone(folder), pytest.raises(InputError, match=rf"process {os.getpid()} on .* is at work here"):
        trainer.pretrain(other, tmp_path, restart=restart, progress=False)
    assert record.read_card(folder) == {"job": "pretrain", "decides": {}}


def test_what_a_kill_at_the_very_end_left_goes(undisturbed: Path, config: Experiment, tmp_path: Path) -> None:
    """Checkpoints of a run whose weights are there, and a run that was being removed."""
    runs = Path(shutil.copytree(undisturbed.parent, tmp_path / "runs"))
    left = runs / "pretrain" / "checkpoint" / "000000004", runs / ".removed-7-pretrain"
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"large")
    assert same(trainer.pretrain(config, tmp_path, progress=False), undisturbed)
    assert not left[0].parent.exists()
    assert not left[1].exists()


def test_a_run_is_not_evaluated_while_it_trains(smoke: Experiment, tmp_path: Path) -> None:
    run = trainer.finetune(smoke, tmp_path, task="btcv", percent=100, fold=0, arm="scratch", progress=False)
    with record.alone(run), pytest.raises(InputError, match="is at work here"):
        evaluate.evaluate(smoke, tmp_path, run, progress=False)


def test_one_step_that_spoils_the_weights_is_not_called_pretrained(smoke: Experiment, tmp_path: Path) -> None:
    """Its loss and gradient were fine, and 190 of 214 tensors are NaN."""
    wild = change(smoke, pretrain={"lr": 1e38, "steps": 1})
    with pytest.raises(InputError, match=r"\d+ of \d+ weights are not finite after step 1, with scans \w+/\w+"):
        trainer.pretrain(wild, tmp_path, progress=False)
    assert sorted(path.name for path in (tmp_path / "runs" / "pretrain").iterdir()) == ["metrics.jsonl", "run.json"]


def test_the_last_finite_checkpoint_is_kept(smoke: Experiment, tmp_path: Path) -> None:
    """Weights turn to NaN between the checkpoint of step 2 and the record of step 3."""
    config = change(smoke, finetune={"steps": 6, "log_every": 1, "checkpoint_every": 2})
    nets: list[torch.nn.Module] = []
    built = trainer.segmentation_model

    def noted(*args: Any) -> Any:
        nets.append(built(*args))
        return nets[-1]

    def spoil() -> None:
        next(nets[0].parameters()).data.fill_(torch.nan)

    with pytest.MonkeyPatch.context() as patch, at_step(3, spoil):
        patch.setattr(trainer, "segmentation_model", noted)
        with pytest.raises(InputError, match=r"total is not finite at step 4, with scans btcv/\d+.*; lower .* is kept"):
            trainer.finetune(config, tmp_path, task="btcv", percent=100, fold=0, arm="scratch", progress=False)
    (place,) = (tmp_path / "runs").glob("finetune-*/checkpoint/*")
    assert place.name == "000000002"
    weights, _ = checkpoint.read_weights(place / checkpoint.WEIGHTS)
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_to_start_from_that_are_not_finite_are_the_files_fault(
    undisturbed: Path, smoke: Experiment, tmp_path: Path, value: float
) -> None:
    weights, about = checkpoint.read_weights(undisturbed)
    name = "backbone.vit.patch_embedding.position_embeddings"
    weights[name] = torch.full_like(weights[name], value)
    path = tmp_path / "spoilt.safetensors"
    checkpoint.write_weights(path, weights, {**about, "id": checkpoint.weights_id(weights)})
    with pytest.raises(InputError, match=r"spoilt\.safetensors: 1 of \d+ weights are not finite numbers, first vit"):
        trainer.finetune(smoke, tmp_path, task="btcv", percent=100, fold=0, arm="mixcl", init=path, progress=False)


def test_damaged_weights_are_neither_finished_nor_handed_over(
    undisturbed: Path, config: Experiment, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(undisturbed, tmp_path / "runs" / "pretrain"))
    path = run / checkpoint.WEIGHTS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (b"", bytes(content[:-100]), bytes(content)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"model\.safetensors: .*; copy it again"):
            trainer.pretrain(config, tmp_path, progress=False)
        with pytest.raises(InputError, match=r"model\.safetensors: .*; copy it again"):
            trainer.finetune(config, tmp_path, task="btcv", percent=100, fold=0, arm="mixcl", init=run, progress=False)
