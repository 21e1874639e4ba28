"""The environment of a user in whose shell everything that could leak into a run has been set."""

from __future__ import annotations

import json
import os
from pathlib import Path

LOUD = "raise SystemExit('read what is the user\\'s')\n"


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def kernel(folder: Path) -> str:
    """A JUPYTER_PATH in which another program is called python3."""
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "theirs", "language": "python"}
    write(folder / "kernels" / "python3" / "kernel.json", json.dumps(spec))
    return str(folder)


def environment(folder: Path) -> dict[str, str]:
    """Each of these once broke a run or got into its numbers; ``folder`` holds what they point to."""
    write(folder / "cdpath" / "reproduce" / "here", "")
    write(folder / "snakemake" / "config.yaml", "dry-run: true\n")
    write(folder / "ipython" / "profile_default" / "startup" / "00.py", LOUD)
    write(folder / "ipython" / "profile_default" / "ipython_kernel_config.py", LOUD)
    write(folder / "pythonpath" / "papermill.py", LOUD)
    write(folder / "pythonpath" / "sitecustomize.py", LOUD)
    nowhere = "/dev/null/nowhere"
    return os.environ | {
        "CDPATH": str(folder / "cdpath"),
        "BASH_ENV": write(folder / "bashenv", 'cd() { builtin cd "$@" && echo here; }\nexport -f cd\n'),
        "SNAKEMAKE_PROFILE": str(folder / "snakemake"),
        "JUPYTER_PATH": kernel(folder / "jupyter"),
        "JUPYTER_CONFIG_DIR": nowhere,
        "JUPYTER_RUNTIME_DIR": nowhere,
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONSTARTUP": write(folder / "startup.py", LOUD),
        "PYTHONPATH": str(folder / "pythonpath"),
        "PYTHONWARNINGS": "error",
        "PYTHONINSPECT": "1",
        "PYTHONOPTIMIZE": "2",
        "MATPLOTLIBRC": write(folder / "matplotlibrc", "image.origin: lower\ntext.usetex: True\n"),
        "MPLBACKEND": "TkAgg",
        "HOME": nowhere,
        "XDG_CACHE_HOME": nowhere,
        "XDG_CONFIG_HOME": nowhere,
        "MPLCONFIGDIR": nowhere,
        "TMPDIR": nowhere,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "POSIXLY_CORRECT": "1",
        "SHELLOPTS": "noclobber:noglob",
        "OMP_NUM_THREADS": "7",
        "OMP_THREAD_LIMIT": "7",
        "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
        "NPY_ENABLE_CPU_FEATURES": "AVX512F",
        "MKL_CBWR": "AUTO",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "5",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "GIT_DIR": nowhere,
        "CUDA_VISIBLE_DEVICES": "3",
    }
