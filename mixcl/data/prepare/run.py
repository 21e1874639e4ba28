"""From collections as they are given to the store: check, orient, resample, window, store (Sec. 3.1).

A run that is killed leaves whole cases, and the next one goes on where it stopped.  Faulty cases do not stop the
others, whatever happens while they are read: they are told together at the end.
"""

import math
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from os.path import realpath
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mixcl.config.settings import Collection, DataConfig, Experiment, cores
from mixcl.data import store
from mixcl.data.files.grid import check_grid, resampled_shape, spacing_of
from mixcl.data.files.layout import as_spelled, match_cases
from mixcl.data.files.nifti import announced_grid
from mixcl.data.files.raw import PACKED
from mixcl.data.prepare.case import Job, is_own, kept, prepare_case
from mixcl.data.registry import collections, expected_count, folder, overlap
from mixcl.data.workers import outcomes
from mixcl.errors import InputError, visible
from mixcl.files import check_room, file_name, human, write_json, write_sealed, writing
from mixcl.lock import held


@dataclass(frozen=True)
class Counts:
    """One collection: its cases on disk, those expected (R20), made now, kept from before, faulty; bytes."""

    name: str
    title: str
    found: int
    expected: int | None
    made: int
    kept: int
    faulty: int
    bytes: int


@dataclass(frozen=True)
class Report:
    """The outcome of :func:`prepare`."""

    collections: tuple[Counts, ...]
    duplicates: tuple[tuple[str, ...], ...]  # groups of collection/case with images equal voxel by voxel (R24)
    warnings: tuple[str, ...]
    faults: tuple[str, ...]  # a sentence for each case that was left out
    bytes: int  # of the prepared cases
    seconds: float
    store: str  # where they are

    def to_markdown(self) -> str:
        """The report as a Markdown table and lists, for a terminal, which no name of a file shall move."""
        lines = ["| collection | scans | expected | made | kept | faulty | size |", "|---|---|---|---|---|---|---|"]
        for c in self.collections:
            expected = "any" if c.expected is None else c.expected
            cells = (c.title or c.name, c.found, expected, c.made, c.kept, c.faulty, human(c.bytes))
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines += ["", f"{human(self.bytes)} in {self.store}, {self.seconds:.1f} s"]
        for title, sentences in (("Warnings", self.warnings), ("Faulty cases", self.faults)):
            if sentences:
                lines += ["", f"{title}:", "", *(f"- {sentence}" for sentence in sentences)]
        return visible("\n".join(lines))


def prepare(
    config: Experiment, out: Path, workers: int | None = None, progress: bool = True, verify: bool = False
) -> Report:
    """Prepare the collections that the settings name, and write ``out/data/report.json``.

    Phantoms are made first when ``data.source`` is ``phantom``; else the collections lie in ``data.root``.  Raw
    phantoms and store lie in ``out/data`` unless ``config.data``, which decides everything here, says otherwise.

    ``workers`` cases at a time; None is one a core, at most 8.  With ``verify``, what is prepared already is compared
    with its checksums, voxel by voxel, and what is damaged is made again.

    Raises InputError: one line for each faulty case or missing collection, when all others are stored; or at once for a
    store in a folder of scans, a full disk, missing permissions, or another preparation at work in the same store.
    """
    start = time.monotonic()
    data, out = config.data, Path(out)
    wanted = collections(data)
    root, raw = data.store_dir(out), data.raw_dir(out)
    for base in (realpath(folder(collection, raw)) for collection in wanted.values()):
        if Path(base).is_relative_to(realpath(root)):
            text = f"holds {base}, a folder of scans, and is to be the store; name another data.store"
            raise InputError(f"{root}: {text}")
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        with held(root / ".lock", str(root)):
            if data.source == "phantom":
                from mixcl.data.phantom.collections import write_collections

                write_collections(data, raw, progress=progress)
            jobs, faults = _plan(wanted, data, raw, root, verify)
            for name in wanted:  # of a run that was killed, or had no room
                for left in filter(is_own, (*root.glob(f"{name}/.tmp-*"), *root.glob(f"{name}/.old-*"))):
                    shutil.rmtree(left)
            _check_room(jobs, root, progress)
            records, made = _run(jobs, faults, workers or min(cores(), 8), progress)
            for name, collection in wanted.items():
                cases = [job.case for job in jobs if job.collection == name]
                if not faults[name]:
                    _write_index(root, name, collection, data, raw, cases)
                elif cases:  # nobody shall train on a part of it
                    (root / name / "index.json").unlink(missing_ok=True)
            report = _summarise(wanted, data, root, jobs, records, made, faults, time.monotonic() - start)
            write_json(out / "data" / "report.json", asdict(report))
    if report.faults:
        good = sum(c.made + c.kept for c in report.collections)
        rest = f"the other {good} cases are prepared and stay so" if good else "what was prepared before stays"
        head = f"{len(report.faults)} faulty; {rest}:"
        raise InputError("\n- ".join([head, *report.faults]) if len(report.faults) > 1 else report.faults[0])
    return report


