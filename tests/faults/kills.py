"""Kill the long commands at random, again and again: each must end, when it is run again, as if nothing had been.

    python tests/faults/kills.py --kills 100 [--seed 0] [--out FOLDER]

A trial takes one of prepare, pretrain, finetune and evaluate of the profile smoke and ends it once or twice: by kill -9
at a random moment, by kill -9 in the middle of a write, rename or removal, or by SIGTERM.  Then the command runs to its
end, and every file that it leaves is compared with that of a run that nobody disturbed, drafts of killed writers
included.  The last line counts; the exit code is 1 when an ending was not equal.  Commands run in processes forked from
one that has imported everything, so that a trial takes seconds.  Every twentieth trial is one of the whole workflow,
with one fold of one task, which takes minutes: its group of processes is ended several times.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixcl import cli
from mixcl.run.checkpoint import read_weights

TUNED = "finetune-msd_spleen-p100-mixcl-f0-s0"
ROOT = Path(__file__).resolve().parents[2]
WORKFLOW, EVERY = "workflow", 20
STAGES = {
    "prepare": (["prepare"], "data"),
    "pretrain": (["pretrain"], "runs/pretrain"),
    "finetune": (["finetune", "--task", "msd_spleen", "--init", "pretrain"], f"runs/{TUNED}"),
    "evaluate": (["evaluate", "--run", TUNED], f"runs/{TUNED}"),
}
SETTINGS = ["pretrain.steps=6", "finetune.steps=6", "pretrain.log_every=4", "finetune.log_every=4"]
SMALL = [
    "data.finetune=[msd_spleen]", "grid.percents={msd_spleen: [100]}", "grid.ablation={}", "grid.variants={}",
    "grid.folds=[0]",
]  # fmt: skip
LOCKS = re.compile(r"\.(lock|.+\.lock|trainings|gpu-.+|snakemake|cache)")
TIMED = re.compile(
    r".+/(run\.json|report\.json|RUN\..+|index\.html|.+\.ipynb|\w+\.log|settings\.json)"
    r"|evaluation/.+\.json|commands/(plan\.json|.+\.sh)|notebooks/.+\.html"  # commands tell what was left, and where
)
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
USED = ("mixcl.data.phantom.collections", "mixcl.data.prepare.run", "mixcl.trainer", "mixcl.evaluate", "monai.inferers")
NEVER = 10**9


def words(stage: str, out: Path, store: Path) -> list[str]:
    """The command of a stage."""
    settings = [*SETTINGS, f"data.store={out / 'data/store' if stage == 'prepare' else store}"]
    given = [word for item in settings for word in ("--set", item)]
    return [*STAGES[stage][0], "--profile", "smoke", "--out", str(out), *given]


def start(arguments: list[str], out: Path, at: int = NEVER, after: float = 0.0) -> int:
    """A process that runs a command and kills itself ``after`` seconds from its ``at``-th change of a file in ``out``.

    It leaves the number of changes in ``out``.changes and what it said in ``out``.log.
    """
    if (process := os.fork()) > 0:
        return process
    said = os.open(f"{out}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    seen = [0]

    def hook(event: str, given: tuple[Any, ...]) -> None:
        writes = event == "open" and bool((given[2] or 0) & (os.O_WRONLY | os.O_RDWR))
        if (writes or event in CHANGES) and str(given[0]).startswith(f"{out}{os.sep}"):
            seen[0] += 1
            if seen[0] == at:
                threading.Timer(after, os.kill, [os.getpid(), signal.SIGKILL]).start()

    sys.addaudithook(hook)
    code = 1
    try:
        cli.main(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        Path(f"{out}.changes").write_text(str(seen[0]))
        os._exit(code)


def start_workflow(out: Path) -> int:
    """A process that leads a group of its own and runs the workflow; what it says goes to ``out``.log."""
    given = [word for item in (*SETTINGS, *SMALL) for word in ("--set", item)]
    script = [str(ROOT / "reproduce" / "run_all.sh"), "--profile", "smoke", "--out", str(out), "--cores", "1"]
    with open(f"{out}.log", "ab") as log:
        return subprocess.Popen(["bash", *script, *given], stdout=log, stderr=log, start_new_session=True).pid


def ended(process: int) -> int:
    """The exit code of a process, below 0 for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def content(folder: Path) -> dict[str, str]:
    """Every file of a folder but locks and caches by its content; of what tells the time, that it is there."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        inside = path.relative_to(folder)
        if any(LOCKS.fullmatch(part) for part in inside.parts):
            continue
        if path.suffix == ".safetensors" and path.name[0] != ".":
            found[str(inside)] = read_weights(path)[1]["id"]
        elif TIMED.fullmatch(f"{path.parent.name}/{path.name}"):
            found[str(inside)] = "there"
        else:
            found[str(inside)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def whole(out: Path) -> dict[str, tuple[float, int, dict[str, str]]]:
    """Run all stages undisturbed: seconds, changes of files and ending of each; ``out``.before-<stage> lies ready."""
    stages = {}
    out.mkdir(parents=True)
    for stage, (_, result) in STAGES.items():
        shutil.copytree(out / "runs", f"{out}.before-{stage}/runs") if (out / "runs").is_dir() else None
        started = time.monotonic()
        code = ended(start(words(stage, out, out / "data/store"), out))
        if code:
            sys.exit(f"{stage} ended with {code}: {Path(f'{out}.log').read_text()}")
        changes = int(Path(f"{out}.changes").read_text())
        stages[stage] = time.monotonic() - started, changes, content(out / result)
    return stages


def whole_workflow(out: Path) -> tuple[float, dict[str, str]]:
    """Run the workflow undisturbed: seconds and ending."""
    started = time.monotonic()
    if code := ended(start_workflow(out)):
        sys.exit(f"{WORKFLOW} ended with {code}: {Path(f'{out}.log').read_text()}")
    return time.monotonic() - started, content(out)


def disturbed(arguments: list[str], out: Path, way: str, seconds: float, changes: int, chance: random.Random) -> bool:
    """Run a command and end it before its end; whether that came about."""
    if way == "write":
        at, after = chance.randint(1, changes), chance.choice([0.0, chance.uniform(0, 0.02)])
        return ended(start(arguments, out, at, after)) < 0
    process = start(arguments, out)
    time.sleep(chance.uniform(0, seconds))
    number = signal.SIGKILL if way == "kill" else signal.SIGTERM
    os.kill(process, number)  # also of one that has ended and waits to be asked
    code = ended(process)
    if code > 0 and code != 143:
        sys.exit(f"{arguments[0]} ended with {code} when asked to stop: {Path(f'{out}.log').read_text()}")
    return code != 0


def trial(stage: str, way: str, reference: Path, out: Path, measured: Any, chance: random.Random) -> tuple[int, str]:
    """Disturb a stage once or twice and let it end: how often it was ended, and what is not equal then."""
    seconds, changes, expected = measured
    if Path(f"{reference}.before-{stage}").is_dir():
        shutil.copytree(f"{reference}.before-{stage}", out)
    out.mkdir(parents=True, exist_ok=True)
    arguments = words(stage, out, reference / "data/store")
    kills = sum(disturbed(arguments, out, way, seconds, changes, chance) for _ in range(chance.randint(1, 2)))
    code = ended(start(arguments, out))
    if code:
        return kills, f"ended with {code}: {Path(f'{out}.log').read_text()[-2000:]}"
    return kills, unequal(content(out / STAGES[stage][1]), expected)


def workflow_trial(out: Path, seconds: float, expected: dict[str, str], chance: random.Random) -> tuple[int, str]:
    """End the workflow's group of processes up to five times, then let it end; as `trial`."""
    kills = 0
    for _ in range(chance.randint(3, 5)):
        process = start_workflow(out)
        time.sleep(chance.uniform(0, seconds / 2))
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        os.killpg(process, number)
        kills += ended(process) != 0
    if code := ended(start_workflow(out)):
        return kills, f"ended with {code}: {Path(f'{out}.log').read_text()[-2000:]}"
    return kills, unequal(content(out), expected)


