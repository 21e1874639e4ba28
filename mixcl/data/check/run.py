"""``mixcl data check``: read every file of every collection once and tell all that is wrong, before a GPU is booked."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mixcl.config.settings import Collection, DataConfig, Experiment, LabelGrid, cores
from mixcl.data.check import image_rules, label_rules
from mixcl.data.check.duplicates import contents_of, duplicates, profile_of
from mixcl.data.check.findings import Check, Checked, Finding, page, thumbnail
from mixcl.data.check.label_rules import missing_organs
from mixcl.data.files import Doubt, Severity, Volume
from mixcl.data.files.align import aligned, corners_apart, spreads
from mixcl.data.files.grid import resample_nearest, spacing_of, to_ras
from mixcl.data.files.layout import match_cases
from mixcl.data.files.volume import check_hounsfield, known_voxels, label_map, lost_labels, read_volume
from mixcl.data.prepare.case import OUTSIDE
from mixcl.data.registry import collections, expected_count, folder, overlap
from mixcl.data.workers import outcomes
from mixcl.errors import InputError
from mixcl.files import write_json, write_text, writing
from mixcl.labels import UNKNOWN

THICK = 10.0  # mm between slices


def check(config: Experiment, out: Path, workers: int | None = None, progress: bool = True) -> Check:
    """Check the collections that the settings name; phantoms are made first when ``data.source`` is ``phantom``.

    ``workers`` cases at a time, each with one scan in memory; None is one a core, at most 8.  What was found stands in
    ``out/data/check.json`` and ``check.html`` as well.

    Raises InputError: a collection that is not known, or an ``out`` that cannot be written.
    """
    data, raw = config.data, config.data.raw_dir(out)
    wanted = collections(data)
    with writing(out):
        (out / "data").mkdir(parents=True, exist_ok=True)
    if data.source == "phantom":
        from mixcl.data.phantom.collections import write_collections

        write_collections(data, raw, progress=progress)
    jobs, findings, counts = _plan(wanted, data, raw)
    done = outcomes(check_case, jobs, workers or min(cores(), 8))
    bar = tqdm(zip(jobs, done, strict=True), desc="check", total=len(jobs), unit="case", disable=not progress)
    cases: list[Checked] = []
    for (name, _, case, image, label, _), answer in bar:
        if isinstance(answer, InputError):  # nothing is known but why
            text = f"{image}: {answer} (or its label map {label.name})"
            answer = _checked(name, case, [Doubt(answer.kind, text, "error")])
        cases.append(answer)
    findings += [finding for checked in cases for finding in checked.findings]
    for name, collection in wanted.items():
        findings += missing_organs([case for case in cases if case.collection == name], name, collection)
    for name, collection in wanted.items() if data.source == "files" else ():
        findings += [Finding("quirk", "note", name, "", f"{name}: {text}") for text in collection.quirks]
    findings += [Finding("leak", "warning", name, "", overlap(name)) for name in data.in_both]
    leak: Severity = "warning" if data.pretrain_sees_test else "error"
    findings += duplicates(cases, set(data.pretrain), set(data.finetune), leak)
    result = Check(counts, tuple(cases), tuple(findings))
    values = {"counts": counts, "findings": [asdict(finding) for finding in findings]}
    write_json(out / "data" / "check.json", values)
    write_text(out / "data" / "check.html", page(result))
    return result


@contextmanager
def _errors(doubts: list[Doubt], also: str = "") -> Iterator[None]:
    """Keep an `InputError` as one of the doubts, with what ``also`` has to say of it."""
    try:
        yield
    except InputError as error:
        doubts.append(Doubt(error.kind, f"{error}{also}", "error"))


def _read(path: Path, doubts: list[Doubt], stored: Mapping[int, int] | None = None) -> Volume | None:
    """A scan, or a label map with the values of the store (`label_map`); None where it cannot be read."""
    volume = None
    with _errors(doubts):
        given = read_volume(path)
        doubts += given.doubts
        volume = given if stored is None else replace(given, data=label_map(given, stored))
    return volume


def _aligned(image: Volume, label: Volume, rule: LabelGrid, doubts: list[Doubt]) -> Volume | None:
    """The label on its image's grid, and how it got there."""
    variation = spreads(image, label) if corners_apart(image, label) != 0 else {}
    listed = ", ".join(f"{spread:.0f} read by {rule}" for rule, spread in variation.items())
    evidence = f" (HU within a label vary by {listed})" if listed else ""
    moved = None
    with _errors(doubts, evidence):
        moved, how = aligned(image, label, rule)
        worse = min(variation.values(), default=0) < 0.7 * variation.get(rule, 0)
        if how:
            doubts.append(Doubt("axes", how + evidence, "warning" if worse else "note"))
    return moved


