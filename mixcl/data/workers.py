"""Cases in processes of their own: whatever becomes of one, a crash or a kill included, is told of that one alone.

A worker takes (folder to work in, function, arguments) and answers, one after the other.  It ends with the process that
started it, however that one ends, and waits for the next call of `outcomes` until then: starting one takes a second.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mixcl.errors import InputError

MEMORY = "too little memory for it; use fewer --workers, or a larger machine"


def outcomes(function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], workers: int) -> Iterator[Any]:
    """What ``function(*job)`` gives for each job, in their order, so many at a time.

    ``function`` can be imported by its name; its arguments and what it gives can be pickled.

    Of a job that gave nothing comes the `InputError` that it raised, or one of the kind ``unexpected`` or ``memory``
    that says why and does not name the job.  One of the kind ``machine`` is raised; then nothing more is begun, and
    what was begun is ended.
    """
    waiting = deque(enumerate(jobs))
    busy: dict[Any, tuple[int, _Worker]] = {}  # by channel
    answers: dict[int, Any] = {}
    try:
        for number in range(len(waiting)):
            while number not in answers:
                while waiting and len(busy) < workers:
                    index, job = waiting.popleft()
                    _idle[:] = [worker for worker in _idle if worker._process.poll() is None]  # none that has crashed
                    worker = _idle.pop() if _idle else _Worker()
                    busy[worker.channel] = index, worker
                    worker.begin(function, job)
                for channel in wait(list(busy)):
                    index, worker = busy.pop(channel)
                    answers[index] = answer = worker.answer()
                    _idle.append(worker)
                    if isinstance(answer, InputError) and answer.kind == "machine":
                        raise answer
            yield answers.pop(number)
    except BaseException:
        for _, worker in busy.values():
            worker.end()
        raise


class _Worker:
    """A process that waits for calls."""

    def __init__(self) -> None:
        self.channel, theirs = Pipe()
        places = os.pathsep.join(map(os.path.abspath, sys.path))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from mixcl.data.workers import serve; serve({theirs.fileno()})"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": places},
            )  # fmt: skip

    def begin(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            folder = os.getcwd()
        except FileNotFoundError:
            raise InputError("the folder this was started in is gone; start it in another one", "machine") from None
        with suppress(BrokenPipeError, ConnectionResetError):  # one that has ended is told by its answer
            self.channel.send((folder, function, arguments))

    def answer(self) -> Any:
        with suppress(EOFError, OSError):
            return self.channel.recv()
        with suppress(subprocess.TimeoutExpired):  # it is ending already; a crash may take its time
            self._process.wait(60)
        self.end()
        code = self._process.returncode
        if code == -signal.SIGKILL:
            return InputError(f"its process was killed, most likely by the system: {MEMORY}", "memory")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        text = f"the process that read it crashed ({how}); look at its files, or convert them anew"
        return InputError(text, "unexpected")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


_idle: list[_Worker] = []
os.register_at_fork(after_in_child=_idle.clear)  # they are the parent's


def serve(number: int) -> None:
    """Answer calls, which come over the descriptor ``number``, until nobody can call any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries print would stand on the screen without a name
    channel: Connection[Any, Any] = Connection(number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    inbox: queue.SimpleQueue[tuple[str, Callable[..., Any], tuple[Any, ...]]] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                inbox.put(channel.recv())
        finally:  # the caller has ended: so does this process, in the middle of its work
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        folder, function, arguments = inbox.get()
        os.chdir(folder)
        channel.send(_answer(function, arguments))


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except InputError as error:
        return error
    except MemoryError:
        return InputError(MEMORY, "memory")
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        words = " ".join(f"{type(error).__name__}: {error}".split())
        text = f"something unexpected ({words}; {Path(where.filename).name}, line {where.lineno})"
        return InputError(text, "unexpected")
