"""Cases in processes of their own: whatever happens to one, the others have their answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.apart import answer

from mixcl.data.workers import outcomes
from mixcl.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("workers", [1, 3])
def test_answers_come_in_order_whatever_happens_to_some(workers: int) -> None:
    lost = ["raise", "killed", "memory", "crash", "exit", "input"]
    jobs = [job for kind in lost for job in ((kind, "why"), ("good", kind))]
    answers = list(outcomes(answer, jobs, workers))
    assert answers[1::2] == [f"good {kind}" for kind in lost]
    kinds = [(error.kind, str(error)) for error in answers[::2]]
    assert [kind for kind, _ in kinds] == ["unexpected", "memory", "memory", "unexpected", "unexpected", "input"]
    said = ["ZeroDivisionError: why; apart.py", "was killed", "too little memory", "SIGSEGV", "exit code 3", "why"]
    for (_, text), part in zip(kinds, said, strict=True):
        assert part in text
        assert "\n" not in text


def test_what_is_printed_is_no_answer(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(outcomes(answer, [("print",), ("good",)], 1)) == ["print", "good"]
    assert capfd.readouterr() == ("", "")


def test_paths_are_those_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(outcomes(answer, [("good",)], 1))  # a worker from elsewhere waits
    monkeypatch.chdir(tmp_path)
    assert list(outcomes(answer, [("folder",)], 1)) == [str(tmp_path)]


def test_a_folder_that_is_gone_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(outcomes(answer, [("good",)], 1))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InputError, match="the folder this was started in is gone"):
        list(outcomes(answer, [("good",)], 1))


def test_a_fault_of_the_machine_ends_all_at_once(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match="the disk is full"):
        list(outcomes(answer, [("machine", "the disk is full"), ("sleep", str(tmp_path / "a"))], 2))
    assert time.monotonic() - start < 20


def test_a_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom helpers.apart import answer\nfrom mixcl.data.workers import outcomes, _Worker\n"
        "start = _Worker.__init__\n"
        "def told(self):\n    start(self)\n    print(self._process.pid, flush=True)\n"
        "_Worker.__init__ = told\n"
        f"list(outcomes(answer, [('sleep', {str(tmp_path / 'begun')!r})], 1))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    for _ in range(200):
        state = Path(f"/proc/{number}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the worker goes on")
