"""The page of ``mixcl data check``: every case that is wrong, with a picture, in one file."""

import base64
import io
from collections import Counter, defaultdict
from importlib import resources

import jinja2
import numpy as np
from scipy import ndimage

from mixcl.data.check.findings import SEVERITIES, Check, Finding
from mixcl.data.check.image_rules import Scene

WINDOW = (-175.0, 250.0)
EDGE = 220  # pixels, about


def page(result: Check) -> str:
    """A self-contained HTML page, from page.html: counts, then a row for every case with a finding."""
    pictures = {(case.collection, case.case): case.picture for case in result.cases}
    groups: defaultdict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in sorted(result.findings, key=lambda finding: SEVERITIES.index(finding.severity)):
        groups[finding.collection, finding.case].append(finding)
    cases = [
        ("/".join(filter(None, key)), base64.b64encode(pictures.get(key, b"")).decode(), findings)
        for key, findings in groups.items()
    ]
    kinds = Counter(finding.kind for finding in result.findings).most_common()
    template = resources.files("mixcl.data.check").joinpath("page.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True).from_string(template).render(result=result, kinds=kinds, cases=cases)


def thumbnail(view: Scene) -> bytes:
    """PNG of the axial slice with most labelled voxels (or the middle one), labels outlined."""
    import matplotlib.image

    label = np.zeros(view.image.shape, np.uint8) if view.label is None else view.label
    per_slice = (label > 0).sum((0, 1))
    z = int(per_slice.argmax()) if per_slice.any() else view.image.shape[2] // 2
    grey = np.clip((view.image[..., z] - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    zoom = max(1, EDGE // max(grey.shape))
    rgb, shown = (np.kron(a, np.ones((zoom, zoom, *[1] * (a.ndim - 2)), a.dtype)) for a in (rgb, label[..., z]))
    outline = (ndimage.grey_erosion(shown, 3) != shown) | (ndimage.grey_dilation(shown, 3) != shown)
    rgb[outline] = (0.9, 0.6, 0.0)
    file = io.BytesIO()
    upright = np.ascontiguousarray(rgb[::-1, ::-1].swapaxes(0, 1))  # right of the patient on the left, front on top
    matplotlib.image.imsave(file, upright, format="png", origin="upper")  # not as a user's matplotlibrc has it
    return file.getvalue()