def _plan(
    wanted: dict[str, Collection], data: DataConfig, raw: Path, root: Path, verify: bool
) -> tuple[list[Job], dict[str, list[str]]]:
    """The cases of all collections, and the files or folders that are missing."""
    jobs, faults = [], {}
    for name, collection in wanted.items():
        base = as_spelled(folder(collection, raw))
        try:
            pairs, missing = match_cases(collection, base)
        except InputError as error:
            pairs, missing = {}, {"": str(error)}
        faults[name] = list(missing.values())
        for case, (image, label) in pairs.items():
            target = root / name / file_name(case)
            jobs.append(Job(name, case, image, label, base, target, data, collection, verify))
    return jobs, faults


def _run(
    jobs: Sequence[Job], faults: dict[str, list[str]], workers: int, progress: bool
) -> tuple[dict[Path, dict[str, Any]], set[Path]]:
    """Prepare all cases, some at a time: records by folder in the store, and which are new; what is wrong to faults."""
    with ThreadPoolExecutor(workers) as pool:
        there = zip(jobs, pool.map(kept, jobs), strict=True)
        records = {job.target: record for job, record in there if record is not None}
    new, made = [job for job in jobs if job.target not in records], set()
    answers = zip(new, outcomes(prepare_case, [(job,) for job in new], workers), strict=True)
    bar = tqdm(answers, desc="prepare", total=len(jobs), initial=len(records), unit="case", disable=not progress)
    for job, answer in bar:
        if isinstance(answer, InputError):
            whose = f"{job.image}: " if answer.kind in ("unexpected", "memory") else ""
            faults[job.collection].append(f"{whose}{answer}")
        else:
            records[job.target] = answer
            made.add(job.target)
    return records, made


def _summarise(
    wanted: dict[str, Collection], data: DataConfig, root: Path, jobs: Sequence[Job],
    records: dict[Path, dict[str, Any]], made: set[Path], faults: dict[str, list[str]], seconds: float,
) -> Report:  # fmt: skip
    """The report of a preparation; ``records`` by folder in the store, those ``made`` now, ``faults`` by collection."""
    counts, warnings, scans = [], [], defaultdict(list)
    for name, collection in wanted.items():
        mine = {job.target: job.case for job in jobs if job.collection == name}
        good = {target: records[target] for target in mine if target in records}
        expected, new = expected_count(data, name), len(good.keys() & made)
        size = sum(sum(record["files"].values()) for record in good.values())
        row = (len(mine), expected, new, len(good) - new, len(faults[name]), size)
        counts.append(Counts(name, collection.title, *row))
        if expected not in (None, len(mine)):
            whose = "the settings ask for" if data.source == "phantom" else "the paper counts"
            warnings.append(f"{name}: {len(mine)} labelled scans found, {whose} {expected} (R20)")
        for target, record in good.items():
            warnings += [f"{name}: {text}" for text in record["warnings"]]
            scans[record["content"]["image"]].append(f"{name}/{mine[target]}")
    groups = [tuple(group) for group in scans.values() if len(group) > 1]
    for group in groups:
        names = {scan.partition("/")[0] for scan in group}
        both = names & set(data.pretrain) and names & set(data.finetune)
        leak = "; pre-training would see a scan that fine-tuning is tested on" if both else ""
        warnings.append(f"{', '.join(group)}: the same scan (R24){leak}")
    return Report(
        tuple(counts),
        tuple(groups),
        (*warnings, *map(overlap, data.in_both)),
        tuple(fault for name in wanted for fault in faults[name]),
        sum(c.bytes for c in counts),
        round(seconds, 3),
        str(root),
    )


def _write_index(
    root: Path, name: str, collection: Collection, data: DataConfig, raw: Path, cases: Sequence[str]
) -> None:
    """List the cases of a collection and say where its scans are: from the store, if both can be moved together."""
    scans, place = as_spelled(folder(collection, raw)).absolute(), root.absolute()
    index = {
        "schema": store.SCHEMA,
        "settings": store.settings_hash(data, collection.stored),
        "spacing": data.spacing,
        "hu": data.hu,
        "folder": os.path.relpath(scans, place) if scans.is_relative_to(place.parent) else str(scans),
        "title": collection.title,
        "names": dict(sorted(collection.organs.items())),
        "stored": store.renumbered(collection.stored),
        "cases": cases,
    }
    write_sealed(root / name / "index.json", index)


def _check_room(jobs: Sequence[Job], root: Path, progress: bool) -> None:
    """Say what room is needed and there is, and refuse to begin when it clearly is too little."""
    need, free = sum(map(_growth, jobs)), shutil.disk_usage(root).free
    check_room(root, need, "by the prepared scans")
    if progress and need > 0:
        tqdm.write(f"{root}: the prepared scans need about {human(need)}; {human(free)} are free", file=sys.stderr)


def _growth(job: Job) -> int:
    """Bytes by which a case will make the store grow, from its header; below 0 for one that gets a coarser grid."""
    there = 0
    with suppress(InputError, KeyError, TypeError):  # not there, or damaged
        record = store.read_json(job.target / "case.json")
        there = sum(record["files"].values())
        if record["settings"] == job.settings:
            return 0
    with suppress(Exception):  # faulty headers are told when the case is read
        announced, affine = announced_grid(job.image)
        check_grid(job.image, affine, announced)
        if math.prod(announced) > PACKED * job.image.stat().st_size:  # more than there can be
            return 0
        shape = resampled_shape(announced, spacing_of(affine), job.data.spacing)
        return store.expected_bytes(shape, len(job.rules.organs)) - there
    return 0
