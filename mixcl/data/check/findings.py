"""What ``mixcl data check`` found: one finding, one case, all collections.

An *error* is what ``mixcl prepare`` would refuse, or a scan that is in pre-training and in fine-tuning; a *warning* is
what a person should look at; a *note* is odd and harmless.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mixcl.data.files import Severity

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its short name, how bad, where, and a sentence with the mend."""

    kind: str
    severity: Severity
    collection: str
    case: str
    text: str


@dataclass(frozen=True)
class Checked:
    """What became of one case: findings, hashes and profile of its voxels, a picture, and which organs it has.

    ``organs`` is None where the label map could not be read.
    """

    collection: str
    case: str
    findings: tuple[Finding, ...]
    content: tuple[str, ...] = ()
    picture: bytes = field(default=b"", repr=False)
    profile: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    organs: frozenset[str] | None = None


@dataclass(frozen=True)
class Check:
    """The outcome for all collections: ``counts`` (scans, expected) by name, every case, every finding."""

    counts: dict[str, tuple[int, int | None]]
    cases: tuple[Checked, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def summary(self) -> str:
        """What to say where nothing was found."""
        seen = any(scans for scans, _ in self.counts.values())
        return "Nothing is wrong." if seen else "No scan was looked at: data.pretrain and data.finetune name none."

    def rows(self) -> list[tuple[str | int, ...]]:
        """A row a collection: its name, scans, scans expected, errors, warnings, notes."""
        number = Counter((finding.collection, finding.severity) for finding in self.findings)
        return [
            (name, scans, "-" if expected is None else expected, *(number[name, severity] for severity in SEVERITIES))
            for name, (scans, expected) in self.counts.items()
        ]

    def to_markdown(self) -> str:
        """A row a collection, then every finding."""
        lines = ["| collection | scans | expected | errors | warnings | notes |", "|---|---|---|---|---|---|"]
        lines += [f"| {' | '.join(map(str, row))} |" for row in self.rows()]
        for severity in SEVERITIES:
            if listed := [f"- [{found.kind}] {found.text}" for found in self.findings if found.severity == severity]:
                lines += ["", f"{severity}s:".capitalize(), *listed]
        return "\n".join(lines if self.findings else [*lines, "", self.summary])
