"""How far the workflow is, before each line of its jobs: ``[37/118, about 9 min left] pretrain: step 40 of 60``.

Jobs are counted, one a training, done earlier or now, of all that the plan has (OUT/commands/plan.json, which the
Snakefile writes).  Time is reckoned with the work that each job is (:mod:`dry_run`), at the speed that this run has
measured for its kind of job, and where it has not yet, at the measured costs of the profile on a CPU; where neither is
known no time is said.  When a job began and ended is read in the engine's log.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import defaultdict
from pathlib import Path

import dry_run

from mixcl.config.settings import Experiment
from mixcl.run import jobs

RULES = {notebook: rule for rule, notebook in jobs.NOTEBOOKS.items()}  # by what a notebook says of itself
DONE = re.compile(r"(\S+): done in (\d+) s")
EVENT = re.compile(r"\[(?P<date>\w{3} .+ \d{4})\]|(?:local)?rule (?P<begun>\S+):|Error in rule (?P<failed>\S+):"
                   r"|Finished jobid: \d+ \(Rule: (?P<ended>\S+)\)")  # fmt: skip
UNITS = defaultdict(lambda: 1.0)  # costs where none were measured: they tell jobs of a kind apart by their work
TRAININGS = dry_run.KINDS[1:3]
TRUST = 60.0  # seconds that measured costs count for, against what this run has measured for jobs of another kind


class Progress:
    """What is done of the plan in ``out``, and how long the rest takes, ``slots`` jobs at a time.

    Of jobs on ``gpus`` no costs are known.
    """

    def __init__(self, config: Experiment, out: Path, slots: int, gpus: bool) -> None:
        self.config, self.slots, self.plan = config, slots, out / "commands" / "plan.json"
        costs = {} if gpus else dry_run.read_costs(config)
        self.known, self.costs = bool(costs), costs or UNITS
        self.log = out / "workflow.log"
        self.at = self.log.stat().st_size if self.log.is_file() else 0
        self.plan.unlink(missing_ok=True)
        self.lock = threading.Lock()
        self.total, self.date = 0, time.time()
        self.left: dict[str, float] = {}  # work by job
        self.rule: dict[str, list[str]] = {}  # jobs of a rule
        self.since: dict[str, float] = {}  # of the job at work, by rule
        self.speed: dict[str, list[float]] = {}  # seconds and work of what has ended, by kind

    def mark(self, line: str) -> str:
        """The line of a job, with what is done and left before it."""
        self.ended_rules()
        if (done := DONE.fullmatch(line)) and (job := RULES.get(done[1], done[1])) in self.left:
            self._end(job, float(done[2]))
        return f"{self}{line}"

    def ended_rules(self) -> list[str]:
        """Read on in the engine's log: which rules have ended since it was last read."""
        with self.lock:
            if not self.total and self.plan.is_file():
                self._read_plan()
            with self.log.open("rb") as file:
                file.seek(self.at)
                text = file.read()
            text = text[: text.rfind(b"\n") + 1]
            self.at += len(text)
            events = [event for line in text.decode(errors="replace").splitlines() if (event := EVENT.fullmatch(line))]
            for event in events:
                self._note(**event.groupdict())
            return [event["ended"] for event in events if event["ended"]]

    def __str__(self) -> str:
        if not self.total:
            return ""
        seconds = self.seconds_left(time.time())
        left = f", about {dry_run.span(seconds)} left" if seconds else ""
        return f"[{self.total - len(self.left)}/{self.total}{left}] "

    def seconds_left(self, now: float) -> float:
        """Seconds from ``now`` until all is done; 0 where it is done, or nobody knows how long a training takes."""
        rest = {}
        for job, work in self.left.items():
            kind = dry_run.kind_of(job)
            speed = self._speed(kind)
            if speed is None and kind in TRAININGS:
                return 0.0
            rest[job] = work * (speed or 0.0)
        for rule, since in self.since.items():
            if at_work := [job for job in self.rule[rule] if job in rest]:
                rest[at_work[0]] = max(rest[at_work[0]] - (now - since), 0.0)
        return max(sum(rest.values()) / self.slots, *rest.values(), 0.0)

    def _read_plan(self) -> None:
        groups = jobs.kernels(self.config)
        for rule, pending in json.loads(self.plan.read_text(encoding="utf-8")).items():
            self.rule[rule] = [job.name for job in groups.get(rule, ())] or [rule]
            self.total += len(self.rule[rule])
            if pending:
                work = dry_run.seconds_of(rule, self.config, self.costs) / len(self.rule[rule])
                self.left |= dict.fromkeys(self.rule[rule], work)

    def _note(self, date: str | None, begun: str | None, failed: str | None, ended: str | None) -> None:
        """One event of the engine's log."""
        if date:
            self.date = time.mktime(time.strptime(date))
        elif begun in self.rule:
            self.since[begun] = self.date
        elif failed:
            self.since.pop(failed, None)
            self.left |= dict.fromkeys([job for job in self.rule.get(failed, ()) if job in self.left], 0.0)
        elif ended:
            since = self.since.pop(ended, self.date)
            for job in self.rule.get(ended, ()):
                if job in self.left:
                    self._end(job, self.date - since)

    def _end(self, job: str, seconds: float) -> None:
        spent = self.speed.setdefault(dry_run.kind_of(job), [0.0, 0.0])
        spent[0] += seconds
        spent[1] += self.left.pop(job)
        self.since |= {rule: time.time() for rule in self.since if job in self.rule[rule]}

    def _speed(self, kind: str) -> float | None:
        """Seconds for a unit of work, of a kind that has not been measured with little trust in the others."""
        seconds, work = self.speed.get(kind, (0.0, 0.0))
        if work:
            return seconds / work
        all_seconds, all_work = (sum(column) for column in zip((TRUST, TRUST), *self.speed.values(), strict=True))
        return all_seconds / all_work if self.known else None
