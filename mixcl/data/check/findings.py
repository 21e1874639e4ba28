"""What ``mixcl data check`` found: one finding, one case, all collections; and its page, what is wrong first.

An *error* is what ``mixcl prepare`` would refuse, or a scan that is in pre-training and in fine-tuning; a *warning* is
what a person should look at; a *note* is odd and harmless.
"""

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mixcl.data.check.image_rules import Scene
from mixcl.data.files import Severity
from mixcl.errors import visible
from mixcl.labels import UNKNOWN

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
WINDOW = (-175.0, 250.0)  # HU, of the pictures
EDGE = 220  # pixels, about
ORANGE, BLUE = (0.9, 0.6, 0.0), (0.35, 0.7, 0.9)


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
        any_scan = any(scans for scans, _ in self.counts.values())
        return "Nothing is wrong." if any_scan else "No scan was looked at: data.pretrain and data.finetune name none."

    def rows(self) -> list[tuple[str | int, ...]]:
        """A row a collection: its name, scans, scans expected, errors, warnings, notes."""
        number = Counter((finding.collection, finding.severity) for finding in self.findings)
        return [
            (name, scans, "-" if expected is None else expected, *(number[name, severity] for severity in SEVERITIES))
            for name, (scans, expected) in self.counts.items()
        ]

    def to_markdown(self) -> str:
        """A row a collection, then every finding; for a terminal, which no name of a file shall move."""
        lines = ["| collection | scans | expected | errors | warnings | notes |", "|---|---|---|---|---|---|"]
        lines += [f"| {' | '.join(map(str, row))} |" for row in self.rows()]
        for severity in SEVERITIES:
            if alike := [finding for finding in self.findings if finding.severity == severity]:
                lines += ["", f"{severity}s:".capitalize(), *(f"- [{f.kind}] {f.text}" for f in alike)]
        return visible("\n".join(lines if self.findings else [*lines, "", self.summary]))


def page(result: Check) -> str:
    """A self-contained HTML page, from page.html: counts, what was found, and every scan with a picture."""
    groups: defaultdict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in sorted(result.findings, key=lambda finding: SEVERITIES.index(finding.severity)):
        groups[finding.collection, finding.case].append(finding)
    cases = {(case.collection, case.case): case for case in result.cases}
    wrong = [_entry(key, cases.get(key), findings) for key, findings in groups.items()]
    clean = [_entry(key, case, ()) for key, case in cases.items() if key not in groups]
    kinds = Counter(finding.kind for finding in result.findings).most_common()
    template = resources.files("mixcl.data.check").joinpath("page.html").read_text(encoding="utf-8")
    made = jinja2.Environment(autoescape=True).from_string(template)
    return made.render(result=result, kinds=kinds, wrong=wrong, clean=clean)


def _entry(key: tuple[str, str], case: Checked | None, findings: Sequence[Finding]) -> dict[str, Any]:
    """What the page shows of a case, or of a collection as a whole; ``worst`` is the severity of its worst finding."""
    name, organs = "/".join(filter(None, key)), ", ".join(sorted(case.organs or ())) if case else ""
    return {
        "collection": key[0],
        "name": name,
        "worst": findings[0].severity if findings else "none",
        "picture": base64.b64encode(case.picture).decode() if case else "",
        "alt": f"an axial slice of {name}" + (f" with outlines of its labels, of {organs}" if organs else ""),
        "organs": organs,
        "findings": findings,
    }


def thumbnail(view: Scene) -> bytes:
    """PNG of the axial slice with most labelled voxels (or the middle one), organs and what is unknown outlined."""
    import matplotlib.image

    unknown = view.label == UNKNOWN
    organs = np.where(unknown, 0, view.label)
    per_slice = (organs > 0).sum((0, 1))
    z = int(per_slice.argmax()) if per_slice.any() else view.image.shape[2] // 2
    grey = np.clip((view.image[..., z] - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1)
    zoom = max(1, EDGE // max(grey.shape))
    rgb = grey[..., None].repeat(3, 2).repeat(zoom, 0).repeat(zoom, 1)
    for part, colour in ((unknown, BLUE), (organs, ORANGE)):
        shown = part[..., z].astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)
        rgb[(ndimage.grey_erosion(shown, 3) != shown) | (ndimage.grey_dilation(shown, 3) != shown)] = colour
    file = io.BytesIO()
    upright = np.ascontiguousarray(rgb[::-1, ::-1].swapaxes(0, 1))  # right of the patient on the left, front on top
    matplotlib.image.imsave(file, upright, format="png", origin="upper")  # not as a user's matplotlibrc has it
    return file.getvalue()
