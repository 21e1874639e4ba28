"""run_all.sh as a user has it: the plan, a run killed again and again, and a changed setting."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from mixcl.config import load_profile
from mixcl.results.verify import files
from mixcl.run import determinism, signals
from mixcl.spreadsheet import read_csv

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SMALL = ["data.finetune=[msd_spleen]", "grid.ablation.msd_spleen=100", "grid.variants={}", "grid.folds=[0]"]


def command(out: Path, *words: str) -> list[str]:
    sets = [word for item in SMALL for word in ("--set", item)]
    return ["bash", str(ROOT / "reproduce/run_all.sh"), "--profile", "smoke", "--out", str(out), *sets, *words]


def run(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(out, *words), capture_output=True, text=True, check=False)


def trained(out: Path) -> dict[str, int]:
    """When the weights of each finished job were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (out / "runs").glob("*/model.safetensors")}


def killed(
    out: Path, until: Callable[[], bool], seconds: float, end_it: Callable[[int, int], None] = os.killpg,
    number: int = signal.SIGKILL,
) -> int:  # fmt: skip
    """Start a run for Table 1 and kill -9 everything of it when ``until`` holds, at the latest after ``seconds``.

    Or end it as ``end_it`` and ``number`` say; its exit code.  Nothing of it is left at work then.
    """
    process = subprocess.Popen(
        command(out, "--only", "table1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end and not until():
        time.sleep(0.05)
    if process.poll() is None:
        end_it(process.pid, number)
    code = process.wait()
    end = time.monotonic() + signals.GRACE  # in which a job may save
    while left := at_work(out):
        assert time.monotonic() < end, f"outlive their workflow: {left}"
        time.sleep(0.2)
    return code


def at_work(out: Path) -> list[str]:
    """Processes whose command or environment names a folder of results, kernels of notebooks among them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes()
            if str(out).encode() in words + (process / "environ").read_bytes():
                found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed when weights are there and the engine does not know it yet, then run_all.sh alone, then stopped."""
    out = tmp_path_factory.mktemp("whole")
    killed(out, lambda: "pretrain" in trained(out), 120)
    finished = trained(out)
    assert "pretrain" in finished
    assert killed(out, lambda: any(out.glob("runs/finetune*/run.json")), 120, os.kill) == -signal.SIGKILL
    log = out / "workflow.log"
    size = log.stat().st_size
    assert killed(out, lambda: log.stat().st_size > size, 120, os.kill, signal.SIGTERM) == 128 + signal.SIGTERM
    now = trained(out)
    assert {job: now.get(job) for job in finished} == finished  # nothing finished was trained again
    for table in ("table1", "table2"):
        done = run(out, "--only", table)
        assert done.returncode == 0, done.stdout + done.stderr
    made = {f"{table}.{kind}" for table in ("table1", "table2") for kind in ("csv", "md", "tex")}
    assert {path.name for path in (out / "tables").glob("*.*[!b]")} == made  # what needs all runs waits for all
    done = run(out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {job: at for job, at in trained(out).items() if job in now} == now
    lines = done.stdout.splitlines()
    marks = [re.match(r"\[(\d+)/8(?:, about \d+ min left)?\] ", line) for line in lines]
    counts = [int(mark[1]) for mark in marks if mark]  # prepare, three trainings, four that sum up
    assert counts[-1] == 8
    assert counts == sorted(counts)
    assert "[8/8] 22_figures: done in" in done.stdout
    assert any(line.startswith("Table 1, mean Dice from scratch -> MixCL (1 fold, 1 pre-training)") for line in lines)
    return out


def test_killed_again_and_again_it_ends_with_the_weights_of_a_run_that_nothing_disturbed(whole: Path) -> None:
    """Those that are committed, of the whole profile; this run is a part of it."""
    expected = json.loads((ROOT / "reproduce/expected/smoke.json").read_text(encoding="utf-8"))
    cards = {job: json.loads((whole / "runs" / job / "run.json").read_text()) for job in trained(whole)}
    assert cards.keys() == {"pretrain", *(f"finetune-msd_spleen-p100-{arm}-f0-s0" for arm in ("mixcl", "scratch"))}
    if other := [text for card in cards.values() for text in determinism.unlike(card["bits"], expected["bits"])]:
        pytest.skip(f"other bits are to be expected: {other[0]}")
    assert {job: card["weights"] for job, card in cards.items()} == {job: expected["weights"][job] for job in cards}
    for number in (1, 2):
        table = read_csv(whole / "tables" / f"table{number}.csv")
        assert dict(zip(table["job"], table["dice"], strict=True)) == {
            job: expected["dice"][job] for job in cards if job != "pretrain"
        }


APART = {"31_does_it_work", "32_when_does_it_help"}  # no part of the main job


def test_everything_is_made(whole: Path) -> None:
    """Executed copies of every notebook, weights, tables, figures, the page and the run card."""
    for name in ("tables/table1.md", "tables/table2.tex", "figures/figure3.pdf", "site/index.html", "RUN.json"):
        assert (whole / name).is_file(), name
    executed = {path.stem: path for path in whole.glob("**/*.ipynb")}
    assert executed.keys() == {path.stem for path in (ROOT / "notebooks").glob("[1-9]*.ipynb")} - APART
    assert (whole / "runs/finetune-msd_spleen-p100-mixcl-f0-s0/11_finetune.ipynb").is_file()
    for path in executed.values():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
        assert counts == list(range(1, len(counts) + 1)), path
    rows = (whole / "tables/table1.csv").read_text().splitlines()
    assert {"task", "percent", "arm", "fold", "seed", "dice"} <= set(rows[0].split(","))
    assert len(rows) == 3
    made = ("pretrain_losses", "table1", "table2", "effects", "diagnostics", "organs", "figure1", "figure2", "figure3")
    for name in made:
        assert (whole / "figures" / f"{name}.png").stat().st_size > 5000
        assert (whole / "figures" / f"{name}.pdf").is_file()
    assert "phantoms" in (whole / "tables/table1.md").read_text()
    assert "phantoms" in (whole / "site/index.html").read_text()
    assert all(check.holds for check in files.tables(load_profile("smoke", SMALL), whole))


def test_a_finished_run_has_nothing_left_to_do(whole: Path) -> None:
    before = trained(whole)
    done = run(whole, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "nothing is left to do" in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.strip().startswith("to do")]
    assert trained(whole) == before


def test_a_changed_setting_touches_just_its_jobs(whole: Path) -> None:
    done = run(whole, "--dry-run", "--set", "finetune.lr=1e-3")
    assert done.returncode == 0, done.stderr
    todo = {line.split()[2] for line in done.stdout.splitlines() if line.strip().startswith("to do")}
    assert len([rule for rule in todo if rule.startswith("finetune")]) == 2
    assert not todo & {"prepare", "pretrain"}


@pytest.mark.parametrize(
    ("setting", "again"),
    [
        ("loss.temperature=0.2", {"pretrain", "finetune-msd_spleen-p100-mixcl-f0-s0", "table1", "effects", "figures"}),
        ("grid.n_folds=3", {f"finetune-msd_spleen-p100-{arm}-f0-s0" for arm in ("mixcl", "scratch")} | {"table1"}),
        ("grid.compare=[[scratch, mixcl]]", {"effects", "figures"}),
    ],
)
def test_what_a_setting_touches_is_made_again(whole: Path, setting: str, again: set[str]) -> None:
    done = run(whole, "--dry-run", "--set", setting)
    todo = {line.split()[2] for line in done.stdout.splitlines() if line.strip().startswith("to do")}
    assert again <= todo
    assert "prepare" not in todo
    assert (setting.startswith("grid.compare")) == (not any(job.startswith(("pretrain", "finetune")) for job in todo))


def test_lost_weights_are_made_again_for_a_job_that_needs_them(whole: Path) -> None:
    (whole / "runs/pretrain/model.safetensors").rename(whole / "kept")
    try:
        done = run(whole, "--dry-run", "--set", "finetune.lr=1e-3")
        assert any(line.split() == ["to", "do", "pretrain"] for line in done.stdout.splitlines()), done.stdout
    finally:
        (whole / "kept").rename(whole / "runs/pretrain/model.safetensors")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "table9"], "table9"),
        (["--gpus", "many"], "many"),
        (["--slurm", "/nowhere"], "nowhere"),
        (["--cores", "0"], "--cores 0"),
        (["--set", "loss.alpa=1"], "alpha"),
        (["--profile", "~nobody-of-that-name/mine.yaml"], "~nobody-of-that-name"),
    ],
)
def test_a_wrong_argument_is_one_sentence(tmp_path: Path, words: list[str], said: str) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
