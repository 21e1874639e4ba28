"""The jobs of a run gone over again, each link from the one before: code, settings, training cases, weights."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from mixcl.config import with_settings
from mixcl.config.settings import Experiment
from mixcl.data.splits import split, start
from mixcl.data.store import Store
from mixcl.errors import InputError
from mixcl.files import sha256
from mixcl.results.runs import Runs
from mixcl.results.verify.cases import Measure, Run, case_faults, metric_faults, tested_cases
from mixcl.results.verify.verdict import Check, agrees, not_compared, same, sampled
from mixcl.run import record
from mixcl.run.determinism import code_id
from mixcl.run.jobs import Job, all_jobs, finetunings
from mixcl.run.record import WEIGHTS, deciding, flat, read_card

MEASURED = 60
"""Predictions that are measured again unless all are asked for; at least one a job."""


def jobs(config: Experiment, out: Path, runs: Runs, full: bool, measure: Measure) -> list[Check]:
    """Settings, training and test cases, weights, predictions and metrics of every job, and which code made them.

    ``measure`` gives the rows of a test case anew: :func:`mixcl.evaluate.measured_again`.
    """
    checks, codes, measured, total, lost, bare = list[Check](), dict[str, list[str]](), 0, 0, 0, 0
    most = None if full else max(1, MEASURED // max(len(finetunings(config)), 1))
    store: Store | None = None
    with suppress(InputError):
        store = Store(config.data.store_dir(out), settings=config.data)
    for job in all_jobs(config):
        name = job.name
        try:
            run = _opened(job, config, out, store)
        except InputError as error:
            checks.append(Check(f"run {name}", "a run", str(error), False, name))
            continue
        bare += not run.card.get("metrics")
        codes.setdefault(str(run.card.get("code", "")), []).append(name)
        checks += [agrees(f"settings of {name}", _settings(run), name), _weights(run)]
        checks.append(agrees(f"steps of {name}", _steps(run), name))
        rows = runs.cases[runs.cases["job"] == name]
        if len(rows):
            tested, grid = tested_cases(run), run.config.evaluate.grid
            here = [case for case in tested if grid == "prepared" or case.source.label.exists()]  # R32
            chosen = here[:most]
            measured, total, lost = measured + len(chosen), total + len(here), lost + len(tested) - len(here)
            checks.append(agrees(f"cases of {name}", case_faults(run, rows), name, "as evaluated"))
            checks.append(agrees(f"metrics of {name}", metric_faults(run, chosen, measure), name, "as measured again"))
    checks += sampled("metrics from predicted maps", measured, total)
    if lost:
        checks.append(not_compared(f"metrics of {lost} predicted maps: the original label maps are not here"))
    if bare:
        what = f"whether {bare} records of trainings have changed"
        checks.append(not_compared(f"{what}: their run.json has no checksum of them"))
    return [
        *_codes(codes),
        *checks,
        not_compared("whether weights follow from their training cases: only a training tells"),
    ]


def stale(config: Experiment, out: Path) -> list[str]:
    """Jobs that other settings, cases or weights decided than these settings, the store and the job before give."""
    store, names = Store(config.data.store_dir(out), settings=config.data), []
    for job in all_jobs(config):
        with suppress(InputError):  # not begun, or nothing to compare with
            run = _opened(job, config, out, store)
            if _as_read(_expected(run)[2]) != flat(run.card.get("decides", {})):
                names.append(job.name)
    return names


def _opened(job: Job, config: Experiment, out: Path, store: Store | None) -> Run:
    """The run of a job; an InputError where there is none."""
    path = out / "runs" / job.name
    return Run(job, with_settings(config, job.settings), path, read_card(path), store)


def _as_read(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted name, as JSON gives them back."""
    return flat(json.loads(json.dumps(values)))


