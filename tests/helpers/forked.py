"""Processes forked off one that has imported torch and MONAI, which takes each process of its own seconds."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable

from torch.multiprocessing import start_processes

LONGEST = 900  # seconds


def run(work: Callable[..., None], count: int, *arguments: object) -> None:
    """``work(rank, *arguments)`` in ``count`` processes at once; what one of them raises is raised here."""
    multiprocessing.set_forkserver_preload(["mixcl.trainer"])
    context = start_processes(work, arguments, nprocs=count, start_method="forkserver", join=False)
    end = time.monotonic() + LONGEST
    while not context.join(1):
        if time.monotonic() > end:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f"{count} processes were not done in {LONGEST} s")
