"""Jobs that are one training share it: which are, what a copy is worth, and two that begin side by side."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from mixcl import evaluate, trainer
from mixcl.config import with_settings
from mixcl.config.settings import Experiment
from mixcl.results.runs import read_runs
from mixcl.results.verify.jobs import jobs as verified
from mixcl.run import checkpoint, log, twins
from mixcl.run.record import read_card

FIRST: dict[str, Any] = {
    "data": "d", "task": "btcv", "percent": 5, "fold": 0, "arm": "scratch", "seed": 0, "n_folds": 5, "init": "none",
    "start": 7, "train": ["a"], "model": {"patch": 32},
    "finetune": {"steps": 9, "epochs": None, "transfer": "encoder", "freeze": False, "encoder_rate": 1.0},
}  # fmt: skip


def content(total: int = 9, **more: Any) -> str:
    """The content of a run with some inputs changed, among them those of the section ``finetune``."""
    section = {name: more.pop(name) for name in list(more) if name in FIRST["finetune"]}
    return twins.content({"decides": {**FIRST, **more, "finetune": {**FIRST["finetune"], **section}}, "steps": total})


def test_what_makes_no_other_training() -> None:
    for more in ({"percent": 15}, {"arm": "mine"}, {"arm": "mine", "transfer": "vit"}, {"steps": None, "epochs": 3}):
        assert content(**more) == content()
    assert content(init="w", freeze=True, encoder_rate=0.1) == content(init="w", freeze=True)


def test_what_makes_another_training() -> None:
    other = [
        {"train": ["a", "b"]}, {"start": 8}, {"init": "w"}, {"data": "e"}, {"total": 10}, {"freeze": True},
        {"model": {"patch": 64}}, {"encoder_rate": 0.1}, {"init": "w", "transfer": "vit"},
    ]  # fmt: skip
    assert len({content(), *(content(**more) for more in other)}) == 1 + len(other)


def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs that train from now on; a finished or a copied one does not."""
    jobs: list[str] = []
    real = trainer._Loop._open

    def noted(loop: trainer._Loop, before: dict[str, Any]) -> log.Metrics | None:
        jobs.append(loop.card["job"])
        return real(loop, before)

    monkeypatch.setattr(trainer._Loop, "_open", noted)
    return jobs


def test_shares_of_the_same_scans_are_trained_once(
    smoke: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4 scans 5 % and 15 % are one, and 50 % are two."""
    jobs = trained(monkeypatch)

    def run(percent: float, arm: str = "scratch", fold: int = 0, **more: Any) -> Path:
        return trainer.finetune(
            smoke, tmp_path, task="btcv", percent=percent, fold=fold, arm=arm, progress=False, **more
        )

    first = run(5)
    evaluate.evaluate(smoke, tmp_path, first, progress=False)
    same, twin = run(15), run(5, "mine")  # an arm without weights to start from is training from scratch
    run(50), run(5, fold=1)
    assert jobs == [
        f"finetune-btcv-p{name}" for name in ("005-scratch-f0-s0", "050-scratch-f0-s0", "005-scratch-f1-s0")
    ]
    card, original = read_card(same), read_card(first)
    assert (card["percent"], card["same_as"], read_card(twin)["same_as"]) == (15, first.name, first.name)
    assert card["weights"] == original["weights"]
    assert card["bits"] == original["bits"]
    assert (same / "metrics.jsonl").read_bytes() == (first / "metrics.jsonl").read_bytes()
    for name, value in checkpoint.read_weights(same)[0].items():
        assert torch.equal(value, checkpoint.read_weights(first)[0][name])
    monkeypatch.setattr(evaluate, "window_scores", lambda *_: pytest.fail("a copied case was predicted again"))
    table = evaluate.evaluate(smoke, tmp_path, same, progress=False)
    assert set(table["percent"]) == {15}
    grid = with_settings(smoke, ["grid.percents={btcv: [5, 15]}", "grid.ablation={}"])
    checks = verified(grid, tmp_path, read_runs(tmp_path), full=True, measure=evaluate.measured_again)
    assert [check.holds for check in checks if check.job == same.name] == [True] * 5
    run(15), run(15, restart="changed")
    assert len(jobs) == 3
    run(15, restart="always")  # asked for
    assert len(jobs) == 4


def test_a_damaged_twin_is_none(smoke: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = trained(monkeypatch)
    first = trainer.pretrain(smoke, tmp_path, job="pretrain", progress=False)
    trainer.pretrain(smoke, tmp_path, job="pretrain-same", progress=False)
    assert jobs == ["pretrain"]
    (first / "run.json").write_text(json.dumps({**read_card(first), "weights": "0" * 64}))
    (tmp_path / "runs" / "pretrain-same" / "model.safetensors").write_bytes(b"cut")
    trainer.pretrain(smoke, tmp_path, job="pretrain-third", progress=False)
    assert jobs == ["pretrain", "pretrain-third"]


HOLD = """
import sys, time
from pathlib import Path
from mixcl.run import twins
with twins.once(Path(sys.argv[1]), {"decides": {"start": 1}}):
    print("in", flush=True)
    time.sleep(600)
"""


def test_of_two_that_begin_side_by_side_one_waits_and_a_dead_one_holds_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        with twins.once(tmp_path / "b", {"decides": {"start": 2}}):
            assert capsys.readouterr().err == ""  # another training does not wait
        entered = threading.Event()

        def same() -> None:
            with twins.once(tmp_path / "c", {"decides": {"start": 1}}):
                entered.set()

        threading.Thread(target=same, daemon=True).start()
        assert not entered.wait(1.0)
        assert capsys.readouterr().err == "mixcl: c: waits for another run, which trains the same\n"
        first.kill()
        assert entered.wait(60)