def _expected(run: Run) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What the run.json of a job has to say: of itself, its settings, and what decided it."""
    return _finetuned(run) if "TASK" in run.job.parameters else _pretrained(run)


def _codes(codes: Mapping[str, Sequence[str]]) -> Iterator[Check]:
    """The code that made the jobs against the code that is here."""
    for code, names in codes.items():
        if code:
            yield same(f"code of {len(names)} jobs", code, code_id(), names[0])
        else:
            yield not_compared(f"which code made {len(names)} jobs ({names[0]}, ...): their run.json does not say")


def _settings(run: Run) -> Iterator[str]:
    """What run.json says that a job was made of against what the settings, the store and the job before it give."""
    try:
        own, settings, decides = _expected(run)
        if twin := run.card.get("same_as"):  # whose training it took over
            own["weights"] = read_card(run.path.with_name(str(twin))).get("weights")
    except InputError as error:
        yield str(error)
        return
    source = {"data": {"source": run.config.data.source}}  # phantoms are called so by it
    expected = {"job": run.job.name, **own, "config": settings | source, "decides": decides}
    card = flat(run.card)
    for key, value in _as_read(expected).items():
        if card.get(key) != value:
            yield f"{key} is {str(card.get(key))[:60]}, not {str(value)[:60]}"


def _pretrained(run: Run) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """That of a pre-training."""
    names, settings = run.config.data.pretrain, run.config.pretrain
    cases, data = sum(len(run.prepared.cases(name)) for name in names), run.prepared.fingerprint(names)
    own = {"seed": settings.seed, "cases": cases, "data": data, "steps": settings.total_steps(cases)}
    return own, deciding(run.config, "pretrain"), record.pretraining_decides(run.config, data)


def _finetuned(run: Run) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """That of a fine-tuning; which weights it starts from is told by the job before it."""
    job, config = run.job, run.config
    of = {key.lower(): value for key, value in job.parameters.items()}
    train, test = split(run.prepared.cases(of["task"]), config, of["fold"], of["percent"], of["seed"])
    data, trained = run.prepared.fingerprint((of["task"],)), [case.id for case in train]
    init = str(read_card(run.path.with_name(job.needs)).get("weights")) if job.needs else "none"
    decides = record.finetuning_decides(
        config, data, **of, init=init, start=start(of["fold"], of["seed"]), train=trained
    )
    steps = config.finetune.total_steps(len(train))
    own = {"data": data, "train": trained, "test": [case.id for case in test], "steps": steps}
    before = deciding(config, "pretrain") if job.needs else {}  # Table 2 has its marks from these
    return of | own, before | deciding(config, "finetune"), decides


def _weights(run: Run) -> Check:
    """The weights on disk, and what stands in their file, against the name that the run gave them."""
    name, card = run.job.name, run.card
    what, expected = f"weights of {name}", card.get("weights", "none")
    try:
        with safe_open(run.path / WEIGHTS, framework="numpy") as file:
            written = json.loads((file.metadata() or {}).get("mixcl", "{}"))
        actual = record.weights_id(load_file(run.path / WEIGHTS))
        other = [key for key in ("job", "data") if written.get(key) != card.get(key)]
        other += ["id"] if written.get("id") != expected else []
    except (SafetensorError, OSError, ValueError, AttributeError, RecursionError):
        return same(what, expected, "damaged or missing", name)
    if actual == expected and other:
        return Check(what, "of run.json", f"the file has another {other[0]}", False, name)
    return same(what, expected, actual, name)


def _steps(run: Run) -> Iterator[str]:
    """Whether the record of a training goes to its last step, and is the one that it left."""
    steps, path = run.card.get("steps"), run.path / "metrics.jsonl"
    try:
        records = record.read_metrics(path)
    except InputError as error:
        yield str(error)
        return
    last = records[-1]["step"] if records else 0
    if last != steps:
        yield f"metrics.jsonl ends at step {last}, not {steps}"
    elif run.card.get("metrics", "") not in ("", sha256(path)):
        yield "metrics.jsonl has changed since"
