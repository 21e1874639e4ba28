"""What ``mixcl data check`` found: one finding, one case, all collections.

An *error* is what ``mixcl prepare`` would refuse, or a scan that is in pre-training and in fine-tuning; a *warning* is
what a person should look at; a *note* is odd and harmless.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Severity = Literal["error", "warning", "note"]


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
    """What became of one case: findings, hashes and profile of its voxels, and a picture when something was found."""

    collection: str
    case: str
    findings: tuple[Finding, ...]
    content: tuple[str, ...] = ()
    picture: bytes = field(default=b"", repr=False)
    profile: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Check:
    """The outcome for all collections: ``counts`` (found, expected) by name, and every case."""

    counts: dict[str, tuple[int, int | None]]
    cases: tuple[Checked, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    def to_markdown(self) -> str:
        """A row a collection, then every finding."""
        by: dict[str, Counter[str]] = defaultdict(Counter)
        for finding in self.findings:
            by[finding.collection][finding.severity] += 1
        lines = ["| collection | scans | expected | errors | warnings | notes |", "|---|---|---|---|---|---|"]
        for name, (found, expected) in self.counts.items():
            told = [by[name][severity] for severity in ("error", "warning", "note")]
            lines.append(
                f"| {name} | {found} | {'-' if expected is None else expected} | {' | '.join(map(str, told))} |"
            )
        for severity in ("error", "warning", "note"):
            listed = [f"- [{one.kind}] {one.text}" for one in self.findings if one.severity == severity]
            lines += ["", f"{severity}s:".capitalize(), *listed] if listed else []
        return "\n".join(lines if self.findings else [*lines, "", "Nothing is wrong."])

    def to_json(self) -> str:
        """For machines: ``counts`` and ``findings``."""
        told = {"counts": self.counts, "findings": [asdict(finding) for finding in self.findings]}
        return json.dumps(told, indent=1) + "\n"