def unequal(found: dict[str, str], expected: dict[str, str]) -> str:
    """Files that two endings do not share."""
    return ", ".join(sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)))


def main(say: Callable[[str], object] = print) -> int:
    """Trials until so many kills; 1 when an ending was not equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="where to work; default a temporary folder")
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="kills-")) if given.out is None else given.out.resolve()
    for name in USED:  # before processes are forked
        importlib.import_module(name)
    chance, kills, endings, lost = random.Random(given.seed), 0, 0, 0
    flow: tuple[float, dict[str, str]] | None = None
    stages = whole(place / "whole")
    while kills < given.kills:
        stage, way = chance.choice(list(STAGES)), chance.choice(["kill", "write", "write", "term"])
        out = place / f"trial-{endings}"
        if endings % EVERY == EVERY - 1:
            stage, way = WORKFLOW, "group"
            flow = flow or whole_workflow(place / WORKFLOW)
            killed, other = workflow_trial(out, *flow, chance)
        else:
            killed, other = trial(stage, way, place / "whole", out, stages[stage], chance)
        kills, endings, lost = kills + killed, endings + 1, lost + bool(other)
        say(f"{kills:4d}  {stage:8}  {way:5}  {'equal' if not other else f'NOT EQUAL: {other} (kept in {out})'}")
        if not other:
            shutil.rmtree(out)
    say(f"{kills} kills, {endings - lost} of {endings} endings equal")
    if not lost:
        shutil.rmtree(place)
    return int(lost > 0)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main())
