"""Scripts, kernels, devices and figures in a shell where everything is set; what a user types in odd letters."""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from helpers import hostile

from mixcl.data.check.findings import thumbnail
from mixcl.data.check.image_rules import Scene
from mixcl.figures.style import Sketch
from mixcl.run import gpus

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "reproduce"))
workflow = importlib.import_module("workflow")
sys.path.insert(0, str(ROOT / "reproduce/bench"))
sides = importlib.import_module("sides")
LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 4g.20gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-3eb87630-93d5-b2b6-b8ff-9b359caf4ee2)
"""
FIRST, SECOND = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77", "GPU-3eb87630-93d5-b2b6-b8ff-9b359caf4ee2"
SMALL, LARGE = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"


def run_all(
    *words: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(ROOT / "reproduce/run_all.sh"), "--profile", "smoke", *words],
        env=env, cwd=cwd, capture_output=True, text=True, check=False, encoding="utf-8",
    )  # fmt: skip


# --- scripts --------------------------------------------------------------------------------------------------------


def test_the_shell_forgets_what_is_the_users(tmp_path: Path) -> None:
    """Whatever is sourced before a run leaves our settings, none of the user's, and the code of this repository."""
    environment = {**hostile.environment(tmp_path), "MIXCL_CONTAINER": "1"}
    script = "source reproduce/setup.sh && source reproduce/bits.sh && env -0"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, check=True)
    left = dict(item.split("=", 1) for item in done.stdout.decode(errors="replace").split("\0") if "=" in item)
    gone = (
        "CDPATH", "BASH_ENV", "PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONINSPECT", "PYTHONOPTIMIZE", "POSIXLY_CORRECT",
        "OMP_THREAD_LIMIT", "ONEDNN_DEFAULT_FPMATH_MODE", "NPY_ENABLE_CPU_FEATURES", "RANK", "WORLD_SIZE", "GIT_DIR",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "BASH_FUNC_cd%%",
    )  # fmt: skip
    assert not [name for name in gone if name in left]
    assert "noclobber" not in left.get("SHELLOPTS", "")
    ours = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_CBWR": "COMPATIBLE", "PYTHONUTF8": "1", "LC_ALL": "C"}
    assert {name: left.get(name) for name in ours} == ours


@pytest.mark.parametrize("active", [False, True])
def test_the_way_back_into_the_environment_is_said(active: bool, tmp_path: Path) -> None:
    """`mixcl` was not found right after success, where the script had made the environment itself."""
    root = tmp_path / "a b"
    (root / "reproduce").mkdir(parents=True)
    text = (ROOT / "reproduce/setup.sh").read_text().removesuffix("mixcl_set_up\n")
    (root / "reproduce/setup.sh").write_text(text + 'mixcl_alone() { :; }\nmixcl_set_up\necho "${MIXCL_ACTIVATE:-}"\n')
    environment = {"PATH": os.environ["PATH"], **({"VIRTUAL_ENV": str(root / ".venv")} if active else {})}
    done = subprocess.run(
        ["bash", str(root / "reproduce/setup.sh")], env=environment, capture_output=True, text=True, check=True
    )
    command = rf"source {str(root / '.venv').replace(' ', chr(92) + ' ')}/bin/activate"
    assert (command in done.stderr, done.stdout.strip()) == (not active, "" if active else command)


