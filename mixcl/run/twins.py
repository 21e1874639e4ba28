"""Never train the same thing twice: a run of which another is the same takes over its weights.

Two jobs can be one training: shares of the labels that come to the same number of scans (5 % and 15 % of 6), or arms
that differ in nothing that their training looks at.  That shows only when a job begins and knows its scans and the
weights that it starts from, so it is settled there and not in the plan.  Whoever begins first trains; others wait for
it, by a lock that the system lets go of when its holder ends, and then copy.  A copy is a whole run: it is resumed,
evaluated, verified and removed like any other, and its card names the run it is the ``same_as``.
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
MEASURED = ("bits", "memory_gb", "weights", "metrics")  # of a training, beside its seconds


def content(card: Mapping[str, Any]) -> str:
    """SHA-256 of what decides the weights of the run that has this ``card``, whatever the run is called.

    That is all that it ``decides`` by but names.  How a length is said, in steps or in epochs, decides nothing beside
    the number of ``steps``; without weights to start from it does not matter which of them would be handed over; and a
    frozen encoder has no rate.

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
    for other in sorted(folder.parent.glob(f"*/{checkpoint.WEIGHTS}")):
        with suppress(InputError, KeyError, TypeError):  # damaged, or not a run: no twin
            theirs = read_card(other.parent)
            if content(theirs) != key:
                continue
            weights, description = checkpoint.read_weights(other)
            if description["id"] != theirs["weights"]:
                continue
            _copy(other.parent, folder)
            same = {"same_as": theirs.get("same_as", other.parent.name), "seconds_of_last_part": 0.0}
            write_card(folder, {**card, **{name: theirs[name] for name in MEASURED}, **same})
            checkpoint.finish(folder, weights, {**description, "job": folder.name})
            return


def _copy(run: Path, folder: Path) -> None:
    """Copy metrics and evaluated cases, which say themselves of which weights they are."""
    done = [path for kind in ("npz", "json") for path in (run / "evaluation").glob(f"[!.]*.{kind}")]
    for path in [run / "metrics.jsonl", *done]:  # a case's .json is its last, here as there
        with whole(folder / path.relative_to(run)) as draft:
            shutil.copyfile(path, draft)
