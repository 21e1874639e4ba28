"""``mixcl data check``: read every file of every collection once and tell all that is wrong, before a GPU is booked."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mixcl.config.settings import Collection, DataConfig, Experiment, cores
from mixcl.data.check import image_rules, label_rules, slice_rules
from mixcl.data.check.duplicates import content_of, duplicates, profile_of
from mixcl.data.check.findings import Check, Checked, Finding
from mixcl.data.check.missing import missing_organs
from mixcl.data.check.page import page, thumbnail
from mixcl.data.files import Doubt, Severity, Volume
from mixcl.data.files.align import aligned, corners_apart, spreads
from mixcl.data.files.grid import resample_nearest, spacing_of, to_ras
from mixcl.data.files.layout import match_cases
from mixcl.data.files.volume import check_hounsfield, known_voxels, label_map, lost, read_volume
from mixcl.data.registry import collections, expected_count, folder, seen
from mixcl.data.workers import outcomes
from mixcl.errors import InputError
from mixcl.files import write_json, write_text
from mixcl.labels import UNKNOWN

THICK = 10.0  # mm between slices
CaseJob = tuple[str, Collection, str, Path, Path, tuple[float, float, float]]  # what `check_case` takes


def check(config: Experiment, out: Path, workers: int | None = None, progress: bool = True) -> Check:
    """Check the collections that the settings name; phantoms are made first when ``data.source`` is ``phantom``.

    Parameters
    ----------
    config
        ``config.data`` decides what is checked.
    out
        ``out/data/check.json`` and ``check.html`` are written there.
    workers
        Cases at a time; None is one a core, at most 8.  Each holds one scan in memory.
    progress
        Show a bar.

    Raises
    ------
    InputError
        A collection that is not known, or an ``out`` that cannot be written.
    """
    data, raw = config.data, config.data.raw_dir(out)
    wanted = collections(data)
    if data.source == "phantom":
        from mixcl.data.phantom.collections import write_collections

        write_collections(data, raw, progress=progress)
    jobs, findings, counts = _plan(wanted, data, raw)
    done = outcomes(check_case, jobs, workers or min(cores(), 8))
    bar = tqdm(zip(jobs, done, strict=True), desc="check", total=len(jobs), unit="case", disable=not progress)
    cases = tuple(_unread(job, answer) if isinstance(answer, InputError) else answer for job, answer in bar)
    findings += [finding for case in cases for finding in case.findings]
    for name, collection in wanted.items():
        findings += missing_organs([case for case in cases if case.collection == name], name, collection)
    if data.source == "files":
        quirks = ((name, text) for name, collection in wanted.items() for text in collection.quirks)
        findings += [Finding("quirk", "note", name, "", f"{name}: {text}") for name, text in quirks]
    findings += [Finding("leak", "warning", name, "", seen(name)) for name in data.in_both]
    leak: Severity = "warning" if data.pretrain_sees_test else "error"
    findings += duplicates(cases, set(data.pretrain), set(data.finetune), leak)
    result = Check(counts, cases, tuple(findings))
    values = {"counts": counts, "findings": [asdict(finding) for finding in findings]}
    write_json(out / "data" / "check.json", values)
    write_text(out / "data" / "check.html", page(result))
    return result


def _unread(job: tuple[str, Collection, str, Path, Path, Sequence[float]], error: InputError) -> Checked:
    """A case of which nothing is known but why."""
    name, _, case, image, label, _ = job
    text = f"{image}: {error} (or its label map {label.name})"
    return Checked(name, case, (Finding(error.kind, "error", name, case, text),))


class _Case:
    """The findings of one case while it is looked at, and how an error becomes one."""

    def __init__(self, collection: str, case: str) -> None:
        self.collection, self.case = collection, case
        self.findings: list[Finding] = []

    def add(self, kind: str, severity: Severity, text: str) -> None:
        self.findings.append(Finding(kind, severity, self.collection, self.case, text))

    def add_doubts(self, doubts: Iterable[Doubt], place: str = "") -> None:
        for doubt in doubts:
            self.add(doubt.kind, doubt.severity, place + doubt.text)

    @contextmanager
    def errors(self, also: str = "") -> Iterator[None]:
        """Keep an `InputError` as a finding, with what ``also`` has to say of it."""
        try:
            yield
        except InputError as error:
            self.add(error.kind, "error", f"{error}{also}")

    def read(self, path: Path) -> Volume | None:
        volume = None
        with self.errors():
            volume = read_volume(path)
            self.add_doubts(volume.doubts)
        return volume

    def align(self, image: Volume, label: Volume, collection: Collection) -> Volume | None:
        """The label on its image's grid, and how it got there."""
        vary = spreads(image, label) if corners_apart(image, label) != 0 else {}
        listed = ", ".join(f"{spread:.0f} read by {rule}" for rule, spread in vary.items())
        evidence = f" (HU within a label vary by {listed})" if listed else ""
        moved = None
        with self.errors(evidence):
            moved, how = aligned(image, label, collection.label_grid)
            doubt = min(vary.values(), default=0) < 0.7 * vary.get(collection.label_grid, 0)
            if how:
                self.add("axes", "warning" if doubt else "note", how + evidence)
        return moved

    def resample(
        self, path: Path, labels: NDArray[np.uint8], edges: Sequence[float], to: Sequence[float], names: dict[int, str]
    ) -> None:
        """What preparation will lose of a label map in RAS+, from voxels of ``edges`` mm to others."""
        with self.errors():
            after = known_voxels(resample_nearest(labels, edges, to))
            if text := lost(path, known_voxels(labels), after, names, to):
                self.add("lost label", "warning", text)


