"""What a preparation found: counts beside the paper's, duplicates, warnings, cost."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixcl.config.settings import Collection, DataConfig
from mixcl.data.prepare.case import Job
from mixcl.data.registry import expected_count, seen
from mixcl.files import human


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
    """The outcome of `mixcl.data.prepare.run.prepare`."""

    collections: tuple[Counts, ...]
    duplicates: tuple[tuple[str, ...], ...]  # groups of collection/case with images equal voxel by voxel (R24)
    warnings: tuple[str, ...]
    faults: tuple[str, ...]  # a sentence for each case that was left out
    bytes: int  # of the prepared cases
    seconds: float
    store: str  # where they are

    def to_markdown(self) -> str:
        """The report as a Markdown table and lists."""
        lines = ["| collection | scans | expected | made | kept | faulty | size |", "|---|---|---|---|---|---|---|"]
        for c in self.collections:
            expected = "any" if c.expected is None else c.expected
            cells = (c.title or c.name, c.found, expected, c.made, c.kept, c.faulty, human(c.bytes))
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines += ["", f"{human(self.bytes)} in {self.store}, {self.seconds:.1f} s"]
        for title, sentences in (("Warnings", self.warnings), ("Faulty cases", self.faults)):
            if sentences:
                lines += ["", f"{title}:", "", *(f"- {sentence}" for sentence in sentences)]
        return "\n".join(lines)


def summarise(
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
        (*warnings, *map(seen, data.in_both)),
        tuple(fault for name in wanted for fault in faults[name]),
        sum(c.bytes for c in counts),
        round(seconds, 3),
        str(root),
    )
