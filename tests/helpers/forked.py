"""Processes forked off one that has imported torch and MONAI, which takes each process of its own seconds."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

from torch.multiprocessing import start_processes


def run(work: Callable[..., None], count: int, *arguments: object) -> None:
    """``work(rank, *arguments)`` in ``count`` processes at once; what one of them raises is raised here."""
    multiprocessing.set_forkserver_preload(["mixcl.trainer"])
    start_processes(work, arguments, nprocs=count, start_method="forkserver")
