"""Stops that are asked for: SIGTERM (a cluster's pre-emption, a container's end) and SIGINT (Ctrl-C)."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

GRACE = 25.0  # seconds from the signal until the process ends whatever it does; schedulers kill after 30
ASKED = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """The process was asked to stop and has left its work whole; ``code`` is the exit code, 143 or 130."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command goes on where it was")
        self.code = 128 + number


class Stop:
    """Whether a stop was asked for: ``number`` is that of the signal, or 0."""

    number = 0

    def ask(self, number: int, _: object = None) -> None:
        """Note the first signal; a second Ctrl-C does not wait."""
        if self.number and number == signal.SIGINT:
            raise Stopped(number)
        if not self.number:
            _say(f"mixcl: {signal.Signals(number).name}: stops at the next step\n")
        self.number = self.number or number


@contextmanager
def stopping() -> Iterator[Stop]:
    """Let the block end at a place of its own choice when a stop is asked for; raises `Stopped` at its end then."""
    stop = Stop()
    with handled(stop.ask):
        yield stop
    if stop.number:
        raise Stopped(stop.number)


@contextmanager
def leaving() -> Iterator[None]:
    """For a whole command: a stop raises `Stopped` where the process is, and `GRACE` later the process is gone.

    The latter also while it waits for another process or is in a long computation, where Python hears no signal.
    """
    if not _in_main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    done = threading.Event()
    thread = threading.Thread(target=_end_in_time, args=(reader, done), daemon=True)
    with handled(_leave):
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            done.set()
            os.write(writer, b"\0")
            thread.join()
            os.close(reader)
            os.close(writer)


def in_worker(_: int) -> None:
    """In a process that cuts patches: leave the stop to the one that trains, whose next step needs the patches.

    A scheduler or a terminal signals all processes of a job.  What the parent sends still ends this one.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _end_in_time(reader: int, done: threading.Event) -> None:
    """Read the numbers of signals as the system delivers them."""
    asked = 0
    while not asked and not done.is_set():
        asked = next((number for number in os.read(reader, 64) if number in ASKED), 0)
    if asked and not done.wait(GRACE):
        _say(f"mixcl: no end within {GRACE:.0f} s; what was saved before is kept\n")
        os._exit(128 + asked)


def _leave(number: int, _: object) -> None:
    raise Stopped(number)


@contextmanager
def handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Handle both signals while the block lasts; Python lets only the main thread do so."""
    if not _in_main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in ASKED}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _say(text: str) -> None:
    """From a signal's handler, where a stream may be in use."""
    with suppress(OSError):
        os.write(2, text.encode())
