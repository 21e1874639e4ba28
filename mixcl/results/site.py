"""The page of a run: tables, figures, run card and executed notebooks in one place, to be opened in any browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from mixcl.config.settings import Experiment
from mixcl.files import whole, write_text
from mixcl.run import jobs

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
WALK = Path(__file__).resolve().parents[2] / "notebooks"
MATH = re.compile(
    r"(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|(?<![\\$])\$(?P<inline>[^$\n]+(?:\n[^$\n]+)?)\$", re.DOTALL
)
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

    What is not there is named on the page under "Not here".  The folder ``site`` stands alone: pictures, PDFs and
    tables are copied into it, nothing is loaded from elsewhere, and there is no script.

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
        links = ", ".join(f'<a href="{_copied(out, path.parent / other)}">{other}</a>' for other in others)
        body = f'<div class="wide">{_markdown(path)}</div>'
        if name in FOLDED:
            body = f"<details><summary>all shares, arms and metrics</summary>{body}</details>"
        parts.append(f"<h3>{title}</h3>{body}<p>{links}</p>")
    return "\n".join(parts)


def _copied(out: Path, path: Path) -> str:
    """The link to a copy of a file, so that the folder of the page stands alone."""
    to = out / "site" / "files" / path.name
    with whole(to) as draft:
        shutil.copyfile(path, draft)
    return escape(f"files/{path.name}")


def _figures(out: Path, missing: list[str]) -> str:
    parts, folder = ["<h2>Figures</h2>"], out / "figures"
    missing += [f"{FIGURES[name]}: figures/{name}.png" for name in FIGURES if not (folder / f"{name}.png").is_file()]
    others = sorted(path.stem for path in folder.glob("*.png") if path.stem not in FIGURES)
    for name in [*FIGURES, *others]:
        if (folder / f"{name}.png").is_file():
            title = escape(FIGURES.get(name, name.replace("_", " ")))
            vector = folder / f"{name}.pdf"
            pdf = f' (<a href="{_copied(out, vector)}">PDF</a>)' if vector.is_file() else ""
            picture = _copied(out, folder / f"{name}.png")
            parts.append(f'<h3>{title}{pdf}</h3><img src="{picture}" alt="{title}" loading="lazy">')
    return "\n".join(parts)


def _notebooks(config: Experiment, out: Path, missing: list[str]) -> str:
    """Links to the pages of all executed notebooks: the walk-through, those of this run, fold by fold."""
    walk = [(path.stem, path) for path in sorted(WALK.glob("0*.ipynb"))]
    runs = [(job.name, out / "runs" / job.name / "10_pretrain.ipynb") for job in jobs.pretrainings(config)]
    runs += [(name, out / "tables" / f"{name}.ipynb") for name in ("20_table1", "21_table2", "30_what_matters")]
    folds = [(job.name, out / "runs" / job.name / "11_finetune.ipynb") for job in jobs.finetunings(config)]
    lists = [_pages(out, some, missing) for some in (walk, runs, folds)]
    return (
        f"<h2>Walk-through</h2>\n<p>As it was last refreshed, on phantoms of its own.</p>{lists[0]}\n"
        f"<h2>Executed notebooks</h2>\n{lists[1]}\n"
        f"<details><summary>fine-tuning, fold by fold</summary>{lists[2]}</details>\n"
        "<p>Notebook 22_figures wrote this page; its executed copy is figures/22_figures.ipynb.</p>"
    )


def _pages(out: Path, wanted: Sequence[tuple[str, Path]], missing: list[str]) -> str:
    """Write a page for each notebook that is there; the list of links."""
    items = []
    for name, path in wanted:
        place = f"notebook {path.relative_to(out).as_posix() if path.is_relative_to(out) else path.name}"
        rendered = rendered_notebook(path) if path.is_file() else None
        if rendered is None:
            missing.append(f"{place}: damaged" if path.is_file() else place)
            continue
        write_text(out / "site" / "notebooks" / f"{name}.html", rendered)
        items.append(f'<li><a href="notebooks/{escape(name)}.html">{escape(name)}</a></li>')
    return f"<ul>{''.join(items)}</ul>"


def rendered_notebook(path: Path) -> str | None:
    """An executed notebook as a page of its own, mathematics as MathML, without a script; None for a damaged file."""
    import nbformat

    try:
        book = nbformat.read(path, as_version=4)
        for cell in book.cells:
            if cell.cell_type == "markdown":
                cell.source = with_mathml(cell.source)
            else:
                cell.outputs = [one for one in cell.outputs if not _widget(one)]
        body, _ = _exporter().from_notebook_node(book)
    except (ValueError, AttributeError, nbformat.ValidationError):
        return None
    name = escape(path.stem)
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title><style>{STYLE}</style>'
    body = body.replace('.ipynb"', '.html"')
    return f'{head}</head><body><p><a href="../index.html">back</a></p>\n{body}</body></html>\n'


def with_mathml(text: str) -> str:
    """Markdown with $...$ and $$...$$ as MathML, which browsers show without help; code stays as it is.

    >>> with_mathml("`$x$` and $x$")[:10], "<math" in with_mathml("`$x$` and $x$")
    ('`$x$` and ', True)
    """
    from latex2mathml.converter import convert

    def put(match: re.Match[str]) -> str:
        if match["code"]:
            return match["code"]
        shown = match["block"] or match["inline"]
        math = convert(" ".join(shown.split()), display="block" if match["block"] else "inline")
        return str(math).replace("\n", " ").replace("_", "&#95;").replace("*", "&#42;")

    return MATH.sub(put, text)


def _widget(output: Any) -> bool:
    """Whether an output is a slider, which needs a running kernel; the pictures beside it need none."""
    return any("widget" in kind for kind in output.get("data", {}))


@cache
def _exporter() -> Any:
    from nbconvert import HTMLExporter

    return HTMLExporter(template_name="basic")


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
