"""What is done and how long the rest takes, from lines of jobs and of the engine's log as they come."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mixcl.config import load_profile

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "reproduce"))
progress, workflow, dry_run = map(importlib.import_module, ("progress", "workflow", "dry_run"))

CONFIG = load_profile("smoke", ["run.folds_a_kernel=2", "grid.folds=[0,1]", "grid.variants={}"])
COSTS = {"kernel": 10, "pretrain_sample": 1, "finetune_sample": 1, "case": 0, "copy": 0, "prepare_case": 1}
GROUP, SECOND = (f"finetune-btcv-p100-mixcl-f{fold}-s0" for fold in (0, 1))
START = "Sun Nov 29 12:00:00 2026"
NOON = time.mktime(time.strptime(START))


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> progress.Progress:
    """A run with table2 there from before; work: prepare 20, pretrain 18, two fine-tunings 9 each, table1 10."""
    monkeypatch.setattr(dry_run, "read_costs", lambda _: COSTS)
    work = {"prepare": 20.0, "pretrain": 18.0, GROUP: 18.0, "table1": 10.0, "table2": 10.0}
    monkeypatch.setattr(dry_run, "seconds_of", lambda rule, *_: work[rule])
    (tmp_path / "commands").mkdir()
    (tmp_path / "workflow.log").write_text("Finished jobid: 1 (Rule: pretrain)\n")  # of a run before
    run = progress.Progress(CONFIG, tmp_path, slots=2, gpus=False)
    (tmp_path / "commands/plan.json").write_text(json.dumps({rule: rule != "table2" for rule in work}))
    monkeypatch.setattr(progress.time, "time", lambda: NOON)
    return run


def log(run: progress.Progress, *lines: str) -> None:
    with run.log.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def begun(rule: str, date: str = START) -> tuple[str, str]:
    return f"[{date}]", f"localrule {rule}:"


def ended(rule: str, date: str) -> tuple[str, str]:
    return f"[{date}]", f"Finished jobid: 7 (Rule: {rule})"


def test_jobs_are_counted_one_a_training_and_those_from_before_too(running: progress.Progress) -> None:
    log(running, *begun("prepare"))
    assert running.mark("prepare: 1/9").startswith("[1/6, about 1 min left] prepare: 1/9")
    log(running, *ended("prepare", "Sun Nov 29 12:00:20 2026"), *begun("pretrain"))
    assert running.mark("pretrain: started").startswith("[2/6")
    assert running.mark("pretrain: done in 18 s").startswith("[3/6")
    log(running, *ended("pretrain", "Sun Nov 29 12:00:40 2026"), *begun(GROUP))
    assert running.mark(f"{GROUP}: done in 9 s").startswith("[4/6")
    assert running.mark(f"{SECOND}: done in 9 s").startswith("[5/6")
    assert running.mark("20_table1: done in 5 s") == "[6/6] 20_table1: done in 5 s"


def test_time_left_is_reckoned_at_the_measured_speed(running: progress.Progress) -> None:
    running.mark("")
    assert running.seconds_left(NOON) == pytest.approx((20 + 18 + 9 + 9 + 10) / 2)
    log(running, *begun("prepare"), *ended("prepare", "Sun Nov 29 12:00:40 2026"))  # twice as long as reckoned
    running.mark("")
    trusted = (60 + 40) / (60 + 20)  # kinds that were not measured change a little
    assert running.seconds_left(NOON) == pytest.approx(trusted * (18 + 9 + 9 + 10) / 2)
    log(running, *begun("pretrain"))
    running.mark("pretrain: started")
    at_work = running.seconds_left(NOON + 10)
    assert at_work == pytest.approx((trusted * (18 + 9 + 9 + 10) - 10) / 2)
    running.mark("pretrain: done in 180 s")
    log(running, *begun(GROUP))
    running.mark(f"{GROUP}: done in 90 s")
    running.mark(f"{SECOND}: started")
    assert running.seconds_left(NOON) >= 90  # as the fold before it took, at ten times the reckoned seconds


def test_what_failed_is_not_waited_for(running: progress.Progress) -> None:
    log(running, *begun("pretrain"), "Error in rule pretrain:")
    assert running.mark("pretrain: cell 3 failed").startswith("[1/6")
    assert running.seconds_left(NOON) == pytest.approx((20 + 9 + 9 + 10) / 2)


def test_no_time_is_said_where_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's speed is not that of the measured processor: time comes with the first training of each kind."""
    (tmp_path / "commands").mkdir()
    (tmp_path / "workflow.log").touch()
    run = progress.Progress(load_profile("smoke"), tmp_path, slots=1, gpus=True)
    assert run.mark("before the plan is there") == "before the plan is there"
    (tmp_path / "commands/plan.json").write_text(json.dumps({"prepare": False, "pretrain": True, "pretrain-id": True}))
    assert run.mark("pretrain: started") == "[1/3] pretrain: started"
    assert run.mark("pretrain: done in 240 s") == "[2/3, about 4 min left] pretrain: done in 240 s"


def test_lines_are_shown_one_by_one_and_empty_ones_not(
    running: progress.Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow._relay(["a\n", "\n", "b"], running)
    assert [line.rpartition("] ")[2] for line in capsys.readouterr().out.splitlines()] == ["a", "b"]


def test_jobs_do_not_wait_for_a_reader_who_has_gone(
    running: progress.Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", gone)
    lines = iter(["a\n", "b\n"])
    workflow._relay(lines, running)
    assert next(lines, None) is None  # all was taken from them


@pytest.mark.parametrize(
    ("cores", "threads", "devices", "slots"), [(8, 4, 0, 2), (2, 4, 0, 1), (8, 1, 3, 3), (2, 1, 3, 2)]
)
def test_how_many_trainings_run_at_a_time(cores: int, threads: int, devices: int, slots: int) -> None:
    config = load_profile("smoke", [f"run.threads={threads}"])
    options = SimpleNamespace(slurm="", cores=str(cores))
    assert workflow._slots(config, options, ["gpu"] * devices) == slots


def test_jobs_on_a_cluster_are_told_when_they_end(
    running: progress.Progress, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    polls = iter([None, 0])
    engine = SimpleNamespace(poll=lambda: next(polls), wait=lambda: 0)
    monkeypatch.setattr(workflow.time, "sleep", lambda _: log(running, *begun("pretrain"), *ended("pretrain", START)))
    assert workflow._wait(engine, running, elsewhere=True) == 0
    assert capsys.readouterr().out.startswith("[2/6")


def test_the_paper_on_a_processor_says_how_long_that_takes() -> None:
    assert "years on 2 core(s)" in dry_run.without_gpu(load_profile("paper"), 2)
    assert not dry_run.without_gpu(load_profile("phantom"), 2)
    assert not dry_run.without_gpu(
        load_profile("paper", ["model.feature=12", "profile=mine"]), 2
    )  # no costs were measured


def test_the_end_says_means_verdict_and_the_way_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixcl.results import findings

    monkeypatch.setattr(findings, "headline", lambda out, plan: ["Table 1", "the verdict"])
    monkeypatch.setenv("MIXCL_ACTIVATE", "source .venv/bin/activate")
    workflow._tell(CONFIG, tmp_path, SimpleNamespace(only="all", profile="smoke", settings=[]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Table 1", "the verdict"]
    assert "site/index.html" in lines[2]
    assert lines[3].endswith("source .venv/bin/activate")
