"""What a preparation found: counts beside the paper's, duplicates, warnings, cost."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mixcl.config.settings import Collection, DataConfig
from mixcl.data.prepare.case import Job
from mixcl.data.registry import expected_count, seen
from mixcl.files import human


class Outcome(NamedTuple):
    """What became of a case: its record (case.json), made now or kept, or the sentence that says what is wrong."""

    job: Job
    record: dict[str, Any] | None
    made: bool = False
    fault: str = ""


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
    wanted: dict[str, Collection], data: DataConfig, root: Path, outcomes: Sequence[Outcome],
    faults: dict[str, list[str]], seconds: float,
) -> Report:  # fmt: skip
    """The report of a preparation that made ``outcomes`` into ``root`` and found ``faults``, by collection."""
    counts, warnings, scans = [], [], defaultdict(list)
    for name, collection in wanted.items():
        mine = [o for o in outcomes if o.job.collection == name]
        good = [(o.job.case, o.record) for o in mine if o.record is not None]
        expected = expected_count(data, name)
        size = sum(sum(record["files"].values()) for _, record in good)
        made = sum(o.made for o in mine)
        row = (len(mine), expected, made, len(good) - made, len(faults[name]), size)
        counts.append(Counts(name, collection.title, *row))
        if expected not in (None, len(mine)):
            whose = "the settings ask for" if data.source == "phantom" else "the paper counts"
            warnings.append(f"{name}: {len(mine)} labelled scans found, {whose} {expected} (R20)")
        for case, record in good:
            warnings += [f"{name}: {text}" for text in record["warnings"]]
            scans[record["content"]["image"]].append(f"{name}/{case}")
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
