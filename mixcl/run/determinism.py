"""What decides the bits of a run: the code, versions, instruction set, threads, device.

``reproduce/bits.sh`` pins it for runs on a CPU; ``python -m mixcl.run.determinism`` says in one line what is in force.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from mixcl.run import jobs

CODE = Path(__file__).resolve().parents[1]
NOTEBOOKS = CODE.parent / "notebooks"
EXECUTED = ("10_pretrain", "11_finetune", *jobs.NOTEBOOKS.values())  # by a run
PACKAGES = ("torch", "monai", "numpy", "scipy", "edt", "nibabel", "pandas", "accelerate")
PINS = {  # as reproduce/bits.sh exports them
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}


def environment(device: str = "cpu", threads: int | None = None, **more: object) -> dict[str, Any]:
    """What decides the bits in this process, on a torch device and with so many threads; None is what torch is set to.

    ``more`` is what else the caller knows to decide them.  Versions are the public ones: builds of one torch release
    agree on a CPU.  A GPU goes by its name.
    """
    import torch

    return {
        "versions": {package: metadata.version(package).partition("+")[0] for package in PACKAGES},
        "architecture": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "pins": {key: os.environ.get(key, "") for key in PINS},
        "threads": threads or torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        **more,
    }


def unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """In what two environments differ, as words; empty when they promise the same bits.

    What an older version did not write down is not held against it.

    >>> unlike({"threads": 1, "device": "cpu"}, {"threads": 2, "device": "cpu"})
    ['threads 1, not 2']
    """
    messages = []
    for key in sorted(first.keys() & second.keys() or first.keys() | second.keys()):
        mine, theirs = first.get(key), second.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            messages += unlike(mine, theirs)
        elif mine != theirs:
            is_now, wanted = ("not set" if value in (None, "") else value for value in (mine, theirs))
            messages.append(f"{key} {is_now}, not {wanted}")
    return messages


def unpinned() -> list[str]:
    """Why a run on this machine's CPU would not promise the bits of the committed values; empty when it does."""
    here = environment(threads=1)
    pins = ((key, here["pins"][key], value) for key, value in PINS.items())
    messages = [f"{key} is {now or 'not set'}, not {value}" for key, now, value in pins if now != value]
    if here["architecture"] != "x86_64":
        messages.append(f"the processor is {here['architecture']}, not x86_64")
    elif here["instructions"] != "AVX2":
        messages.append(f"torch uses {here['instructions']} instructions, not AVX2")
    return messages


@cache
def code_id() -> str:
    """The name of the code that runs, by its content: a commit tells nothing of what was changed since.

    SHA-256 over the package's own files and the code cells of the notebooks that a run executes, where they are, taken
    once a process, at the first call.  Outputs and texts of notebooks, profiles and caches do not count.
    """
    return code_of(CODE, NOTEBOOKS)


def code_of(package: Path, notebooks: Path) -> str:
    """`code_id` of a package's folder and of a folder of notebooks, which may not be there."""
    contents: dict[str, bytes] = {}
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package)
        own = name.parts[0] != "profiles" and not any(part.startswith(".") for part in name.parts)  # wheels carry those
        if own and path.suffix in (".py", ".yaml", ".html", ".txt"):
            contents[name.as_posix()] = path.read_bytes()
    for notebook in EXECUTED:
        path = notebooks / f"{notebook}.ipynb"
        if path.is_file():
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
            contents[notebook] = json.dumps(code).encode()
    parts = (json.dumps([name, hashlib.sha256(content).hexdigest()]) for name, content in contents.items())
    return hashlib.sha256("".join(parts).encode()).hexdigest()


if __name__ == "__main__":
    reasons = unpinned()
    if reasons:
        print(f"mixcl: bits are not pinned: {'; '.join(reasons)}; numbers may differ in their last digits")
    else:
        print("mixcl: bits are pinned: AVX2, one thread a job; runs on a CPU repeat to the bit")
