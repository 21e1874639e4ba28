"""The page of ``mixcl data check``: every case with a picture, those that are wrong first, in one file."""

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from scipy import ndimage

from mixcl.data.check.findings import SEVERITIES, Check, Checked, Finding
from mixcl.data.check.image_rules import Scene
from mixcl.labels import UNKNOWN

WINDOW = (-175.0, 250.0)
EDGE = 220  # pixels, about
ORANGE, BLUE = (0.9, 0.6, 0.0), (0.35, 0.7, 0.9)


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
