"""The page of a run: tables, figures, run card and executed notebooks in one place, to be opened in any browser."""

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, Template

from mixcl.config.settings import Experiment
from mixcl.errors import InputError, needs
from mixcl.files import whole, write_text
from mixcl.results.runcard import read_run_card
from mixcl.results.wording import PHANTOM
from mixcl.run import jobs

TABLES = {
    "table1": "Table 1",
    "table2": "Table 2: ablation",
    "effects": "What matters",
    "map": "When it helps",
    "organs": "Organs",
}
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
READINGS = WALK.parent / "reproduce" / "READINGS.md"
LINK = re.compile(
    r'<a href="(?![#/]|[\w.+-]+:)(?P<folder>(?:[^"#]*/)?)(?P<name>[^"#/]*)(?P<part>#[^"]*)?"[^>]*>(?P<text>.*?)</a>',
    re.DOTALL,
)
"""A link to a place beside the page."""
MATH = re.compile(
    r"(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|(?<![\\$])\$(?P<inline>[^$\n]+(?:\n[^$\n]+)?)\$", re.DOTALL
)


def site(config: Experiment, out: Path) -> Path:
    """Write ``out``/site/index.html and the pages of the notebooks beside it; the page's path.

    What is not there is named on the page under "Not here".  The folder ``site`` stands alone: pictures, PDFs and
    tables are copied into it, nothing is loaded from elsewhere, and there is no script.

    Raises
    ------
    InputError
        A full disk, missing permission, or no extra ``notebooks``.
    """
    needs("notebooks", "latex2mathml", "mistune", "nbconvert", "nbformat")
    missing: list[str] = []
    page = out / "site" / "index.html"
    if readings := _markdown(READINGS, "the readings of the paper: reproduce/READINGS.md", missing):
        text = _template().render(title="Readings", notebook=_linked(readings))
        write_text(out / "site" / "reproduce" / "READINGS.html", text)
    text = _template().render(
        title=f"mixcl: profile {config.profile}",
        profile=config.profile,
        origin=_origin(out),
        warning=PHANTOM if config.data.source == "phantom" else "",
        tables=_tables(out, missing),
        figures=_figures(out, missing),
        **_notebooks(config, out, missing),
        card=_markdown(out / "RUN.md", "the run card: RUN.md", missing),
        missing=missing,
    )
    write_text(page, text)
    return page


@cache
def _template() -> Template:
    return Environment(loader=PackageLoader("mixcl.results", ""), autoescape=True).get_template("site.html")


def _origin(out: Path) -> str:
    """Commit, seeds and data, as the run card has them."""
    try:
        card = read_run_card(out)
        data = ", ".join(f"{name} {prepared['fingerprint'][:12]}" for name, prepared in card["data"].items())
        return f"Commit {card['commit'][:12]}; seeds {card['seeds']['finetune']}; data {data}."
    except InputError:
        return "There is no run card yet, so commit and data are not known."


def _tables(out: Path, missing: list[str]) -> list[dict[str, Any]]:
    tables = []
    for name, title in TABLES.items():
        if body := _markdown(out / "tables" / f"{name}.md", f"{title}: tables/{name}.md", missing):
            files = [_copied(out, out / "tables" / f"{name}.{suffix}") for suffix in ("csv", "tex")]
            tables.append(
                {"title": title, "body": body, "files": [file for file in files if file], "folded": name in FOLDED}
            )
    return tables


def _figures(out: Path, missing: list[str]) -> list[dict[str, str]]:
    names, figures = [path.stem for path in sorted((out / "figures").glob("*.png"))], []
    missing += [f"{title}: figures/{name}.png" for name, title in FIGURES.items() if name not in names]
    for name in sorted(names, key=lambda name: list(FIGURES).index(name) if name in FIGURES else len(FIGURES)):
        png, pdf = (_copied(out, out / "figures" / f"{name}.{suffix}") for suffix in ("png", "pdf"))
        figures.append({"title": FIGURES.get(name, name.replace("_", " ")), "png": png, "pdf": pdf})
    return figures