@pytest.mark.parametrize("name", ["reproduce/run_all.sh", "reproduce/test.sh", "figures/update.sh"])
def test_a_cdpath_leads_no_script_astray(name: str, tmp_path: Path) -> None:
    """Called from the repository's root by a relative path, where CDPATH has folders of the same names."""
    for folder in ("reproduce", "figures", "here"):
        (tmp_path / folder).mkdir()
    words = ["--help"] if name.endswith("run_all.sh") else ["/nowhere" if "update" in name else "--version"]
    environment = {**os.environ, "CDPATH": str(tmp_path), "MIXCL_CONTAINER": "1"}
    done = subprocess.run(
        ["bash", name, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert "No such file" not in done.stderr
    assert done.returncode == (2 if "update" in name else 0), done.stderr


def test_no_script_asks_cd_where_it_lies() -> None:
    scripts = [*ROOT.glob("reproduce/**/*.sh"), ROOT / "figures/update.sh", ROOT / ".ci/run"]
    assert len(scripts) > 8
    assert not [path for path in scripts if "&& pwd" in path.read_text(encoding="utf-8")]


def test_a_clone_that_converts_line_ends_still_starts(tmp_path: Path) -> None:
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a repository")
    clone = tmp_path / "clone"
    command = ["git", "clone", "-q", "-c", "core.autocrlf=true", "-c", "core.eol=crlf", str(ROOT), str(clone)]
    subprocess.run(command, check=True, capture_output=True)
    texts = [*clone.glob("reproduce/**/*.sh"), clone / "reproduce/Snakefile", clone / "reproduce/lock/base.txt"]
    assert not [path for path in texts if b"\r" in path.read_bytes()]
    done = subprocess.run(["bash", str(clone / "reproduce/run_all.sh"), "--help"], capture_output=True, check=False)
    assert done.returncode == 0


# --- what a user types ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run #2", 'a: b {a} it\'s "q" $HOME `x` \\ läuft'])
def test_results_go_where_they_are_said_to_go(name: str, tmp_path: Path) -> None:
    """Into the folder of that name; none beside it.  What lies where the user stands is neither imported nor read."""
    hostile.write(tmp_path / "here/profiles/default/config.yaml", "no-such-option: 1\n")  # Snakemake looks for one
    for module in ("snakemake", "yaml", "mixcl"):
        (tmp_path / "here" / f"{module}.py").write_text("raise SystemExit('not ours')")
    done = run_all("--dry-run", "--out", str(tmp_path / "out" / name), cwd=tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert "to do  figures" in done.stdout
    assert f"results in {tmp_path}/out/{name}\n" in done.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "two\nlines"], "control character"),
        (["--out", os.fsdecode(b"\xff")], "not UTF-8"),
        (["--out", "/dev/null/x"], "/dev/null/x"),
        (["--profile", "no such #1.yaml"], "no such #1.yaml"),
        (["--profile", "nowhere/{a}: b.yaml"], "{a}: b.yaml"),
        (["--slurm", str(ROOT / "reproduce/slurm"), "--out", "with space"], "SLURM"),
        (["--gpus", "77"], "--gpus 77"),
        (["--set", "grid.percents={}", "--set", "grid.ablation={}", "--set", "grid.percents={kits19: [5]}"], "no job"),
    ],
)
def test_what_cannot_be_is_one_sentence(words: list[str], told: str, tmp_path: Path) -> None:
    done = run_all(*words, cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("setup:")]
    assert done.returncode == 2
    assert len(lines) == 1
    assert told in lines[0]


# --- the engine's reason --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_a_broken_engine_says_why_in_one_line(words: list[str], tmp_path: Path) -> None:
    (tmp_path / ".snakemake").write_text("a file in the place of a folder")
    done = run_all("--out", str(tmp_path), "--only", "prepare", *words)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "no plan: " in line or "could be made: " in line]
    assert ".snakemake" in line.partition("the engine's log")[0]


@pytest.mark.slow
def test_a_failed_job_is_named_and_says_why(tmp_path: Path) -> None:
    hostile.write(tmp_path / "data" / "store", "a file in the place of a folder")
    done = run_all("--out", str(tmp_path), "--only", "prepare")
    assert done.returncode == 1
    assert f"{tmp_path}/data/store: cannot be written" in done.stdout
    assert "prepare failed; the lines above say why" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("Building DAG of jobs...\nMissingInputException in rule a in file S, line 3:\nMissing input:\n    b\n", 1,
         "MissingInputException in rule a in file S, line 3: Missing input: b"),
        ("KeyError in file \"S\", line 46:\n'case'\n  File \"S\", line 3, in <module>\n", 1,
         "KeyError in file \"S\", line 46: 'case'"),
        ("Traceback (most recent call last):\n  File \"x\", line 1\n    y\nOSError: [Errno 28] No space left\n", 1,
         "OSError: [Errno 28] No space left"),
        ("usage: snakemake [-h]\nsnakemake: error: argument --cores: no\n", 2,
         "snakemake: error: argument --cores: no"),
        ("Error in rule a:\n    message: None\nError in rule b:\n    returned non-zero exit status 137.\n", 1,
         "a, b failed (exit status 137, killed, perhaps for want of memory); the lines above say why"),
        ("Error in rule a:\n    message: SLURM-job '4' failed, SLURM status is: 'TIMEOUT'.\n", 1,
         "a failed (SLURM-job '4' failed, SLURM status is: 'TIMEOUT'.); the lines above say why"),
        ("Building DAG of jobs...\n", -9, "the engine was ended by a signal (Killed)"),
        ("", 3, "the engine ended with status 3 and said nothing"),
    ],
)  # fmt: skip
def test_the_reason_is_taken_from_what_the_engine_said(text: str, status: int, expected: str) -> None:
    assert workflow.reason(text, status) == expected


def test_the_engine_has_no_settings_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ("SNAKEMAKE_PROFILE", "SNAKEMAKE_OUTPUT_CACHE", "MATPLOTLIBRC", "SBATCH_EXPORT", "SLURM_EXPORT_ENV")
    for name in (*gone, "MPLCONFIGDIR", "XDG_CACHE_HOME", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "theirs")
    environment = workflow._environment(tmp_path, MIXCL_GPUS="1")
    assert not [name for name in gone if name in environment]
    assert Path(environment["MPLCONFIGDIR"]).is_relative_to(tmp_path)
    assert Path(environment["XDG_CACHE_HOME"]).is_relative_to(tmp_path)
    assert (environment["SBATCH_ACCOUNT"], environment["MIXCL_GPUS"]) == ("theirs", "1")


