"""The training loop over several processes: the same gradients, one writer, the same weights after a process died."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers import forked
from helpers.ranks import READINGS, process
from helpers.settings import change
from safetensors.torch import load_file
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from mixcl import baselines
from mixcl.config.settings import Experiment
from mixcl.errors import InputError

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")]
WORKER = Path(__file__).parents[1] / "helpers" / "ranks.py"
ALONE = {
    "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # or processes started again read addresses of the dead: pytorch 135712
}  # fmt: skip


def run(job: str, out: Path, store: Path, ranks: int) -> None:
    """Start `tests/helpers/ranks.py` on the CPU in so many processes, by torchrun, which starts one that died again."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "--max-restarts=1"]
    command = [sys.executable, *torchrun, str(WORKER), job, str(out), str(store)]
    done = subprocess.run(command, env=os.environ | ALONE, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]


def fork(job: str, out: Path, store: Path, ranks: int) -> None:
    """The same without torchrun, in processes that need not import torch and MONAI each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forked.run(process, ranks, ranks, port, job, out, store)


@pytest.fixture(scope="module")
def store(prepared: Path) -> Path:
    return prepared / "data" / "store"


@pytest.fixture(scope="module")
def alone(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gradients of one process with all six samples."""
    out = tmp_path_factory.mktemp("alone")
    fork("gradients", out, store, 1)
    return out


@pytest.fixture(scope="module")
def undisturbed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training by two processes that nothing stops."""
    out = tmp_path_factory.mktemp("two") / "live"
    fork("live", out, store, 2)
    assert Path(f"{out}.lives-0").read_text().split() == ["0"]
    return out / "runs" / "pretrain"


def same(ours: Path, theirs: Path) -> None:
    """Two runs have the same weights to the bit."""
    weights, others = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    assert all(torch.equal(weights[name], value) for name, value in others.items())


def test_a_step_of_three_processes_is_that_of_one(alone: Path, store: Path, tmp_path: Path) -> None:
    """Every term's gradient to 1e-5, and its log, with the samples, distortions and pixels of the real patches."""
    out, ranks = tmp_path / "run", 3
    out.mkdir()
    fork("gradients", out, store, ranks)
    for reading in (*READINGS, "finetune"):
        found, expected = (load_file(folder / f"{reading}.safetensors") for folder in (out, alone))
        assert found.keys() == expected.keys()
        assert sum(float(value.norm()) for value in expected.values()) > 0
        apart = torch.stack([(found[name] - value).norm() for name, value in expected.items()]).norm()
        apart = float(apart / torch.stack([value.norm() for value in expected.values()]).norm())
        if reading == "alone":
            assert apart > 1e-2  # R19 switched off is another loss: the comparison can tell
        else:
            assert apart < 1e-5, reading
            logs = [next((folder / reading).glob("runs/*/metrics.jsonl")) for folder in (out, alone)]
            ours, theirs = (json.loads(log.read_text().splitlines()[-1]) for log in logs)
            assert ours.pop("levels", []) == pytest.approx(theirs.pop("levels", []), rel=1e-4), reading
            assert ours == pytest.approx(theirs, rel=1e-4), reading
            largest = max(float(value.abs().max()) for value in expected.values())
            assert all((found[name] - value).abs().max() < 1e-5 * largest for name, value in expected.items()), reading
    for rank in range(1, ranks):
        assert json.loads(Path(f"{out}.writes-{rank}.json").read_text()) == []
    assert len(list((out / "all" / "runs" / "pretrain").iterdir())) == 3  # run.json, metrics.jsonl, the weights


def test_a_process_that_dies_is_started_again_and_nothing_shows(undisturbed: Path, store: Path, tmp_path: Path) -> None:
    """kill -9 of the second of two processes after a checkpoint, with torchrun's elastic restart."""
    run("die", tmp_path / "die", store, 2)
    assert Path(f"{tmp_path / 'die'}.lives-1").read_text().split() == ["0", "1"]
    restarted = tmp_path / "die" / "runs" / "pretrain"
    same(restarted, undisturbed)
    assert (restarted / "metrics.jsonl").read_text() == (undisturbed / "metrics.jsonl").read_text()


def test_a_stop_that_reaches_one_process_stops_all_at_one_step(undisturbed: Path, store: Path, tmp_path: Path) -> None:
    """SIGTERM for the second of two: both leave after the third step, which is saved."""
    with pytest.raises(ProcessExitedException, match="exit code 143"):
        fork("stop", tmp_path / "run", store, 2)
    assert (tmp_path / "run/runs/pretrain/checkpoint/000000003").is_dir()
    fork("live", tmp_path / "run", store, 2)
    stopped = tmp_path / "run" / "runs" / "pretrain"
    same(stopped, undisturbed)
    assert (stopped / "metrics.jsonl").read_text() == (undisturbed / "metrics.jsonl").read_text()


def test_processes_that_see_different_folders_are_refused(undisturbed: Path, store: Path, tmp_path: Path) -> None:
    """Nodes without a shared file system: a checkpoint on one of them alone must not part the processes."""
    finished = tmp_path / "whole" / "runs" / "pretrain"
    shutil.copytree(undisturbed, finished)
    with pytest.raises(ProcessRaisedException, match="file system that all nodes share"):
        fork("apart", tmp_path, store, 2)
    assert (finished / "model.safetensors").is_file()


def test_the_slurm_script_joins_its_nodes(undisturbed: Path, store: Path, tmp_path: Path) -> None:
    """With a stand-in for srun that starts its command once a node: two launchers meet and train one model."""
    stand_ins = {
        "scontrol": "echo localhost; echo localhost",
        "srun": 'shift; for node in $(seq "$SLURM_NNODES"); do "$@" & done; wait -n; code=$?; wait; exit $code',
    }
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"NNODES": "2", "JOB_ID": str(os.getpid()), "JOB_NODELIST": "a", "GPUS_ON_NODE": "1"}
    alone = {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": "", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = WORKER.parents[2] / "reproduce" / "slurm" / "pretrain.sbatch"
    wanted = ["--profile", "smoke", "--out", str(tmp_path / "out")]
    wanted += [word for item in (f"data.store={store}", "pretrain.batch=2") for word in ("--set", item)]
    environment = os.environ | alone | {f"SLURM_{key}": value for key, value in slurm.items()}
    done = subprocess.run(["bash", str(script), *wanted], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("pre-trained") == 1
    same(tmp_path / "out" / "runs" / "pretrain", undisturbed)


@pytest.mark.parametrize("method", ["barlow", "masked"])
def test_what_compares_samples_is_refused_over_processes(method: str, smoke: Experiment) -> None:
    pretraining = baselines.objective(change(smoke, pretrain={"method": method, "batch": 2}))
    baselines.check_ranks(pretraining, 1)
    with pytest.raises(InputError, match="2 processes do not see together"):
        baselines.check_ranks(pretraining, 2)
