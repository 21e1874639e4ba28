"""One process at a time in a folder: who holds it is told, and whoever is dead holds nothing."""

import fcntl
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixcl.errors import InputError
from mixcl.files import writing

BEAT = 10.0  # seconds between two signs of life
PATIENCE = 45.0  # seconds without one after which a holder on another machine is dead
ENDING = 2.0  # seconds that the parts of a killed workflow need to end
_HELD: set[int] = set()  # open files of this process, none in one that was forked off


def _let_go_in_child() -> None:
    """A process that is forked off, such as one that cuts patches, must not hold the lock when its parent is dead."""
    while _HELD:
        with suppress(OSError):
            os.close(_HELD.pop())


os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path`` while the block lasts.

    On one machine the system decides: it lets go of a lock when the process that holds it ends, however it ends.  On
    file systems that several machines share, not all tell one of the other's locks; there a holder on another machine
    counts as alive as long as it gives a sign of life (the date of the file moves every 10 s), and as dead after 45 s
    without one, whatever the clocks say.  The file stays; ``what`` is locked, for the InputError that names
    who holds it.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    _HELD.add(number)
    try:
        _take(number, what)
        with writing(path):
            _write(number, {**_self(), "since": datetime.now(UTC).isoformat(timespec="seconds")})
        done = threading.Event()
        thread = threading.Thread(target=_beat, args=(number, done), daemon=True)
        try:
            thread.start()
            yield
        finally:
            done.set()
            if thread.is_alive():
                thread.join()
            if number in _HELD:
                with suppress(OSError):
                    _write(number, {})
    finally:
        if number in _HELD:
            _HELD.discard(number)
            os.close(number)


def is_held(path: Path) -> bool:
    """Whether a process of this machine holds the lock file ``path`` now."""
    with suppress(OSError), path.open("rb") as file:  # there may be none
        return locked(file.fileno(), fcntl.LOCK_SH) is False
    return False


def locked(number: int, how: int = fcntl.LOCK_EX) -> bool | None:
    """Whether the lock of an open file could be got at once; None where the file system knows no locks."""
    try:
        fcntl.flock(number, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _take(number: int, what: str) -> None:
    """Get the lock of an open file, or say who has it."""
    got, end = locked(number), time.monotonic() + ENDING
    while got is False and time.monotonic() < end:
        time.sleep(0.1)
        got = locked(number)
    owner, here = _owner(number), _self()
    left = got and (owner.get("boot") == here["boot"] or owner.get("host") == here["host"])  # the system told
    if got is False or (owner and not left and _lives(number, what, owner)):
        raise InputError(f"{what}: {_named(owner)} is at work here; wait for it to end, or stop it", "machine")


def _lives(number: int, what: str, owner: dict[str, Any]) -> bool:
    """Whether a holder elsewhere gives a sign of life within `PATIENCE`."""
    print(f"mixcl: {what}: {_named(owner)} has not left; {PATIENCE:.0f} s to see if it lives", file=sys.stderr)
    first, end = os.fstat(number).st_mtime_ns, time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(min(1.0, PATIENCE / 10))
        if os.fstat(number).st_mtime_ns != first:
            return True
    return False


def _beat(number: int, done: threading.Event) -> None:
    """Move the date of an open file now and then."""
    while not done.wait(BEAT):
        with suppress(OSError):
            os.utime(number)


def _self() -> dict[str, Any]:
    """This process, and the machine and its start, which containers on it share."""
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"host": platform.node(), "pid": os.getpid(), "boot": boot}


def _owner(number: int) -> dict[str, Any]:
    """Who wrote a lock's file, {} for nobody."""
    try:
        owner = json.loads(os.pread(number, 4096, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _write(number: int, owner: dict[str, Any]) -> None:
    text = json.dumps(owner).encode()
    os.pwrite(number, text, 0)
    os.ftruncate(number, len(text))


def _named(owner: dict[str, Any]) -> str:
    if not owner:
        return "another mixcl"
    return f"another mixcl (process {owner.get('pid')} on {owner.get('host')}, since {owner.get('since')})"
