"""Training: exact resumption, the same weights for the same settings, honest hand-over, clear refusals."""

from __future__ import annotations

import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.settings import change
from monai.networks.nets import UNETR
from safetensors.torch import load_file

from mixcl import cli, handover, model, trainer, windows
from mixcl.config import load_profile, with_settings
from mixcl.config.settings import Experiment
from mixcl.data.patches import scaled
from mixcl.data.splits import split
from mixcl.data.store import Store
from mixcl.errors import InputError
from mixcl.export import export
from mixcl.metrics import measure
from mixcl.model import segmentation_model
from mixcl.run import checkpoint, device
from mixcl.run.record import read_card

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproduce"))
run_notebook = importlib.import_module("run_notebook")


@pytest.fixture(scope="module")
def pretrained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretrained")
    config = load_profile("smoke", [f"data.store={prepared / 'data' / 'store'}"])
    return trainer.pretrain(config, out, progress=False)


def test_a_pretraining_run_leaves_what_a_reader_needs(pretrained: Path) -> None:
    card = json.loads((pretrained / "run.json").read_text())
    assert card["cases"] == 10
    assert card["seed"] == 0
    assert len(card["data"]) == 64
    assert card["versions"]["monai"]
    assert card["config"]["profile"] == "smoke"
    assert len(card["floors"]) == 5
    records = checkpoint.read_metrics(pretrained / "metrics.jsonl")
    assert [r["step"] for r in records] == [1, 2, 3, 4]
    for record in records:
        assert sum(record["levels"]) == pytest.approx(record["identity"], rel=1e-5)
        total = record["identity"] + 0.01 * record["label"] + 0.01 * record["recon"]
        assert record["total"] == pytest.approx(total, rel=1e-5)
    assert set(records[0]["gradients"]) == {"identity", "label", "recon"}
    assert "gradients" not in records[1]
    weights, description = checkpoint.read_weights(pretrained)
    assert description["id"] == checkpoint.weights_id(weights) == card["weights"]


