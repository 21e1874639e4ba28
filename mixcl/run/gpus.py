"""Which GPUs a program sees, and one of them for each job."""

import itertools
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixcl.lock import locked

NAMES = "MIXCL_GPUS"  # in the environment of a job: the devices to take one of, as CUDA_VISIBLE_DEVICES names each
LISTED = re.compile(r"^(?P<part>[ \t]*)(?:GPU|MIG)\b.*\(UUID: (?P<uuid>[^)\s]+)\)", re.MULTILINE)


def listed() -> str:
    """What ``nvidia-smi --list-gpus`` prints on this machine, or nothing."""
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout


def visible(listing: str, chosen: str | None) -> list[str]:
    """The devices that a program started here would see, as CUDA_VISIBLE_DEVICES names each.

    ``listing`` is what `listed` gives: a line a GPU and, indented below it, one an instance of MIG.  ``chosen`` is the
    user's CUDA_VISIBLE_DEVICES; as in CUDA, what stands behind a number or UUID that is not there does not count.

    >>> one = "GPU 0: A (UUID: GPU-a)\\nGPU 1: A (UUID: GPU-b)\\n  MIG 1g Device 0: (UUID: MIG-c)\\n"
    >>> visible(one, None), visible(one, "1,0"), visible(one, "GPU-a,7,0"), visible(one, "-1")
    (['GPU-a', 'MIG-c'], ['1', '0'], ['GPU-a'], [])
    """
    gpus: list[list[str]] = []  # of each GPU its own UUID and those of its instances
    for match in LISTED.finditer(listing):
        if not match["part"]:
            gpus.append([])
        gpus[-1].append(match["uuid"])
    if chosen is None:
        return [uuid for gpu in gpus for uuid in (gpu[1:] or gpu)]
    known = [uuid for gpu in gpus for uuid in gpu]

    def there(name: str) -> bool:
        if name.isdecimal():
            return int(name) < len(gpus)
        return len(name) > 4 and any(uuid.startswith(name) for uuid in known)

    names = (name.strip() for name in chosen.split(","))
    return list(dict.fromkeys(itertools.takewhile(there, names)))


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold one of the devices that `NAMES` names and no other job of ``out`` holds; nothing where it names none.

    CUDA_VISIBLE_DEVICES names it then, for this process and its children.
    """
    names = [name for name in os.environ.get(NAMES, "").split(",") if name]
    if not names:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    while True:
        for name in names:
            with (out / f".gpu-{re.sub(r'[^A-Za-z0-9-]', '_', name)}").open("w") as lock:
                got = locked(lock.fileno())
                if got is False:
                    continue
                by_chance = names[os.getpid() % len(names)]  # where the file system knows no locks
                os.environ["CUDA_VISIBLE_DEVICES"] = name if got else by_chance
                yield
                return
        time.sleep(1)
