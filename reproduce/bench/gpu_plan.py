"""What the parts of gpu_science.sh will take on a GPU: arithmetic, because no GPU has been measured.

    python reproduce/bench/gpu_plan.py PROFILE [PRICE] [KEY=VALUE...]
    python reproduce/bench/gpu_plan.py --pretrain DIR    # the setting for a folder that lacks collections, or nothing

Samples of the whole plan times the floating-point work of one (expected/flop-paper.json, by flop.py), at speeds that
bracket what a GPU keeps up; PRICE is what an hour costs, in whatever money.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dry_run import EXPECTED, EXTENT, cases, samples

from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.data.registry import collections, folder
from mixcl.errors import InputError
from mixcl.run.jobs import finetunings, pretrainings

FLOP = json.loads((EXPECTED / "flop-paper.json").read_text(encoding="utf-8"))
SPEEDS = (10e12, 60e12)  # FLOP a second that a GPU may keep up


def work(config: Experiment) -> dict[str, float]:
    """FLOP of the pre-trainings, the fine-tunings and the predictions of a plan at the paper's network."""
    before = sum(samples(job, config) for job in pretrainings(config))
    after = [(job, samples(job, config)) for job in finetunings(config)]
    step = config.model.patch * (1 - config.evaluate.overlap)
    extent = EXTENT[config.data.source]
    windows = math.prod(
        math.ceil(max(mm / edge - config.model.patch, 0) / step) + 1
        for mm, edge in zip(extent, config.data.spacing, strict=True)
    )
    tested = sum(cases(config)[job.parameters["TASK"]] / config.grid.n_folds for job, _ in after)
    return {
        "pre-training": before * FLOP["pretrain_sample"],
        "fine-tuning": sum(number for _, number in after) * FLOP["finetune_sample"],
        "prediction": tested * windows * FLOP["window"],
    }


def pretraining(root: Path) -> str:
    """The setting that pre-trains on those of the collections that are in a folder, empty where all or none are."""
    data = load_profile("fair-size").data
    known = collections(data)
    there = [name for name in data.pretrain if folder(known[name], root).is_dir()]
    return f"data.pretrain=[{', '.join(there)}]" if there and len(there) < len(data.pretrain) else ""


def main(arguments: list[str]) -> int:
    """Print hours and money."""
    if arguments[:1] == ["--pretrain"]:
        print(pretraining(Path(*arguments[1:])))
        return 0
    if not arguments:
        print("gpu_plan.py: name a profile", file=sys.stderr)
        return 2
    name, price, *settings = [*arguments, "0"] if len(arguments) == 1 else arguments
    try:
        config, cost = load_profile(name, settings), float(price)
    except (InputError, ValueError) as error:
        print(f"gpu_plan.py: {error}", file=sys.stderr)
        return 2
    if any(getattr(config.model, part) != FLOP["model"][part] for part in ("patch", "feature", "hidden")):
        print(f"gpu_plan.py: {name} is not of the paper's size, of which alone the work is known", file=sys.stderr)
        return 2
    parts = work(config)
    total = sum(parts.values())
    listed = ", ".join(f"{part} {value / 1e15:.0f}" for part, value in parts.items())
    slow, fast = (total / speed / 3600 for speed in SPEEDS)
    print(f"{config.profile}: {total / 1e15:.0f} petaFLOP ({listed}); arithmetic, nothing measured on a GPU")
    money = f", {fast * cost:.0f} to {slow * cost:.0f} at {cost:g} an hour" if cost else ""
    at = f"{SPEEDS[1] / 1e12:.0f} to {SPEEDS[0] / 1e12:.0f} TFLOP/s"
    print(f"{config.profile}: {fast:.1f} to {slow:.1f} GPU hours at {at}{money}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
