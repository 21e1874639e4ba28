"""What the jobs of a profile cost: seconds and memory of a step, of a test case, of a kernel, of a prepared case.

Every pre-training of the plan, and one fold of every cell, is run for a few steps as a process of its own, on the
profile's phantoms at its own sizes (a few cases a collection), or on the given data.

    python reproduce/bench/costs.py --profile paper --steps 2 --out reproduce/expected/costs-paper.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from sides import machine

from mixcl import plan
from mixcl.config import Experiment, load_profile

FEW = "{msd_liver: 1, msd_lung: 1, msd_pancreas: 1, nih_pancreas: 1, kits19: 1, msd_spleen: 5, btcv: 5}"


def main() -> None:
    """Measure, print a line a job, write the costs."""
    args = _arguments()
    few = [] if args.files else ["data.source=phantom", f"data.phantom.counts={FEW}"]
    settings = [*args.set, *few, f"pretrain.steps={args.steps}", f"finetune.steps={args.steps}", "grid.folds=[0]"]
    settings += ["pretrain.batch=1", "run.workers=0", f"run.threads={args.threads}", f"run.precision={args.precision}"]
    config = load_profile(args.profile, settings)
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        out = Path(folder)
        started = time.perf_counter()
        _mixcl(args.profile, settings, out, "prepare")
        cases = sum(1 for _ in (out / "data" / "store").glob("*/*/case.json"))
        prepare = (time.perf_counter() - started) / max(cases, 1)
        print(f"prepare: {prepare:.1f} s a case", flush=True)
        rows = [_train(args.profile, settings, out, job) for job in _jobs(config)]
        tested = [_evaluate(args.profile, settings, out, row["job"]) for row in rows if "task" in row][:2]
    costs = {
        **_summary(rows, config), "prepare_case": prepare, "case": median(tested), "kernel": _kernel(),
        "profile": args.profile, "device": args.device, "steps": args.steps, "machine": machine(args), "jobs": rows,
    }  # fmt: skip
    args.out.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")
    print({key: round(value, 2) for key, value in costs.items() if isinstance(value, float)})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="phantom")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="no")
    parser.add_argument("--device", default="CPU", help="name of what it ran on, as it is to be quoted")
    parser.add_argument("--files", action="store_true", help="the profile's own data rather than phantoms")
    parser.add_argument("--scratch", help="folder for the runs; they are deleted")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def _jobs(config: Experiment) -> list[plan.Job]:
    return [*plan.pretrainings(config), *plan.finetunings(config)]


def _mixcl(profile: str, settings: list[str], out: Path, *words: str) -> None:
    sets = [word for item in settings for word in ("--set", item)]
    command = [sys.executable, "-m", "mixcl", words[0], "--profile", profile, "--out", str(out), *sets, *words[1:]]
    subprocess.run(command, check=True, capture_output=True, text=True)


def _train(profile: str, settings: list[str], out: Path, job: plan.Job) -> dict[str, Any]:
    """Start one job for a few steps; its seconds a step, memory and losses."""
    own, p = [*settings, *job.settings], job.parameters
    if job.notebook == "10_pretrain":
        _mixcl(profile, own, out, "pretrain", "--job", job.name)
    else:
        init = ["--init", job.needs] if job.needs else []
        told = ["--task", p["TASK"], "--percent", str(p["PERCENT"]), "--fold", str(p["FOLD"]), "--arm", p["ARM"]]
        _mixcl(profile, own, out, "finetune", *told, *init)
    card = json.loads((out / "runs" / job.name / "run.json").read_text(encoding="utf-8"))
    section = "finetune" if "task" in card else "pretrain"
    samples = card["config"][section]["steps"] * card["config"][section]["batch"]
    row = {"job": job.name, "sample_s": card["seconds_of_last_part"] / samples, "memory_gb": card["memory_gb"]}
    print(f"{job.name}: {row['sample_s']:.2f} s a sample, {row['memory_gb']:.1f} GB", flush=True)
    return row | ({"task": card["task"]} if "task" in card else {})


def _evaluate(profile: str, settings: list[str], out: Path, job: str) -> float:
    """Seconds of one test case."""
    _mixcl(profile, settings, out, "evaluate", "--run", job)
    records = [json.loads(path.read_text()) for path in (out / "runs" / job / "evaluation").glob("*.json")]
    return float(median(record["seconds"] for record in records))


def _kernel() -> float:
    """Seconds until a process has imported what a notebook imports."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import mixcl.figures, mixcl.evaluate, mixcl.trainer"], check=True)
    return time.perf_counter() - started + 3.0  # papermill's own start


def _summary(rows: list[dict[str, Any]], config: Experiment) -> dict[str, float]:
    pre, fine = ([row for row in rows if ("task" in row) == wanted] for wanted in (False, True))
    return {
        "pretrain_sample": median(row["sample_s"] for row in pre),
        "finetune_sample": median(row["sample_s"] for row in fine),
        "pretrain_gb": max(row["memory_gb"] for row in pre),
        "finetune_gb": max(row["memory_gb"] for row in fine),
    }


if __name__ == "__main__":
    main()
