"""A folder has one owner at a time; the dead own nothing."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mixcl import lock
from mixcl.errors import InputError

HOLDER = """
import os, sys, time
from pathlib import Path
from mixcl.lock import held
with held(Path(sys.argv[1]), "runs/pretrain"):
    if "child" in sys.argv and os.fork() == 0:
        time.sleep(60)
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock, with a forked child where the test asks for one."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "lock"), getattr(request, "param", "alone")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{process.pid}\n"
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def take(path: Path) -> None:
    with lock.held(path, "runs/pretrain"):
        pass


def test_a_second_process_is_told_who_is_at_work(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    sentence = rf"runs/pretrain: another mixcl \(process {holder.pid} on .+, since 20.+\) is at work here; wait"
    with pytest.raises(InputError, match=sentence) as raised:
        take(tmp_path / "lock")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("holder", ["alone", "child"], indirect=True)
def test_what_a_dead_process_held_is_free_at_once(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """Although a process that it forked lives on."""
    holder.kill()
    holder.wait()
    started = time.monotonic()
    take(tmp_path / "lock")
    assert time.monotonic() - started < 5


def test_a_second_thread_of_the_same_process_is_kept_out(tmp_path: Path) -> None:
    with lock.held(tmp_path / "lock", "here"), pytest.raises(InputError, match=f"process {os.getpid()}"):
        take(tmp_path / "lock")
    take(tmp_path / "lock")


def test_an_error_within_is_no_fault_of_the_lock_and_frees_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^mine$"), lock.held(tmp_path / "lock", "here"):
        raise OSError("mine")
    take(tmp_path / "lock")


def elsewhere(path: Path) -> None:
    """A holder on another machine, whose lock this file system does not tell."""
    path.write_text(json.dumps({"host": "node7", "pid": 1, "boot": "another", "since": "2026-11-29T10:00:00+00:00"}))


def test_a_holder_elsewhere_that_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, done = tmp_path / "lock", threading.Event()
    elsewhere(path)
    monkeypatch.setattr(lock, "PATIENCE", 5.0)
    beats = threading.Thread(target=lambda: [os.utime(path) for _ in range(200) if not done.wait(0.05)])
    beats.start()
    try:
        with pytest.raises(InputError, match=r"process 1 on node7, since 2026-11-29T10:00:00\+00:00"):
            take(path)
    finally:
        done.set()
        beats.join()
    assert "5 s to see if it lives" in capsys.readouterr().err


def test_a_holder_elsewhere_that_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path / "lock")
    monkeypatch.setattr(lock, "PATIENCE", 0.5)
    take(tmp_path / "lock")
    monkeypatch.setattr(lock, "PATIENCE", 60.0)
    take(tmp_path / "lock")  # it left as one does, so nobody has to wait


def test_a_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    monkeypatch.setattr(lock, "BEAT", 0.05)
    with lock.held(path, "here"):
        first, end = path.stat().st_mtime_ns, time.monotonic() + 10
        while path.stat().st_mtime_ns == first and time.monotonic() < end:
            time.sleep(0.02)
        assert path.stat().st_mtime_ns != first


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life decide there, of a holder on this machine, too."""

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "PATIENCE", 5.0)
    with lock.held(tmp_path / "lock", "here"), pytest.raises(InputError, match="is at work here"):
        take(tmp_path / "lock")
    take(tmp_path / "lock")


@pytest.mark.parametrize("text", ["", "{", "[]", "\0\0"])
def test_a_torn_lock_file_is_nobodys(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    take(tmp_path / "lock")
