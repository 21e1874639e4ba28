"""What `mixcl prepare` takes at the paper's settings: time, memory and disk of scans of 512 x 512 x 200 voxels.

Each number of workers prepares all scans in a process of its own into an empty store.  Processor time is told beside
wall time, as a machine may be busy with other work.  The totals for the paper's 765 + 41 + 30 scans assume that the
scans here are typical ones; the 210 of KiTS19 are as large on average.

    python reproduce/bench/prepare.py --work /tmp/scans --out prepare.json
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import scans
import sides
import yaml

ADOPT = 36  # PR_SET_CHILD_SUBREAPER of Linux
SCANS = {"pre-training": 765, "MSD Spleen": 41, "BTCV": 30}


def main() -> None:
    """Prepare with each number of workers, print a table, report."""
    parser = sides.arguments(__doc__, repeats=1)
    scans.options(parser, 4, "scans that are prepared")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    ctypes.CDLL(None).prctl(ADOPT, 1, 0, 0, 0)  # the workers, which end after the process that started them
    with scans.folder_of(args) as work:
        data = scans.write(work / "raw", args.volumes)
        raw = sum(path.stat().st_size for path in (work / "raw").rglob("c*.nii.gz")) / args.volumes
        profile = work / "bench.yaml"
        given = {name: data.model_dump(mode="json")[name] for name in ("root", "collections", "pretrain", "finetune")}
        profile.write_text(yaml.safe_dump({"extends": "paper", "data": given}), encoding="utf-8")
        found = {n: [_prepare(profile, work / "prepared", n, args.volumes) for _ in range(args.repeats)]
                 for n in args.workers}  # fmt: skip
    best = {n: min(runs, key=lambda run: run["seconds a scan"]) for n, runs in found.items()}
    disk, total = best[args.workers[0]]["megabytes a scan"], sum(SCANS.values())
    print(f"given: {raw / 1e6:.0f} MB a scan as .nii.gz, {total * raw / 1e9:.0f} GB for {total} scans")
    print(f"store: {disk:.1f} MB a scan, {total * disk / 1e3:.1f} GB for {total} scans; of which")
    print(", ".join(f"{name} ({n}) {n * disk / 1e3:.1f} GB" for name, n in SCANS.items()) + "\n")
    print(f"| workers | wall, s a scan | processor, s a scan | memory, GB | {total} scans, h |\n|---|---|---|---|---|")
    for n, run in best.items():
        wall, processor, memory, _ = run.values()
        print(f"| {n} | {wall:.2f} | {processor:.2f} | {memory:.2f} | {wall * total / 3600:.2f} |")
    sides.report("prepare", args, {}, shape=scans.SHAPE, spacing=scans.SPACING, raw_bytes=raw, runs=found)


def _prepare(profile: Path, out: Path, workers: int, volumes: int) -> dict[str, float]:
    """Prepare all scans anew; costs of one, without the start of Python."""
    own = [sys.executable, "-m", "mixcl", "prepare", "--profile", str(profile), "--out", str(out)]
    own += ["--workers", str(workers)]
    shutil.rmtree(out, ignore_errors=True)
    wall, processor, memory = _run(own)
    size = sum(path.stat().st_size for path in (out / "data" / "store").rglob("*") if path.is_file())
    idle_wall, idle_processor, _ = _run(own)  # everything is there already
    return {
        "seconds a scan": (wall - idle_wall) / volumes,
        "processor seconds a scan": (processor - idle_processor) / volumes,
        "peak gigabytes": memory,
        "megabytes a scan": size / volumes / 1e6,
    }


def _run(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds of a process, processor seconds of it and its workers, and peak GB of the workers together."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)}: failed; run it by hand to see why")
    workers = []
    with suppress(ChildProcessError):
        while True:
            workers.append(os.wait4(-1, 0)[2])
    processor = sum(each.ru_utime + each.ru_stime for each in (usage, *workers))
    return wall, processor, sum(each.ru_maxrss for each in workers) / 1e6


if __name__ == "__main__":
    main()
