"""Never train the same thing twice: a run of which another is the same takes over its weights.

Shares of the labels may come to the same scans (5 % and 15 % of 6), and arms may differ in nothing that their training
looks at; that shows when a job begins.  Whoever begins first trains; others wait, by a lock that ends with its holder,
and then copy.  A copy is a whole run, whose card names the run that it is the ``same_as``.
"""

import fcntl
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from mixcl.config.settings import LENGTHS, TRAININGS
from mixcl.errors import InputError
from mixcl.files import whole, writing
from mixcl.run import checkpoint
from mixcl.run.record import read_card, write_card

NAMES = ("percent", "fold", "arm", "seed", "n_folds")  # of a job; what follows from them is among what decides
MEASURED = ("bits", "memory_gb", "weights", "metrics", "code", "commit", "versions", "machine")  # of a training


def content(card: Mapping[str, Any]) -> str:
    """SHA-256 of what decides the weights of the run that has this ``card``, whatever the run is called.

    Names decide nothing; nor does, beside the number of ``steps``, how a length is said, in steps or in epochs; nor
    which weights are handed over where there are none; nor the rate of a frozen encoder.

    >>> content({"decides": {"arm": "id", "start": 1}}) == content({"decides": {"arm": "scratch", "start": 1}})
    True
    """
    kept = {name: value for name, value in card["decides"].items() if name not in NAMES}
    for name in set(TRAININGS) & kept.keys():
        idle = set(LENGTHS)
        idle |= {"transfer"} if kept.get("init") == "none" else set()
        idle |= {"encoder_rate"} if kept[name].get("freeze") else set()
        kept[name] = {key: value for key, value in kept[name].items() if key not in idle}
    return hashlib.sha256(json.dumps([kept, card.get("steps")], sort_keys=True).encode()).hexdigest()


@contextmanager
def once(folder: Path, card: Mapping[str, Any]) -> Iterator[None]:
    """Keep others from training what the run in ``folder`` trains; take over what one of them has finished."""
    key = content(card)
    with _lock(folder.parent / ".trainings", int(key[:15], 16), folder.name):
        if not (folder / checkpoint.WEIGHTS).is_file():
            _take_over(folder, card, key)
        yield


@contextmanager
def shared(accelerator: Accelerator, folder: Path, card: Mapping[str, Any], wanted: bool) -> Iterator[None]:
    """`once` for several ranks, of which the first sees to it; nothing is taken over unless it is ``wanted``."""
    with once(folder, card) if wanted and accelerator.is_main_process else nullcontext():
        accelerator.wait_for_everyone()
        yield


@contextmanager
def _lock(path: Path, place: int, job: str) -> Iterator[None]:
    """Hold one byte of a file, a place for every training; where the file system knows no locks, nothing is held."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        with suppress(OSError):
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except (BlockingIOError, PermissionError):
                print(f"mixcl: {job}: waits for another run, which trains the same", file=sys.stderr)
                fcntl.lockf(file, fcntl.LOCK_EX, 1, place)
        yield


def _take_over(folder: Path, card: Mapping[str, Any], key: str) -> None:
    """Copy weights, metrics and evaluation of a finished run with the same content, if there is one that is whole."""
    for other in sorted(folder.parent.glob(f"[!.]*/{checkpoint.WEIGHTS}")):
        with suppress(InputError, KeyError, TypeError):  # damaged, or not a run: no twin
            theirs = read_card(other.parent)
            if content(theirs) != key:
                continue
            weights, description = checkpoint.read_weights(other)
            if description["id"] != theirs["weights"]:
                continue
            done = [path for kind in ("npz", "json") for path in other.parent.glob(f"evaluation/[!.]*.{kind}")]
            for path in [other.with_name("metrics.jsonl"), *done]:  # a case's .json is its last, here as there
                with whole(folder / path.relative_to(other.parent)) as draft:
                    shutil.copyfile(path, draft)
            same = {"same_as": theirs.get("same_as", other.parent.name), "seconds_of_last_part": 0.0}
            write_card(folder, {**card, **{name: theirs[name] for name in MEASURED if name in theirs}, **same})
            checkpoint.finish(folder, weights, {**description, "job": folder.name})
            return