# --- GPUs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, [SMALL, LARGE, SECOND]),  # CUDA sees no GPU that is cut into instances
        ("", []),
        ("-1", []),
        ("1", ["1"]),
        ("1, 0", ["1", "0"]),
        ("0,-1,1", ["0"]),  # what stands behind one that is not there does not count
        ("0,2,1", ["0"]),
        (SECOND, [SECOND]),
        ("GPU-3eb8", ["GPU-3eb8"]),
        (f"{LARGE},{SMALL}", [LARGE, SMALL]),
        ("GPU-", []),
        ("all", []),
    ],
)
def test_visible_gpus_are_counted_as_cuda_does(chosen: str | None, expected: list[str]) -> None:
    assert gpus.visible(LISTING, chosen) == expected


def test_no_gpu_is_visible_where_none_is_listed() -> None:
    assert gpus.visible("", "0,1") == gpus.visible("No devices were found\n", None) == []


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOSYS, "a file system without locks")


def test_each_job_takes_a_device_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXCL_GPUS", f"3,{SMALL}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"3,{SMALL}")
    with gpus.held(tmp_path):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
        with gpus.held(tmp_path):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == SMALL
    with gpus.held(tmp_path):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    with monkeypatch.context() as without:
        without.setattr(fcntl, "flock", no_locks)
        with gpus.held(tmp_path):
            assert os.environ["CUDA_VISIBLE_DEVICES"] in ("3", SMALL)
    monkeypatch.setenv("MIXCL_GPUS", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")  # a scheduler's choice
    with gpus.held(tmp_path):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"


@pytest.mark.slow
def test_a_plan_counts_what_is_visible(tmp_path: Path) -> None:
    """CUDA_VISIBLE_DEVICES=1 on a machine with two GPUs is one job at a time."""
    fake = tmp_path / "bin" / "nvidia-smi"
    hostile.write(fake, f"#!/bin/sh\ncat <<'END'\n{LISTING}END\n")
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "1"}
    done = run_all("--dry-run", "--out", str(tmp_path / "out"), env=environment)
    assert done.returncode == 0, done.stderr
    assert "how much faster 1 GPU(s) are" in done.stdout
    assert json.loads((tmp_path / "out/commands/settings.json").read_text())["gpu"] == 1


# --- kernels --------------------------------------------------------------------------------------------------------


def test_a_kernel_is_that_of_the_running_python(tmp_path: Path) -> None:
    """Another kernel named python3, start-up files, and folders that cannot be written; braces in the path."""
    cells = [
        "PROFILE = ''\nOUT = ''",
        "import os, sys\n"
        "told = {name: os.environ.get(name, '') for name in ('IPYTHONDIR', 'PYTHONSTARTUP', 'JUPYTER_PATH')}\n"
        "print([sys.executable, told, PROFILE])",
    ]
    spec = {"name": "python3", "language": "python", "display_name": "theirs"}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata={"kernelspec": spec}
    )
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, tmp_path / "asks.ipynb")
    executed = tmp_path / "{out}: it's #1 ü" / "asked.ipynb"
    given = json.dumps({"PROFILE": "{a} \"b\" 'c' \\ #", "OUT": str(executed.parent)})
    command = [sys.executable, ROOT / "reproduce/run_notebook.py", tmp_path / "asks.ipynb", executed, given]
    environment = hostile.environment(tmp_path / "hostile") | clean_python()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    (answer,) = [cell.outputs for cell in nbformat.read(executed, as_version=4).cells if cell.get("outputs")]
    executable, told, profile = eval(answer[0]["text"])
    assert executable == sys.executable
    assert not told["JUPYTER_PATH"] + told["PYTHONSTARTUP"]
    assert told["IPYTHONDIR"]
    assert "hostile" not in told["IPYTHONDIR"]
    assert profile == "{a} \"b\" 'c' \\ #"


def clean_python() -> dict[str, str]:
    """What setup.sh does for Python itself."""
    return {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "", "PYTHONINSPECT": "", "PYTHONOPTIMIZE": "", "PYTHONUTF8": "1"}


# --- pictures -------------------------------------------------------------------------------------------------------


def test_pictures_are_the_right_way_up_whatever_matplotlibrc_says(tmp_path: Path) -> None:
    """A thumbnail of `data check`, a picture of an article and a plot of a benchmark."""
    image = np.arange(12 * 12 * 4, dtype=np.float32).reshape(12, 12, 4)
    view = Scene(image, np.zeros(image.shape, np.uint8), np.ones(3), {})

    def drawn() -> bytes:
        with Sketch.sized(4, 3) as (figure, ax):
            ax.imshow(image[..., 0])
        sides.plot(tmp_path / "bench.png", "a", {"b": 2.0}, None)
        return thumbnail(view) + figure._repr_png_()[0] + (tmp_path / "bench.png").read_bytes()

    expected = drawn()
    with matplotlib.rc_context({"image.origin": "lower", "font.size": 30, "axes.facecolor": "red", "figure.dpi": 7}):
        assert drawn() == expected
