"""The page of ``mixcl data check``: every case that is wrong, with a picture, in one file."""

from __future__ import annotations

import base64
import io
from collections import Counter
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from mixcl.data.check.image_rules import Scene

if TYPE_CHECKING:
    from mixcl.data.check.findings import Check, Finding, Severity


WINDOW = (-175.0, 250.0)
EDGE = 220  # pixels, about
STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{border-bottom:1px solid #ccc;padding:.5em .7em;text-align:left;vertical-align:top}"
    "td p{margin:0 0 .4em;overflow-wrap:anywhere}td.case{width:10em;overflow-wrap:anywhere}td.picture{width:230px}"
    "h2{font-size:1.1em;margin:1.5em 0 .5em}.number{text-align:right}"
    ".error{color:#a40000}.warning{color:#8a5a00}.note,.none{color:#555}img{display:block}"
)
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


def page(result: Check) -> str:
    """A self-contained HTML page: counts, then a row for every case with a finding."""
    pictures = {(case.collection, case.case): case.picture for case in result.cases}
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in result.findings:
        groups.setdefault((finding.collection, finding.case), []).append(finding)
    order = sorted(groups, key=lambda key: min(SEVERITIES.index(one.severity) for one in groups[key]))
    rows = "".join(_row(key, groups[key], pictures.get(key, b"")) for key in order)
    head = "<tr><th>case</th><th>slice</th><th>what is wrong</th></tr>"
    cases = f"<h2>Cases, the worst first</h2><table>{head}{rows}</table>" if rows else "<p>Nothing is wrong.</p>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>mixcl data check</title>'
        f"<style>{STYLE}</style></head><body><h1>mixcl data check</h1>"
        f"<p>{result.errors} errors among {len(result.findings)} findings in {len(result.cases)} cases.</p>"
        f"{_collections(result)}{_kinds(result)}{cases}"
        "<p>Pictures: the slice with most of the labels, patient's right on the left, window -175 to 250 HU, "
        "outlines of the labels in orange.</p></body></html>\n"
    )


def _collections(result: Check) -> str:
    """A row a collection: scans found and expected, findings by severity."""
    rows = ""
    for name, (found, expected) in result.counts.items():
        told = Counter(one.severity for one in result.findings if one.collection == name)
        cells = (found, "-" if expected is None else expected, *(told[severity] for severity in SEVERITIES))
        rows += f"<tr><td>{escape(name)}</td>" + "".join(f'<td class="number">{cell}</td>' for cell in cells) + "</tr>"
    heads = "".join(f"<th>{head}</th>" for head in ("collection", "scans", "expected", "errors", "warnings", "notes"))
    return f"<h2>Collections</h2><table><tr>{heads}</tr>{rows}</table>"


def _kinds(result: Check) -> str:
    """How often each kind was found, in one paragraph."""
    told = Counter(one.kind for one in result.findings)
    listed = ", ".join(f"{escape(kind)} {number}" for kind, number in told.most_common())
    return f"<h2>Kinds</h2><p>{listed}</p>" if listed else ""


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
    matplotlib.image.imsave(file, upright, format="png")
    return file.getvalue()


def _row(key: tuple[str, str], found: list[Finding], picture: bytes) -> str:
    data = base64.b64encode(picture).decode()
    shown = f'<img alt="" src="data:image/png;base64,{data}">' if picture else '<span class="none">no picture</span>'
    said = "".join(
        f'<p class="{one.severity}">{one.severity}, <b>{escape(one.kind)}</b>: {escape(one.text)}</p>'
        for one in sorted(found, key=lambda one: SEVERITIES.index(one.severity))
    )
    place = escape("/".join(part for part in key if part))
    return f'<tr><td class="case">{place}</td><td class="picture">{shown}</td><td>{said}</td></tr>'