def check_case(
    name: str, collection: Collection, case: str, image_path: Path, label_path: Path, data: DataConfig
) -> Checked:
    """Everything that can be said of one case without the others; ``data`` has the spacing and window of the store."""
    doubts, names = list[Doubt](), collection.organs
    image, label = _read(image_path, doubts), _read(label_path, doubts, collection.stored)
    voxels = {} if label is None else {value: n for value, n in known_voxels(label.data).items() if value}
    organs = None if label is None else frozenset(names[value] for value in voxels)
    if image is None:
        return _checked(name, case, doubts, organs=organs)
    with _errors(doubts):
        doubts += check_hounsfield(image)
    if label is not None:
        label = _aligned(image, label, collection.label_grid, doubts)
    turned, affine = to_ras(image.data, image.affine)
    labels = np.broadcast_to(np.uint8(0), turned.shape) if label is None else to_ras(label.data, image.affine)[0]
    edges = spacing_of(affine)
    view = image_rules.scene(turned, labels, edges, names)
    if max(edges) > THICK:
        doubts.append(Doubt("thick slices", f"{image_path}: voxels of {max(edges):.3g} mm; small organs are missed"))
    if not any(doubt.severity == "error" for doubt in doubts):
        odd = list(image_rules.doubts(view))
        in_hounsfield = not any(doubt.kind in ("range", "intercept") for doubt in odd)
        if max(turned.min(), data.hu[0]) >= min(turned.max(), data.hu[1]) and in_hounsfield:
            doubts.append(Doubt("range", OUTSIDE.format(image_path, data.hu), "error"))
        odd += image_rules.slice_doubts(turned, labels % UNKNOWN, edges[2])
        if label is not None and in_hounsfield:
            millilitres = abs(float(np.linalg.det(label.affine[:3, :3]))) / 1000
            volumes = {names[value]: number * millilitres for value, number in voxels.items()}
            odd += [*label_rules.doubts(view), *label_rules.too_large(volumes)]
        doubts += [doubt._replace(text=f"{image_path}: {doubt.text}") for doubt in odd]
    if label is not None:
        with _errors(doubts):
            after = known_voxels(resample_nearest(labels, edges, data.spacing))
            if text := lost_labels(label_path, known_voxels(labels), after, names, data.spacing):
                doubts.append(Doubt("lost label", text))
    picture = b""
    with suppress(Exception):  # a picture is a help; what is wrong has been told
        picture = thumbnail(view)
    return _checked(
        name, case, doubts, content=contents_of(image), picture=picture, profile=profile_of(image), organs=organs
    )


def _checked(name: str, case: str, doubts: Iterable[Doubt], **rest: Any) -> Checked:
    return Checked(name, case, tuple(Finding(d.kind, d.severity, name, case, d.text) for d in doubts), **rest)


def _plan(
    wanted: dict[str, Collection], data: DataConfig, raw: Path
) -> tuple[list[tuple[Any, ...]], list[Finding], dict[str, tuple[int, int | None]]]:
    """What `check_case` takes of each case, what is missing, and the counts beside the expected ones (R20)."""
    jobs, findings, counts = [], [], {}
    for name, collection in wanted.items():
        try:
            pairs, missing = match_cases(collection, folder(collection, raw))
        except InputError as error:
            findings.append(Finding(error.kind, "error", name, "", str(error)))
            pairs, missing = {}, {}
        findings += [Finding("missing partner", "error", name, case, text) for case, text in missing.items()]
        owners: dict[Path, str] = {}
        for case, (image, label) in pairs.items():
            jobs.append((name, collection, case, image, label, data))
            if (owner := owners.setdefault(label, case)) != case:  # in a table, by a cell that was copied down
                text = f"{label}: is listed as the label of {owner} and of {case}; list the one that is {case}'s own"
                findings.append(Finding("label twice", "warning", name, case, text))
        expected = expected_count(data, name)
        counts[name] = (len(pairs), expected)
        if expected not in (None, len(pairs)):
            text = f"{name}: {len(pairs)} labelled scans found, {expected} expected (R20)"
            findings.append(Finding("count", "note", name, "", text))
    return jobs, findings, counts
