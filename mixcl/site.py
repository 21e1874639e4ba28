"""The page of a run: tables, figures, run card and executed notebooks in one place, to be opened in any browser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from mixcl import plan
from mixcl.checkpoint import write_text
from mixcl.config import Experiment

TABLES = {"table1": "Table 1", "table2": "Table 2: ablation", "effects": "What matters", "organs": "Organs"}
FOLDED = ("organs",)  # a dozen of them would hide the figures
FIGURES = {
    "figure1": "Figure 1: one sample through the objective",
    "figure2": "Figure 2: its parts",
    "figure3": "Figure 3: what the networks drew",
    "table1": "Dice against the labelled share",
    "table2": "Ablation",
    "organs": "Organ by organ",
    "pretrain_losses": "Pre-training",
}
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem; }
pre, .wide { overflow-x: auto; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: .85rem; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #8886; text-align: left; white-space: nowrap; }
img { max-width: 100%; background: white; }
summary { font-weight: bold; cursor: pointer; }
.anchor-link { display: none; }
.warning { border-left: .3rem solid #d55e00; padding-left: .7rem; }
"""


def site(config: Experiment, out: Path) -> Path:
    """Write ``out``/site/index.html and the pages of the notebooks beside it.

    What is not there is named on the page under "Not here".  Pictures and their PDFs are linked where they lie.

    Parameters
    ----------
    config, out
        The settings and the folder of the results.

    Returns
    -------
    The page.

    Raises
    ------
    InputError
        A full disk or missing permission.
    """
    missing: list[str] = []
    sections = [_tables(out, missing), _figures(out, missing), _notebooks(config, out, missing), _card(out, missing)]
    if missing:
        sections.append(f"<h2>Not here</h2>\n<ul>{''.join(f'<li>{escape(one)}</li>' for one in missing)}</ul>")
    page = out / "site" / "index.html"
    write_text(page, _page(config, out, sections))
    return page


def _page(config: Experiment, out: Path, sections: Sequence[str]) -> str:
    name = escape(config.profile)
    warning = '<p class="warning">These are phantoms, not patients.</p>' if config.data.source == "phantom" else ""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>mixcl: profile {name}</title><style>{STYLE}</style></head><body>",
            f"<h1>MixCL, profile {name}</h1>",
            "<p>What the companion of <em>MixCL: Pixel label matters to contrastive learning in medical image "
            f"segmentation</em> made of this profile. {escape(_origin(out))}</p>",
            warning,
            *sections,
            "</body></html>\n",
        ]
    )


def _origin(out: Path) -> str:
    """Commit, seeds and data, as the run card has them."""
    try:
        card = json.loads((out / "RUN.json").read_text(encoding="utf-8"))
        data = ", ".join(f"{name} {one['fingerprint'][:12]}" for name, one in card["data"].items())
        return f"Commit {card['commit'][:12]}; seeds {card['seeds']['finetune']}; data {data}."
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "There is no run card yet, so commit and data are not known."


def _tables(out: Path, missing: list[str]) -> str:
    parts = ["<h2>Tables</h2>"]
    for name, title in TABLES.items():
        path = out / "tables" / f"{name}.md"
        if not path.is_file():
            missing.append(f"{title}: tables/{name}.md")
            continue
        others = [f"{name}.{suffix}" for suffix in ("csv", "tex") if (path.parent / f"{name}.{suffix}").is_file()]
        links = ", ".join(f'<a href="../tables/{other}">{other}</a>' for other in others)
        body = f'<div class="wide">{_markdown(path)}</div>'
        if name in FOLDED:
            body = f"<details><summary>all shares, arms and metrics</summary>{body}</details>"
        parts.append(f"<h3>{title}</h3>{body}<p>{links}</p>")
    return "\n".join(parts)


def _figures(out: Path, missing: list[str]) -> str:
    parts, folder = ["<h2>Figures</h2>"], out / "figures"
    missing += [f"{FIGURES[name]}: figures/{name}.png" for name in FIGURES if not (folder / f"{name}.png").is_file()]
    others = sorted(path.stem for path in folder.glob("*.png") if path.stem not in FIGURES)
    for name in [*FIGURES, *others]:
        if (folder / f"{name}.png").is_file():
            title = escape(FIGURES.get(name, name.replace("_", " ")))
            link = escape(f"../figures/{name}")
            pdf = f' (<a href="{link}.pdf">PDF</a>)' if (folder / f"{name}.pdf").is_file() else ""
            parts.append(f'<h3>{title}{pdf}</h3><img src="{link}.png" alt="{title}" loading="lazy">')
    return "\n".join(parts)


def _notebooks(config: Experiment, out: Path, missing: list[str]) -> str:
    """Links to the executed notebooks: all but fine-tuning, and of each fine-tuned cell the first fold."""
    wanted = [(job.name, out / "runs" / job.name / "10_pretrain.ipynb") for job in plan.pretrainings(config)]
    cells = plan.kernels(plan.finetunings(config), 10**6).values()
    wanted += [(jobs[0].name, out / "runs" / jobs[0].name / "11_finetune.ipynb") for jobs in cells]
    wanted += [(name, out / "tables" / f"{name}.ipynb") for name in ("20_table1", "21_table2", "30_what_matters")]
    items = []
    for name, path in wanted:
        place = f"notebook {path.relative_to(out).as_posix()}"
        if not path.is_file():
            missing.append(place)
            continue
        rendered = _rendered(path)
        if rendered is None:
            missing.append(f"{place}: damaged")
            continue
        write_text(out / "site" / "notebooks" / f"{name}.html", rendered)
        items.append(f'<li><a href="notebooks/{escape(name)}.html">{escape(name)}</a></li>')
    note = "<p>Notebook 22_figures wrote this page; its executed copy is figures/22_figures.ipynb.</p>"
    return f"<h2>Executed notebooks</h2>\n<ul>{''.join(items)}</ul>\n{note}"


def _rendered(path: Path) -> str | None:
    """An executed notebook as a page of its own, small because it brings no script; None for a damaged file."""
    import nbformat
    from nbconvert import HTMLExporter

    exporter: Any = HTMLExporter(template_name="basic")
    try:
        body, _ = exporter.from_notebook_node(nbformat.read(path, as_version=4))
    except (ValueError, AttributeError, nbformat.ValidationError):
        return None
    name = escape(path.stem)
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title><style>{STYLE}</style>'
    return f'{head}</head><body><p><a href="../index.html">back</a></p>\n{body}</body></html>\n'


def _card(out: Path, missing: list[str]) -> str:
    path = out / "RUN.md"
    if not path.is_file():
        missing.append("the run card: RUN.md")
        return ""
    return f'<h2>Run card</h2><div class="wide">{_markdown(path)}</div>'


def _markdown(path: Path) -> str:
    """Our own Markdown as HTML; raw HTML in it is escaped."""
    import mistune

    html = mistune.create_markdown(escape=True, plugins=["table"])(path.read_text(encoding="utf-8"))
    return str(html)