def test_the_same_settings_give_the_same_weights(
    pretrained: Path, smoke: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Also where it is said after the second step that all will take long."""
    monkeypatch.setattr(device, "LONG", 1e-9)
    again = trainer.pretrain(smoke, tmp_path, progress=False)
    assert capsys.readouterr().err.count("on this processor, the 2 left about") == 1
    assert read_card(again)["weights"] == read_card(pretrained)["weights"]
    assert (again / "metrics.jsonl").read_text() == (pretrained / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(
    pretrained: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 after the first checkpoint, in a process of its own; then the same command again."""
    store = prepared / "data" / "store"
    command = ["pretrain", "--profile", "smoke", "--out", str(tmp_path), "--set", f"data.store={store}"]
    slow = (
        "import sys, time, mixcl.run.checkpoint as c, mixcl.cli\n"
        "save = c.save\n"
        "def slowly(*a): save(*a); time.sleep(60)\n"
        "c.save = slowly\n"
        "mixcl.cli.main(sys.argv[1:])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", slow, *command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "runs/pretrain/checkpoint/000000002/state.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "runs/pretrain/model.safetensors").exists()
    with pytest.raises(SystemExit, match="0"):
        cli.main(command)
    assert "pre-trained" in capsys.readouterr().out
    for name in ("model.safetensors",):
        ours, theirs = load_file(tmp_path / "runs/pretrain" / name), load_file(pretrained / name)
        assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert (tmp_path / "runs/pretrain/metrics.jsonl").read_text() == (pretrained / "metrics.jsonl").read_text()


def test_epochs_are_the_steps_that_their_scans_make(
    smoke: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 scans at 4 a step are 3 steps (R15): all is as with steps=3, though the run is stopped and taken up again."""
    settings = ["pretrain.batch=4", "pretrain.checkpoint_every=2"]
    by_steps, by_epochs = (with_settings(smoke, [*settings, f"pretrain.{n}"]) for n in ("steps=3", "epochs=1"))
    whole = trainer.pretrain(by_steps, tmp_path / "steps", progress=False)
    save = checkpoint.save

    def stop(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.pretrain(by_epochs, tmp_path, progress=False)
    assert run_notebook._progress(tmp_path / "runs" / "pretrain")[1] == 3
    monkeypatch.undo()
    run = trainer.pretrain(by_epochs, tmp_path, progress=False)
    assert read_card(run)["steps"] == read_card(whole)["steps"] == 3
    assert read_card(run)["weights"] == read_card(whole)["weights"]
    records = checkpoint.read_metrics(run / "metrics.jsonl")
    assert records == checkpoint.read_metrics(whole / "metrics.jsonl")
    assert records[-1]["step"] == records[-1]["probe"]["step"] + 1 == 3


def test_few_labels_mean_few_steps_by_epochs_alone(smoke: Experiment, tmp_path: Path) -> None:
    """One and four of a fold's four scans, two a step, three epochs."""
    lengths = {}
    for length in ("finetune.epochs=3", "finetune.steps=3"):
        for percent in (25, 100):
            run = trainer.finetune(
                with_settings(smoke, [length]), tmp_path / length, task="msd_spleen", percent=percent, fold=0,
                arm="scratch", progress=False,
            )  # fmt: skip
            lengths[length, percent] = read_card(run)["steps"]
            assert checkpoint.read_metrics(run / "metrics.jsonl")[-1]["step"] == lengths[length, percent]
    assert list(lengths.values()) == [3, 6, 3, 3]


def test_a_finished_run_is_not_trained_again(
    pretrained: Path, smoke: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (pretrained / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(trainer._Loop, "_log", lambda *_: pytest.fail("a step was taken"))
    trainer.pretrain(smoke, pretrained.parents[1], progress=False)
    assert (pretrained / "model.safetensors").stat().st_mtime_ns == before


def test_the_encoder_follows_the_learning_rate_at_its_own_rate(
    smoke: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam's first step is the learning rate times the gradient's sign, whatever the gradient's size."""
    config = change(smoke, finetune={"steps": 1, "lr": 1e-3, "weight_decay": 0.0, "encoder_rate": 0.1})
    built = model.segmentation_model
    first: dict[str, torch.Tensor] = {}

    def noted(*args: object) -> UNETR:
        net = built(*args)  # type: ignore[arg-type]
        first.update({name: value.clone() for name, value in net.state_dict().items()})
        return net

    monkeypatch.setattr(trainer, "segmentation_model", noted)
    run = trainer.finetune(config, tmp_path, task="msd_spleen", percent=100, fold=0, arm="scratch", progress=False)
    weights, _ = checkpoint.read_weights(run)
    moved = {name: float((weights[name] - before).abs().max()) for name, before in first.items()}
    assert moved["encoder2.transp_conv_init.conv.weight"] == pytest.approx(1e-4, rel=0.01)
    assert moved["vit.patch_embedding.position_embeddings"] == pytest.approx(1e-4, rel=0.01)
    assert moved["decoder2.transp_conv.conv.weight"] == pytest.approx(1e-3, rel=0.01)
    assert moved["out.conv.conv.weight"] == pytest.approx(1e-3, rel=0.01)


@pytest.mark.slow
def test_other_settings_are_refused_or_start_over(smoke: Experiment, tmp_path: Path) -> None:
    first = trainer.pretrain(smoke, tmp_path, progress=False)
    other = change(smoke, loss={"alpha": 0.5})
    with pytest.raises(InputError, match=r"loss.alpha = 0.01, not 0.5.*--restart"):
        trainer.pretrain(other, tmp_path, progress=False)
    before = json.loads((first / "run.json").read_text())["weights"]
    trainer.pretrain(other, tmp_path, restart="changed", progress=False)
    assert json.loads((first / "run.json").read_text())["weights"] != before
    trainer.pretrain(change(other, run={"threads": 2}), tmp_path, progress=False)  # the machine decides nothing


@pytest.mark.parametrize("changes", [{"alpha": 0.0, "beta": 0.0}, {"identity": 0.0}, {"label_reduction": "sum"}])
def test_ablations_train(smoke: Experiment, tmp_path: Path, changes: dict[str, object]) -> None:
    run = trainer.pretrain(change(smoke, loss=changes), tmp_path, progress=False)
    assert (run / "model.safetensors").is_file()


def test_a_loss_that_is_not_finite_stops_with_a_sentence(smoke: Experiment, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not finite at step"):
        trainer.pretrain(change(smoke, pretrain={"lr": 1e30, "steps": 12}), tmp_path, progress=False)


def test_finetuning_hands_over_the_encoder(pretrained: Path, smoke: Experiment, tmp_path: Path) -> None:
    """With a vanishing learning rate the weights stay what they were: a handed-over encoder, and a fresh decoder."""
    still = change(smoke, finetune={"lr": 1e-30, "weight_decay": 0.0, "steps": 1})
    arms = {
        arm: trainer.finetune(still, tmp_path, task="btcv", percent=100, fold=0, arm=arm, init=init, progress=False)
        for arm, init in (("mixcl", pretrained), ("scratch", None))
    }
    ours, scratch = (checkpoint.read_weights(arms[arm])[0] for arm in ("mixcl", "scratch"))
    first = handover.unetr_weights(checkpoint.read_weights(pretrained)[0])
    for name, value in ours.items():
        expected = first if name.startswith(("vit", "encoder")) else scratch
        torch.testing.assert_close(value, expected[name], msg=name)
    card = json.loads((arms["mixcl"] / "run.json").read_text())
    assert card["hand_over"].startswith("encoder: ")
    assert card["pretraining"]["job"] == "pretrain"
    assert len(card["labels"]) == 13
    assert not set(card["train"]) & set(card["test"])


def test_what_may_have_seen_the_test_cases_is_no_start(pretrained: Path, smoke: Experiment, tmp_path: Path) -> None:
    short = change(smoke, finetune={"steps": 1})
    run = trainer.finetune(short, tmp_path, task="btcv", percent=100, fold=0, arm="scratch", progress=False)
    export(run, tmp_path / "b.safetensors")
    for init in (run, tmp_path / "b.safetensors"):
        with pytest.raises(
            InputError, match=r"was fine-tuned on btcv \(finetune-btcv-p100-scratch-f0-s0\), perhaps on"
        ):
            trainer.finetune(short, tmp_path, task="btcv", percent=100, fold=1, arm="mixcl", init=init, progress=False)
    trainer.finetune(short, tmp_path, task="msd_spleen", percent=100, fold=0, arm="a", init=run, progress=False)
    with pytest.raises(InputError, match=r"task 'bctv': is not in data.finetune \(did you mean 'btcv'\?\)"):
        trainer.finetune(short, tmp_path, task="bctv", percent=100, fold=0, arm="scratch", progress=False)
    with pytest.raises(InputError, match=r"task 'kits19': is not in data.finetune"):
        trainer.finetune(short, tmp_path, task="kits19", percent=100, fold=0, arm="mixcl", progress=False)


def test_the_start_belongs_to_fold_and_seed_alone(pretrained: Path, smoke: Experiment, tmp_path: Path) -> None:
    """Weights after a step that moves nothing are the fresh ones; the loss of that step tells the patches."""
    still = change(smoke, finetune={"lr": 1e-30, "weight_decay": 0.0, "steps": 1, "log_every": 1})

    def started(arm: str, percent: float, fold: int, seed: int) -> tuple[torch.Tensor, float]:
        run = trainer.finetune(
            still, tmp_path, task="btcv", percent=percent, fold=fold, seed=seed, arm=arm,
            init=pretrained if arm == "mixcl" else None, progress=False,
        )  # fmt: skip
        weights, _ = checkpoint.read_weights(run)
        return weights["decoder2.transp_conv.conv.weight"], checkpoint.read_metrics(run / "metrics.jsonl")[0]["total"]

    fresh, loss = started("scratch", 100, 0, 0)
    for arm, percent in (("mixcl", 100), ("scratch", 50)):
        assert torch.equal(started(arm, percent, 0, 0)[0], fresh)
    for fold, seed in ((1, 0), (0, 1)):
        weights, other = started("scratch", 100, fold, seed)
        assert not torch.equal(weights, fresh)
        assert other != loss


def test_looking_at_the_test_cases_changes_nothing(smoke: Experiment, tmp_path: Path) -> None:
    """The weights stay the same to the bit; what is seen is what the metrics measure."""
    given: dict[str, Any] = {"task": "msd_spleen", "percent": 100, "fold": 0, "arm": "scratch", "progress": False}
    steps = {"steps": 5, "lr": 3e-3}
    plain = trainer.finetune(change(smoke, finetune=steps), tmp_path / "plain", **given)
    config = change(smoke, finetune={**steps, "probe_every": 2})
    run = trainer.finetune(config, tmp_path / "watched", **given)
    weights, _ = checkpoint.read_weights(run)
    assert checkpoint.weights_id(weights) == checkpoint.weights_id(checkpoint.read_weights(plain)[0])
    records = checkpoint.read_metrics(run / "metrics.jsonl")
    assert [record["test"]["step"] for record in records if "test" in record] == [0, 2, 4]
    assert not any("test" in record for record in checkpoint.read_metrics(plain / "metrics.jsonl"))

    store = Store(config.data.store_dir(tmp_path), settings=config.data)
    _, test = split(store.cases("msd_spleen"), config, 0, 100, 0)
    net = segmentation_model(config.model, 1)
    net.load_state_dict(weights)
    seen = windows.measure_test(net, test, config, {1: "spleen"})
    dice = []
    for case in test:
        predicted = windows.strongest_labels(
            windows.window_scores(net, scaled(case.image(), config.data.hu), config), [1]
        )
        (row,) = measure(case.label(), predicted, {1: "spleen"}, spacing=case.spacing, tolerance_mm=2)
        dice.append(row["dice"])
    assert seen["dice"]["spleen"] == pytest.approx(np.mean(dice), abs=1e-4)
    net.load_state_dict({name: torch.zeros_like(value) for name, value in weights.items()})
    assert windows.measure_test(net, test, config, {1: "spleen"})["cross_entropy"] == pytest.approx(np.log(2), abs=1e-5)


def test_a_task_learns(smoke: Experiment, tmp_path: Path) -> None:
    longer = change(smoke, finetune={"steps": 40, "lr": 3e-3, "log_every": 10, "dice_background": True})
    run = trainer.finetune(longer, tmp_path, task="msd_spleen", percent=100, fold=0, arm="scratch", progress=False)
    losses = [record["total"] for record in checkpoint.read_metrics(run / "metrics.jsonl")]
    assert losses[-1] < 0.8 * losses[0]


def test_an_exported_encoder_loads_into_plain_monai(pretrained: Path, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    code = export(pretrained, path)
    space: dict[str, object] = {"YOUR_CLASSES": 4}
    exec(code, space)
    net = space["net"]
    assert isinstance(net, UNETR)
    weights = load_file(path)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in weights.items())
    assert {name.split(".")[0] for name in weights} == {"vit", "encoder1", "encoder2", "encoder3", "encoder4"}


def test_an_exported_encoder_starts_a_finetuning(pretrained: Path, smoke: Experiment, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    export(pretrained, path)
    kwargs = {"task": "msd_spleen", "percent": 100, "fold": 0, "progress": False}
    a = trainer.finetune(smoke, tmp_path / "a", arm="mixcl", init=path, **kwargs)  # type: ignore[arg-type]
    b = trainer.finetune(smoke, tmp_path / "b", arm="mixcl", init=pretrained, **kwargs)  # type: ignore[arg-type]
    assert checkpoint.weights_id(checkpoint.read_weights(a)[0]) == checkpoint.weights_id(checkpoint.read_weights(b)[0])


def test_a_fold_that_cannot_be_made(smoke: Experiment, tmp_path: Path) -> None:
    few = change(smoke, grid={"n_folds": 9})
    with pytest.raises(InputError, match="5 cases"):
        trainer.finetune(few, tmp_path, task="btcv", percent=100, fold=0, arm="scratch", progress=False)


def test_precision_that_the_machine_lacks(smoke: Experiment, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InputError, match="fp16"):
        trainer.pretrain(change(smoke, run={"precision": "fp16"}), tmp_path, progress=False)
    with pytest.raises(InputError, match="no CUDA device"):
        trainer.pretrain(change(smoke, run={"device": "cuda"}), tmp_path, progress=False)


def test_bf16_trains(smoke: Experiment, tmp_path: Path) -> None:
    run = trainer.pretrain(change(smoke, run={"precision": "bf16"}), tmp_path, progress=False)
    assert (run / "model.safetensors").is_file()


def test_cosine_goes_from_lr_to_zero() -> None:
    values = [trainer.cosine(step, 100, 1e-4) for step in range(101)]
    assert values[0] == 1e-4
    assert values[100] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in pairwise(values))


FREED = """
import resource
import torch
from mixcl.run import device

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(12_000_000)  # 48 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

before, size = faults(), resident()
device.keep_memory()
faults()
kept = faults()
grown = resident() - size
device.release_memory()
print(before, kept, grown, resident() - size)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_that_tensors_free_is_used_again_and_given_back() -> None:
    told = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True).stdout
    before, kept, grown, left = (int(word) for word in told.split())
    assert before > 10 * 10_000  # the kernel fills in ten times 48 MB, page after page
    assert kept < before / 100
    assert grown > 40e6
    assert left < grown / 2


@pytest.mark.slow
def test_starting_over_takes_nothing_away_before_all_else_is_well(smoke: Experiment, tmp_path: Path) -> None:
    run = trainer.pretrain(smoke, tmp_path, progress=False)
    tracked = smoke.model_copy(update={"run": smoke.run.model_copy(update={"tracker": "neptune"})})
    with pytest.raises(InputError, match="neptune, which is not installed"):
        trainer.pretrain(tracked, tmp_path, restart="always", progress=False)
    assert (run / "model.safetensors").is_file()
