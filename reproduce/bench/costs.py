r"""What the jobs of a profile cost, read from a run of it: time and memory of a step, a test case, a notebook.

A run of a few steps will do, since costs are per step.  `run_all.sh --dry-run` reads the result.

    python reproduce/bench/costs.py results/phantom --out reproduce/expected/costs-phantom.json
    bash reproduce/run_all.sh --profile paper --only table1 --out /tmp/few --set run.threads=1 \
        --set data.source=phantom --set 'data.phantom.counts={msd_pancreas: 2, msd_spleen: 5}' \
        --set 'data.pretrain=[msd_pancreas]' --set 'data.finetune=[msd_spleen]' --set 'grid.folds=[0]' \
        --set 'grid.percents={msd_spleen: [100]}' --set 'grid.ablation={}' --set finetune.steps=4 \
        --set pretrain.steps=4 --set pretrain.batch=1 --set pretrain.gradients_every=0
    python reproduce/bench/costs.py /tmp/few --out reproduce/expected/costs-paper.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from sides import machine


def main() -> None:
    """Read the cards of all runs, time a kernel's imports, write the costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    paths = sorted((args.results / "runs").glob("*/run.json"))
    jobs = [_job(path) for path in paths if "same_as" not in json.loads(path.read_text(encoding="utf-8"))]
    pre, fine = ([job for job in jobs if ("case" in job) == wanted] for wanted in (False, True))
    report = json.loads((args.results / "data" / "report.json").read_text(encoding="utf-8"))
    costs = {
        "profile": json.loads(paths[0].read_text(encoding="utf-8"))["profile"],
        "device": jobs[0]["device"],
        "pretrain_sample": median(job["sample"] for job in pre),
        "finetune_sample": median(job["sample"] for job in fine),
        "case": median(job["case"] for job in fine),
        "pretrain_gb": max(job["gb"] for job in pre),
        "finetune_gb": max(job["gb"] for job in fine),
        "prepare_case": report["seconds"] / sum(one["found"] for one in report["collections"]),
        "copy": median(job["copy"] for job in fine),
        "kernel": _kernel(),
        "jobs": len(jobs),
        "machine": machine(args.threads),
    }
    costs = {key: round(value, 3) if isinstance(value, float) else value for key, value in costs.items()}
    args.out.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(costs, indent=1))


def _job(path: Path) -> dict[str, Any]:
    """Seconds a sample and a test case, memory and device of one run."""
    card = json.loads(path.read_text(encoding="utf-8"))
    section = card["config"]["finetune" if "task" in card else "pretrain"]
    cases = [json.loads(p.read_text(encoding="utf-8"))["seconds"] for p in path.parent.glob("evaluation/*.json")]
    device, book = card["bits"]["device"], next(path.parent.glob("*.ipynb"))
    whole = json.loads(book.read_text(encoding="utf-8"))["metadata"]["papermill"]["duration"]
    return {
        "sample": card["seconds_of_last_part"] / (card["steps_of_last_part"] * section["batch"]),
        "gb": card["memory_gb"],
        "copy": max(whole - card["seconds_of_last_part"] - sum(cases), 0.0),
        "device": "CPU" if device == "cpu" else device,
        **({"case": median(cases) if cases else 0.0} if "task" in card else {}),
    }


def _kernel() -> float:
    """Seconds until a process has imported what a notebook imports, and papermill has started it."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import papermill"], check=True)
    subprocess.run(
        [sys.executable, "-c", "import mixcl.figures.qualitative, mixcl.evaluate, mixcl.trainer, monai"], check=True
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
