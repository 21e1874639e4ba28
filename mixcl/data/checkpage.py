"""The page of ``mixcl data check``: every case that is wrong, with a picture, in one file."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from mixcl.data.plausible import Scene

if TYPE_CHECKING:
    from mixcl.data.findings import Check, Finding

WINDOW = (-175.0, 250.0)
EDGE = 220  # pixels, about
STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{border-bottom:1px solid #ccc;padding:.3em .7em;text-align:left;vertical-align:top}"
    ".error{color:#a40000}.warning{color:#8a5a00}.note{color:#555}img{display:block}"
)


def page(result: Check) -> str:
    """A self-contained HTML page: counts, then a row for every case with a finding."""
    counts = "".join(
        f"<tr><td>{escape(name)}</td><td>{found}</td><td>{'-' if expected is None else expected}</td></tr>"
        for name, (found, expected) in result.counts.items()
    )
    pictures = {(case.collection, case.case): case.picture for case in result.cases}
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in result.findings:
        groups.setdefault((finding.collection, finding.case), []).append(finding)
    rows = "".join(_row(key, found, pictures.get(key, b"")) for key, found in groups.items())
    said = "" if rows else "<p>Nothing is wrong.</p>"
    table = f"<table><tr><th>case</th><th>middle slice</th><th>what is wrong</th></tr>{rows}</table>" if rows else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>mixcl data check</title>'
        f"<style>{STYLE}</style></head><body><h1>mixcl data check</h1>"
        f"<p>{result.errors} errors among {len(result.findings)} findings in {len(result.cases)} cases.</p>"
        f"<table><tr><th>collection</th><th>scans</th><th>expected</th></tr>{counts}</table>{said}{table}"
        "<p>Pictures: the slice with most of the labels, patient's right on the left, window -175 to 250 HU, "
        "outlines of the labels in orange.</p></body></html>\n"
    )


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
    shown = f'<img alt="" src="data:image/png;base64,{base64.b64encode(picture).decode()}">' if picture else "none"
    said = "".join(f'<p class="{one.severity}"><b>{escape(one.kind)}</b>: {escape(one.text)}</p>' for one in found)
    return f"<tr><td>{escape('/'.join(part for part in key if part))}</td><td>{shown}</td><td>{said}</td></tr>"
