"""Cases in processes of their own: whatever becomes of one, a crash or a kill included, is told of that one alone.

A worker takes (folder to work in, function, arguments) from its standard input and answers on its standard output, one
after the other.  It ends with the process that started it, however that one ends, and waits for the next call of
`outcomes` until then, because starting one takes a second.
"""

import atexit
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from mixcl.errors import InputError

MEMORY = "too little memory for it; use fewer --workers, or a larger machine"


def outcomes(function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], workers: int) -> Iterator[Any]:
    """What ``function(*job)`` gives for each job, in their order.

    Parameters
    ----------
    function
        One that can be imported by its name; its arguments and what it gives can be pickled.
    workers
        Jobs at a time.

    Yields
    ------
    In the place of a job that gave nothing, an `InputError` that says why, of the kind ``unexpected`` or ``memory``;
    it does not name the job.

    Raises
    ------
    InputError
        That of a job of the kind ``machine``; then nothing more is begun, and what was begun is ended.
    """
    busy: set[_Worker] = set()
    stopped = threading.Event()

    def run(job: tuple[Any, ...]) -> Any:
        worker = _idle_worker() or _Worker()
        busy.add(worker)
        if stopped.is_set():  # meanwhile
            worker.end()
        answer = worker.call(function, job)
        busy.discard(worker)
        if worker.waits():
            _idle.append(worker)
        if isinstance(answer, InputError) and answer.kind == "machine":
            raise answer
        return answer

    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(run, jobs)
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in tuple(busy):
                worker.end()
            raise


class _Worker:
    """A process that waits for calls."""

    def __init__(self) -> None:
        places = os.pathsep.join(map(os.path.abspath, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from mixcl.data.workers import serve; serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": places},
        )  # fmt: skip

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump((os.getcwd(), function, arguments), self._process.stdin)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            try:
                return _ended(self._process.wait(60))  # it is ending already; a crash may take its time
            except subprocess.TimeoutExpired:
                self.end()
                return _ended(self._process.returncode)

    def waits(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


_idle: list[_Worker] = []
os.register_at_fork(after_in_child=_idle.clear)  # they are the parent's


@atexit.register
def _end_idle() -> None:
    while (worker := _idle_worker()) is not None:
        worker.end()


def _idle_worker() -> _Worker | None:
    while _idle:
        worker = _idle.pop()
        if worker.waits():
            return worker
    return None


def _ended(code: int) -> InputError:
    """Why there is no answer of a process that ended with this code."""
    if code == -signal.SIGKILL:
        return InputError(f"its process was killed, most likely by the system: {MEMORY}", "memory")
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return InputError(
        f"the process that read it crashed ({how}); look at its files, or convert them anew", "unexpected"
    )


def serve() -> None:
    """Answer calls until nobody can call any more."""
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # what libraries print would be taken for answers, or stand on the screen without a name
        os.dup2(nowhere, number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    inbox: queue.SimpleQueue[tuple[str, Callable[..., Any], tuple[Any, ...]]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(calls, inbox), daemon=True).start()
    while True:
        folder, function, arguments = inbox.get()
        os.chdir(folder)
        pickle.dump(_answer(function, arguments), answers)
        answers.flush()


def _listen(calls: BinaryIO, inbox: "queue.SimpleQueue[Any]") -> None:
    """Hand on the calls; the end of the process that makes them ends this one in the middle of its work."""
    try:
        while True:
            inbox.put(pickle.load(calls))
    finally:
        os._exit(0)


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
        return InputError(
            f"something unexpected ({words}; {Path(where.filename).name}, line {where.lineno})", "unexpected"
        )