def _walk() -> dict[str, Path]:
    """The notebooks that are committed as they were executed, by the names of their pages."""
    return {path.stem: path for pattern in ("0*", "31_*") for path in sorted(WALK.glob(f"{pattern}.ipynb"))}


def _linked(body: str) -> str:
    """Links between our pages lead to their HTML; of one to a file that has no page, the text is left."""
    pages = {READINGS.name: "READINGS.html"} | {path.name: f"{name}.html" for name, path in _walk().items()}

    def put(match: re.Match[str]) -> str:
        folder, name = match["folder"], pages.get(match["name"])
        return f'<a href="{folder}{name}{match["part"] or ""}">{match["text"]}</a>' if name else match["text"]

    return LINK.sub(put, body)


def _copied(out: Path, path: Path) -> str:
    """The name of a file's copy, so that the folder of the page stands alone; nothing where there is no file."""
    if not path.is_file():
        return ""
    to = out / "site" / "files" / path.name
    with whole(to) as draft:
        shutil.copyfile(path, draft)
    return path.name


def _notebooks(config: Experiment, out: Path, missing: list[str]) -> dict[str, list[str]]:
    """Names of the pages of all executed notebooks: the walk-through, those of this run, fold by fold."""
    runs = {job.name: out / "runs" / job.name / "10_pretrain.ipynb" for job in jobs.pretrainings(config)}
    runs |= {
        name: out / "tables" / f"{name}.ipynb"
        for name in ("20_table1", "21_table2", "30_what_matters", "32_when_does_it_help")
    }
    folds = {job.name: out / "runs" / job.name / "11_finetune.ipynb" for job in jobs.finetunings(config)}
    groups = {"walk": _walk(), "runs": runs, "folds": folds}
    return {
        group: [name for name, path in notebooks.items() if _page(out, name, path, missing)]
        for group, notebooks in groups.items()
    }


def _page(out: Path, name: str, path: Path, missing: list[str]) -> bool:
    """Write the page of a notebook; whether it is there and whole."""
    body = rendered_notebook(path) if path.is_file() else None
    if body is None:
        place = path.relative_to(out).as_posix() if path.is_relative_to(out) else path.name
        missing.append(f"notebook {place}{': damaged' if path.is_file() else ''}")
        return False
    write_text(out / "site" / "notebooks" / f"{name}.html", _template().render(title=name, notebook=body))
    return True


def rendered_notebook(path: Path) -> str | None:
    """An executed notebook as HTML, mathematics as MathML, without a script; None for a damaged file."""
    import nbformat

    try:
        book = nbformat.read(path, as_version=4)
        for cell in book.cells:
            if cell.cell_type == "markdown":
                cell.source = with_mathml(cell.source)
            else:  # a slider needs a running kernel; the pictures beside it need none
                outputs = cell.outputs
                cell.outputs = [out for out in outputs if not any("widget" in kind for kind in out.get("data", {}))]
        body, _ = _exporter().from_notebook_node(book)
    except (ValueError, AttributeError, nbformat.ValidationError):
        return None
    return _linked(str(body))


def with_mathml(text: str) -> str:
    """Markdown with $...$ and $$...$$ as MathML, which browsers show without help; code stays as it is.

    >>> with_mathml("`$x$` and $x$")[:10], "<math" in with_mathml("`$x$` and $x$")
    ('`$x$` and ', True)
    """
    from latex2mathml.converter import convert

    def put(match: re.Match[str]) -> str:
        if match["code"]:
            return match["code"]
        formula = match["block"] or match["inline"]
        math = convert(" ".join(formula.split()), display="block" if match["block"] else "inline")
        return str(math).replace("\n", " ").replace("_", "&#95;").replace("*", "&#42;")

    return MATH.sub(put, text)


@cache
def _exporter() -> Any:
    from nbconvert import HTMLExporter

    return HTMLExporter(template_name="basic")


def _markdown(path: Path, name: str, missing: list[str]) -> str:
    """Our own Markdown as HTML, raw HTML in it escaped; nothing, and the name on the list, where there is no file."""
    import mistune

    if not path.is_file():
        missing.append(name)
        return ""
    return str(mistune.create_markdown(escape=True, plugins=["table"])(path.read_text(encoding="utf-8")))