def check_case(
    name: str, collection: Collection, case: str, image_path: Path, label_path: Path, spacing: Sequence[float]
) -> Checked:
    """Everything that can be said of one case without the others; ``spacing`` is that of the store, mm."""
    here, names, organs, voxels = _Case(name, case), collection.organs, None, dict[int, int]()
    image, label = here.read(image_path), here.read(label_path)
    if label is not None:
        given, label = label, None
        with here.errors():
            label = replace(given, data=label_map(given, collection.stored))
            voxels = {value: number for value, number in known_voxels(label.data).items() if value}
            organs = frozenset(names[value] for value in voxels)
    if image is None:
        return Checked(name, case, tuple(here.findings), organs=organs)
    with here.errors():
        here.add_doubts(check_hounsfield(image))
    if label is not None:
        label = here.align(image, label, collection)
    turned, affine = to_ras(image.data, image.affine)
    labels = None if label is None else to_ras(label.data, image.affine)[0]
    edges = spacing_of(affine)
    view = image_rules.scene(turned, labels, edges, names)
    if max(edges) > THICK:
        here.add("thick slices", "warning", f"{image_path}: voxels of {max(edges):.3g} mm; small organs are missed")
    if not any(finding.severity == "error" for finding in here.findings):
        doubts = list(image_rules.doubts(view))
        in_hounsfield = not any(doubt.kind in ("range", "intercept") for doubt in doubts)
        doubts += slice_rules.doubts(turned, None if labels is None else labels % UNKNOWN, edges[2])
        if label is not None and view.label is not None and in_hounsfield:
            doubts += label_rules.doubts(view, view.label)
            voxel = abs(float(np.linalg.det(label.affine[:3, :3]))) / 1000
            doubts += label_rules.too_large({names[value]: number * voxel for value, number in voxels.items()})
        here.add_doubts(doubts, f"{image_path}: ")
    if labels is not None:
        here.resample(label_path, labels, edges, spacing, names)
    picture = b""
    with suppress(Exception):  # a picture is a help; what is wrong has been told
        picture = thumbnail(view)
    return Checked(name, case, tuple(here.findings), content_of(image), picture, profile_of(image), organs)


def _plan(
    wanted: dict[str, Collection], data: DataConfig, raw: Path
) -> tuple[list[CaseJob], list[Finding], dict[str, tuple[int, int | None]]]:
    """The cases, what is missing of them, and the counts beside the expected ones (R20)."""
    jobs, findings, counts = [], [], {}
    for name, collection in wanted.items():
        try:
            pairs, missing = match_cases(collection, folder(collection, raw))
        except InputError as error:
            findings.append(Finding(error.kind, "error", name, "", str(error)))
            pairs, missing = {}, {}
        findings += [Finding("missing partner", "error", name, case, text) for case, text in missing.items()]
        findings += _labels_twice(name, pairs)
        jobs += [(name, collection, case, *paths, data.spacing) for case, paths in pairs.items()]
        expected = expected_count(data, name)
        counts[name] = (len(pairs), expected)
        if expected not in (None, len(pairs)):
            text = f"{name}: {len(pairs)} labelled scans found, {expected} expected (R20)"
            findings.append(Finding("count", "note", name, "", text))
    return jobs, findings, counts


def _labels_twice(name: str, pairs: dict[str, tuple[Path, Path]]) -> Iterator[Finding]:
    """Cases whose table gives them the label of another, as a cell that was copied down does."""
    owners: dict[Path, str] = {}
    for case, (_, label) in pairs.items():
        if (owner := owners.setdefault(label, case)) != case:
            text = f"{label}: is listed as the label of {owner} and of {case}; list the one that is {case}'s own"
            yield Finding("label twice", "warning", name, case, text)
