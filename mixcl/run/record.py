"""run.json of a run: what was run, with which settings, versions, commit and data; and whose folder it is."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from mixcl.config.settings import Experiment
from mixcl.errors import InputError


def provenance(config: Experiment, **more: object) -> dict[str, Any]:
    """What a reader needs to know about a result: profile, settings, versions, commit and machine.

    ``more`` adds what the caller alone knows, such as the data fingerprint and the seed.
    """
    packages = ("mixcl", "torch", "monai", "numpy", "scipy", "nibabel", "edt", "accelerate")
    return {
        "profile": config.profile,
        "commit": commit(),
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in packages}},
        "machine": {"system": platform.platform(), "cpus": os.cpu_count()},
        **more,
        "config": config.model_dump(mode="json"),
    }


def commit() -> str:
    """The commit the code is at, with ``+changes`` when tracked files differ from it, or ``unknown``."""
    here = Path(__file__).resolve().parents[2]
    if recorded := os.environ.get("MIXCL_COMMIT"):
        return recorded
    try:
        run = ["git", "-C", str(here)]
        head = subprocess.run([*run, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        diff = subprocess.run([*run, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if diff.stdout.strip() else "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


Restart = Literal["never", "changed", "always"]  # begin a run again: never, when its settings changed, always


def read_card(run: Path) -> dict[str, Any]:
    """run.json of a run: settings, seed, versions, commit, data, and what the job was."""
    try:
        card: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"{run}: no run of mixcl here (run.json is missing or broken); give the folder of one"
        ) from None
    return card


def _begin(folder: Path, decides: dict[str, Any], restart: Restart) -> None:
    """A run folder belongs to one experiment: begin it again if asked to, or say which setting differs."""
    path, different = folder / "run.json", None
    if restart != "always" and path.is_file():
        try:
            before = flat(json.loads(path.read_text(encoding="utf-8"))["decides"])
        except (ValueError, KeyError):
            raise InputError(f"{path}: not readable; start the run over with --restart") from None
        now = flat(json.loads(json.dumps(decides)))
        different = next((key for key in sorted(now.keys() | before.keys()) if now.get(key) != before.get(key)), None)
        if different and restart == "never":
            raise InputError(
                f"{folder}: was made with {different} = {before.get(different)!r}, not {now.get(different)!r}; "
                "choose another --out or start it over with --restart"
            )
    if restart == "always" or different:
        shutil.rmtree(folder, ignore_errors=True)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in values.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return result
