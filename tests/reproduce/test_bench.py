"""The benchmarks that wait for a GPU: all of them, at a small size on the processor, by the script that runs them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "reproduce" / "bench" / "gpu.sh"
PARTS = {"step", "roofline", "pipeline", "tutorial", "scaling"}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", str(SCRIPT), *words], capture_output=True, text=True, timeout=1800)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything was run."""
    folder = tmp_path_factory.mktemp("bench")
    done = run("--small", "--work", str(folder), "--minutes", "25")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_every_benchmark_leaves_figures_and_a_plot(work: Path) -> None:
    (result,) = (work / "results").glob("*.json")
    found = json.loads(result.read_text())
    assert set(found["parts"]) == PARTS
    assert result.with_suffix(".png").stat().st_size > 5000
    for name, part in found["parts"].items():
        assert part["ratio"], name
        assert all(value > 0 for value in part["ratio"].values()), name
        assert (work / "parts" / f"{name}.png").is_file()
        assert part["machine"]["cpu"] == found["machine"]
    assert found["parts"]["step"]["ratio"]["step-memory"] < 1.5
    steps = found["parts"]["roofline"]["steps"]
    assert steps["pretrain"]["flop"] > 2 * steps["pretrain"]["samples"] * steps["window"]["flop"] > 0
    assert 0 <= found["parts"]["pipeline"]["idle"]["0"] < 1


@pytest.mark.slow
def test_what_is_done_is_not_done_again(work: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (work / "parts").glob("*.json")}
    (work / "parts" / "roofline.json").unlink()
    done = run("--small", "--work", str(work), "--minutes", "0")
    assert done.returncode == 1
    assert "not done: roofline" in done.stderr
    after = {path.name: path.stat().st_mtime_ns for path in (work / "parts").glob("*.json")}
    assert after == {name: at for name, at in before.items() if name != "roofline.json"}


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", f'PATH={tmp_path}:$PATH bash "{SCRIPT}" --work "{tmp_path}/w"'], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "no GPU here" in done.stderr
