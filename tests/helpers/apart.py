"""What can happen in a process of its own, for the tests of the workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mixcl.config.settings import Collection
from mixcl.data.check.run import check_case
from mixcl.data.prepare.case import Job, prepare_case
from mixcl.errors import InputError


def answer(kind: str, text: str = "") -> object:
    """Do what ``kind`` says."""
    if kind == "print":
        print("this is no answer", flush=True)
        os.write(2, b"nor is this\n")
    elif kind == "raise":
        raise ZeroDivisionError(text)
    elif kind == "memory":
        return np.empty(2**62, np.uint8)
    elif kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "exit":
        sys.exit(3)
    elif kind in ("input", "machine"):
        raise InputError(text, kind)
    elif kind == "folder":
        return os.getcwd()
    elif kind == "sleep":
        Path(text).touch()
        time.sleep(60)
    return f"{kind} {text}".strip()


def check_or_end(name: str, collection: Collection, case: str, *rest: Any) -> object:
    """Check a case, but for those whose name says what happens instead."""
    return check_case(name, collection, case, *rest) if case == "good" else answer(case)


def prepare_or_end(job: Job) -> object:
    """Prepare a case, but for those whose name says what happens instead."""
    return prepare_case(job) if job.case == "good" else answer(job.case)
