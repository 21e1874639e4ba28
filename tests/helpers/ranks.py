"""One process of a data-parallel pre-training, started by torchrun (``ranks.py JOB OUT STORE``) or by `process`.

``gradients`` takes one step of each reading of Eq. 2 in `READINGS`, and one of a fine-tuning that weighs classes, six
samples over all processes.  The first process leaves OUT/<reading>.safetensors and OUT/finetune.safetensors with the
gradient of each weight, as the optimiser finds it; every other one leaves
OUT.writes-<rank>.json with the files below OUT that it wrote.  ``die`` and ``live`` run the smoke profile; with ``die``
the second process kills itself in the third step of its first life; with ``stop`` it is sent SIGTERM there.  With
``apart`` the first one has OUT/whole, the others OUT/other.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mixcl import trainer
from mixcl.config import load_profile
from mixcl.run.signals import Stopped

READINGS = {
    "identity": ["loss.alpha=0", "loss.beta=0"],
    "label": ["loss.identity=0", "loss.alpha=1", "loss.beta=0"],
    "recon": ["loss.identity=0", "loss.alpha=0", "loss.beta=1"],
    "all": ["loss.alpha=1", "loss.beta=1", "loss.recon_reduction=mean"],
    "alone": ["loss.alpha=0", "loss.beta=0", "loss.sync_correlation=false"],  # each process its own correlation
}
SIGNALS = {"die": signal.SIGKILL, "stop": signal.SIGTERM}
FINETUNE = ["finetune.steps=1", "finetune.batch=6", "finetune.balance=0.6", "finetune.probe_every=0"]
STEP = ["pretrain.steps=1", "pretrain.batch=6", "pretrain.gradients_every=0", "pretrain.probe_every=0"]


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def process(rank: int, ranks: int, port: int, job: str, out: Path, store: Path) -> None:
    """What torchrun sets, for one of ``ranks`` processes that meet at ``port``; then the job."""
    torch.set_num_threads(1)
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    if ranks > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(ranks), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    code = 0
    try:
        start(job, out, str(store))
    except Stopped as stop:
        code = stop.code
    os._exit(code)  # what is left of gloo has been seen to wait for ever at the end of a rank


def start(job: str, out: Path, store: str) -> None:
    if job == "gradients":
        gradients(out, store)
    else:
        train(out / ("other" if rank() else "whole") if job == "apart" else out, store, SIGNALS.get(job, 0))


def gradients(out: Path, store: str) -> None:
    """One step of every reading."""
    written: list[str] = []
    torch.backends.mkldnn.enabled = False  # its gradients of a small convolution are good to 1e-3 in float32
    if rank():
        sys.addaudithook(lambda event, given: note(written, event, given, str(out)))
    place = [Path()]
    register_optimizer_step_pre_hook(lambda optimizer, *_: keep(optimizer, place[0]))
    for name, settings in READINGS.items():
        place[0] = out / f"{name}.safetensors"
        config = load_profile("smoke", [f"data.store={store}", *STEP, *settings])
        trainer.pretrain(config, out / name, progress=False)
    place[0] = out / "finetune.safetensors"
    config = load_profile("smoke", [f"data.store={store}", *FINETUNE])
    trainer.finetune(config, out / "finetune", task="btcv", percent=100, fold=0, arm="scratch", progress=False)
    if rank():
        Path(f"{out}.writes-{rank()}.json").write_text(json.dumps(written))


def keep(optimizer: Any, path: Path) -> None:
    """The gradient of each trained weight that takes part."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    if rank() == 0:
        save_file({str(i): p.grad.contiguous() for i, p in enumerate(weights) if p.grad is not None}, path)


def note(written: list[str], event: str, given: Any, out: str) -> None:
    """Remember what changes a file below ``out``."""
    changes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.symlink", "os.link")
    if event == "open":
        changes = bool((given[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if changes and str(given[0]).startswith(out + os.sep):
        written.append(f"{event} {given[0]}")


def train(out: Path, store: str, signalled: int = 0) -> None:
    """The smoke profile's pre-training."""
    steps = iter(range(100))
    life = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    with Path(f"{out}.lives-{rank()}").open("a") as file:
        file.write(f"{life}\n")

    def perhaps(*_: Any) -> None:
        if signalled and rank() == 1 and life == 0 and next(steps) == 2:
            os.kill(os.getpid(), signalled)

    register_optimizer_step_pre_hook(perhaps)
    trainer.pretrain(load_profile("smoke", [f"data.store={store}", "pretrain.batch=2"]), out, progress=False)


if __name__ == "__main__":
    start(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
