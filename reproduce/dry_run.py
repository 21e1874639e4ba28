"""What run_all.sh would do, and how long it would take: called by ``run_all.sh --dry-run``.

The jobs come from Snakemake's own plan.  Times are steps times the seconds a step measured by
``reproduce/bench/costs.py``, whose results are in ``reproduce/expected/costs-<profile>.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cost_model

from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.run.jobs import finetunings, kernels

EXPECTED = Path(__file__).resolve().parent / "expected"
KINDS = ("prepare", "pretrain", "finetune", "tables and figures")


def main() -> int:
    """Print the table; the engine's exit status when it has no plan."""
    profile, settings, cores, gpus, only, *engine = sys.argv[1:]
    config = load_profile(profile, json.loads(settings))
    done = subprocess.run([*engine, "--cores", "1", "--summary", "--", only], capture_output=True, text=True)
    if done.returncode:
        print(f"run_all.sh: the workflow has no plan: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return done.returncode
    pending = pending_rules(done.stdout)
    costs = read_costs(config)
    total = 0.0
    for kind in KINDS:
        rules = {rule: todo for rule, todo in pending.items() if kind_of(rule) == kind}
        seconds = sum(seconds_of(rule, config, costs) for rule, todo in rules.items() if todo) if costs else 0.0
        total += seconds
        runs = f"{sum(rules.values())} to do, {len(rules) - sum(rules.values())} done"
        print(f"  {kind:20} {runs:24}" + (f" about {told(seconds)} of one core" if seconds else ""))
        for rule, todo in rules.items():
            print(f"    {'to do' if todo else 'done ':6} {rule}")
    print(verdict(total, int(cores), int(gpus), costs))
    print(*cost_model.lines(config), sep="\n", end="\n" if cost_model.read_flop(config) else "")
    return 0


def pending_rules(summary: str) -> dict[str, bool]:
    """Whether a rule has anything to do, from ``snakemake --summary``."""
    pending: dict[str, bool] = {}
    for line in summary.splitlines()[1:]:
        _, _, rule, _, _, todo = line.split("\t")
        pending[rule] = pending.get(rule, False) or todo != "no update"
    return pending


def kind_of(rule: str) -> str:
    """Which line of the table a rule belongs to."""
    return next((kind for kind in KINDS[:3] if rule.startswith(kind)), KINDS[3])


def read_costs(config: Experiment) -> dict[str, Any]:
    """The measured costs of the profile, or nothing."""
    path = EXPECTED / f"costs-{config.profile}.json"
    costs: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return costs


def seconds_of(rule: str, config: Experiment, costs: dict[str, Any]) -> float:
    """Seconds of one core that a rule takes."""
    kind, jobs = kind_of(rule), kernels(finetunings(config), config.run.folds_a_kernel).get(rule, [])
    if kind == "prepare":
        phantom = config.data.phantom.counts if config.data.source == "phantom" else {}
        return float(costs["prepare_case"] * (sum(phantom.values()) or 836))  # 765 + 41 + 30, Sec. 3.1
    if kind == "pretrain":
        return float(costs["kernel"] + config.pretrain.steps * config.pretrain.batch * costs["pretrain_sample"])
    if kind == "finetune":
        cases = {"msd_spleen": 41, "btcv": 30} | dict(config.data.phantom.counts if phantoms(config) else {})
        tested = cases.get(jobs[0].parameters["TASK"], 0) / config.grid.n_folds
        one = config.finetune.steps * config.finetune.batch * costs["finetune_sample"]
        one += tested * costs["case"] + costs["copy"]
        return float(costs["kernel"] + len(jobs) * one)
    return float(costs["kernel"])


def phantoms(config: Experiment) -> bool:
    """Whether the counts of cases are the phantoms'."""
    return config.data.source == "phantom"


def verdict(total: float, cores: int, gpus: int, costs: dict[str, Any]) -> str:
    """The last line: wall time, or why there is none."""
    if not costs:
        return "  no costs were measured for this profile: python reproduce/bench/costs.py --help"
    if not total:
        return "  nothing is left to do"
    where = f"measured on {costs['machine']['cpu']}, {costs['device']}"
    if gpus and costs["device"] == "CPU":
        return f"  on one core {told(total)}; how much faster {gpus} GPU(s) are was not measured ({where})"
    return f"  all in all about {told(total / cores)} on {cores} core(s) ({where})"


def told(seconds: float) -> str:
    """A span of time in the unit that suits it.

    >>> told(90), told(7200), told(400000)
    ('2 min', '2.0 h', '4.6 days')
    """
    if seconds < 5400:
        return f"{max(seconds / 60, 1):.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


if __name__ == "__main__":
    sys.exit(main())
