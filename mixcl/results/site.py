"""The pages of a run: what it says, its tables, figures, run card and notebooks, to be opened in any browser."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mixcl.config.settings import Experiment
from mixcl.errors import needs
from mixcl.files import whole, write_text
from mixcl.results import markup
from mixcl.results.findings import findings
from mixcl.results.notes import TEMPLATES
from mixcl.results.runs import rank
from mixcl.results.wording import FIGURES, PHANTOM, arm_title, figure_title, job_title, share_title
from mixcl.run import jobs

TABLES = {
    "table1": "Table 1: MixCL against training from scratch",
    "table2": "Table 2: ablation",
    "effects": "What matters",
    "map": "When it helps",
    "organs": "Organs",
}
DIAGNOSTICS = ("losses", "diagnostics")  # how the names of those end that have a page of their own
WALK = Path(__file__).resolve().parents[2] / "notebooks"
ROOT = WALK.parent
READINGS, EQUATIONS, API = "reproduce/READINGS.html", "equations.html", "api/mixcl.html"
BOOKS = ("Walk-through", "Notebooks of this run")  # groups whose pages are read one after the other
ALWAYS = ("Take care", "Missing", "The same trainings")  # notes of a table that are not folded away
ACCESSIBLE = {
    'class="headerlink"': 'class="headerlink" aria-label="Link to this"',
    "<pre>": '<pre tabindex="0">',
    '<div class="attr ': '<div tabindex="0" class="attr ',
    "<h6": "<h3",
    "</h6>": "</h3>",
}
"""What a screen reader and a keyboard need of the API reference."""


class Page(NamedTuple):
    """A page of the site: its path below the folder, what it is called, its HTML, and the group it belongs to."""

    path: str
    title: str
    body: str
    group: str


def site(config: Experiment, out: Path) -> Path:
    """Write ``out``/site/index.html and the pages beside it; the path of the first.

    What is not there is named on the page under "Not here".  The folder ``site`` stands alone: pictures, PDFs and
    tables are copied into it, nothing is loaded from elsewhere, and there is no script.  Raises `InputError` without
    the extra ``notebooks``, or where it cannot be written.
    """
    needs("notebooks", "bs4", "latex2mathml", "mistune", "nbconvert", "nbformat")
    run, missing = TEMPLATES.get_template("run.html"), list[str]()
    sources: dict[str, str] = {"READINGS.md": READINGS}
    notebooks = [*_notebooks(config, out, missing, sources)]
    references = [*_references(out, missing)]
    figures = _figures(out, missing)
    diagnostics = [figure for figure in figures if figure["name"].endswith(DIAGNOSTICS)]
    first = run.render(
        diagnostics=False,
        profile=config.profile,
        warning=PHANTOM if config.data.source == "phantom" else "",
        findings=findings(out, config),
        tables=_tables(out, missing),
        figures=[figure for figure in figures if figure not in diagnostics],
        folds=[page for page in notebooks if page.group == "folds"],
        card=_file(out / "RUN.md", "the run card: RUN.md", missing),
        missing=missing,
    )
    pages = [Page("index.html", "What this run says", first, "This run")]
    if diagnostics:
        body = run.render(diagnostics=True, figures=diagnostics)
        pages.append(Page("diagnostics.html", "Diagnostics", body, "This run"))
    pages += [*notebooks, *references]
    numbers = set(markup.READING.findall("".join(page.body for page in references if page.path == READINGS)))
    for page in pages:
        write_text(out / "site" / page.path, _whole_page(page, pages, sources, numbers, out / "site"))
    return out / "site" / "index.html"


def reference(out: Path) -> Path:
    """Write ``out``/site/api, a page a module of the package from its docstrings; the path of the first."""
    import pkgutil
    import warnings

    import pdoc

    face = sys.modules["mixcl"]  # itself, as it is read
    names = [module.name for module in pkgutil.walk_packages(face.__path__, "mixcl.")]
    vars(face).update({name: getattr(face, name) for name in face.__all__})  # those that are imported when asked for
    folder, templates = out / "site" / "api", Path(__file__).with_name("pdoc")
    pdoc.render.configure(docformat="numpy", search=False, show_source=False, template_directory=templates)
    with warnings.catch_warnings(action="ignore"):
        pdoc.pdoc("mixcl", *(name for name in names if not name.endswith("__main__")), output_directory=folder)
    for path in folder.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for plain, accessible in ACCESSIBLE.items():
            text = text.replace(plain, accessible)
        write_text(path, text)
    return folder / "mixcl.html"


def _whole_page(page: Page, pages: list[Page], sources: dict[str, str], numbers: set[str], folder: Path) -> str:
    """A page with its contents, and all that leads from it to others."""
    body = markup.parsed(page.body)
    if page.path != "index.html":  # whose links are ours
        markup.link_pages(body, page.path, sources)
    markup.make_reachable(body)
    markup.link_pictures(body, (folder / page.path).parent)
    markup.link_readings(body, numbers, "" if page.path == READINGS else markup.relative(READINGS, page.path))
    order = [other for other in pages if other.group == page.group or {other.group, page.group} <= {*BOOKS}]
    place = order.index(page)
    return TEMPLATES.get_template("site.html").render(
        page=page,
        body=str(body),
        sections=markup.sections(body),
        groups={group: [p for p in pages if p.group == group] for group in dict.fromkeys(p.group for p in pages)},
        api=(folder / API).is_file(),
        before=order[place - 1] if place else None,
        after=order[place + 1] if place + 1 < len(order) else None,
        to=lambda path: markup.relative(path, page.path),
    )


def _references(out: Path, missing: list[str]) -> Iterator[Page]:
    """The table of readings, and that of the equations with links into the API reference."""
    if body := _file(ROOT / "reproduce" / "READINGS.md", "the readings of the paper: reproduce/READINGS.md", missing):
        yield Page(READINGS, "How the paper is read", body, "Reference")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if table := re.search(r"^## From the paper to the code\n.*?(?=^## )", text, re.DOTALL | re.MULTILINE):
        links = "\n".join(re.findall(r"^\[\w+\]: .*$", text, re.MULTILINE))
        body = markup.markdown(f"{table[0].replace('## ', '# ', 1)}\n{links}")
        yield Page(EQUATIONS, "From the paper to the code", _with_api(body, out / "site" / "api"), "Reference")
    else:
        missing.append("the table of the equations: README.md")
    if not (out / "site" / API).is_file():
        missing.append("the API reference: notebook 22 makes it")


def _with_api(body: str, folder: Path) -> str:
    """HTML in which the code that has an entry in the API reference is a link to it."""
    page = markup.parsed(body)
    for code in page.find_all("code", string=re.compile(r"^[\w.]+\.\w+$")):
        module, _, name = code.get_text().rpartition(".")
        path = folder / "mixcl" / f"{module.replace('.', '/')}.html"
        if path.is_file() and f'id="{name}"' in path.read_text(encoding="utf-8"):
            place = f"api/{path.relative_to(folder).as_posix()}#{name}"
            code.wrap(page.new_tag("a", attrs={"href": place, "class": "api"}))
    return str(page)


def _tables(out: Path, missing: list[str]) -> list[dict[str, Any]]:
    """Each table: its sheets, of which those that would hide the figures are folded away, and its files."""
    tables = []
    for name, heading in TABLES.items():
        path = out / "tables" / f"{name}.md"
        if not path.is_file():
            missing.append(f"{heading}: tables/{name}.md")
            continue
        sheets = [_sheet(text) for text in re.split(r"(?m)^(?=\*\*)", path.read_text(encoding="utf-8")) if text.strip()]
        first = 0 if name == "organs" else 1  # a dozen of them would hide the figures
        files = [_copied(out, path.with_suffix(suffix)) for suffix in (".csv", ".tex")]
        parts = {"shown": sheets[:first], "folded": sheets[first:], "files": [*filter(None, files)]}
        tables.append({"name": name, "title": heading, **parts})
    return tables


def _sheet(text: str) -> dict[str, str]:
    """A table and its notes, which say how it was made: those that must be seen, and the others."""
    lines = text.splitlines()
    notes = [line for line in lines if line.startswith("- ")]
    seen = [note for note in notes if any(word in note for word in ALWAYS)]
    parts = {
        "table": [line for line in lines if line not in notes],
        "seen": seen,
        "notes": [note for note in notes if note not in seen],
    }
    return {name: markup.markdown("\n".join(part)) for name, part in parts.items()}


def _figures(out: Path, missing: list[str]) -> list[dict[str, str]]:
    """The figures of a run: heading, what they show, and the names of their copies."""
    from PIL import Image

    names, figures = [path.stem for path in sorted((out / "figures").glob("[!.]*.png"))], []
    expected = [name for name in FIGURES if name != "effects" and not name.endswith(DIAGNOSTICS)]
    missing += [f"{figure_title(name)}: figures/{name}.png" for name in expected if name not in names]
    for name in sorted(names, key=lambda name: rank(name, FIGURES)):
        png, pdf = (_copied(out, out / "figures" / f"{name}.{suffix}") for suffix in ("png", "pdf"))
        with Image.open(out / "figures" / f"{name}.png") as image:  # says itself what it shows, and where that is from
            caption = re.split(r"\s*Profiles? ", str(image.info.get("Description", "")), maxsplit=1)[0]
        alt = f"{figure_title(name)}. {caption}".strip()
        figures.append({"name": name, "title": figure_title(name), "alt": alt, "png": png, "pdf": pdf})
    return figures


def _copied(out: Path, path: Path) -> str:
    """The name of a file's copy, so that the folder of the page stands alone; nothing where there is no file."""
    if not path.is_file():
        return ""
    to = out / "site" / "files" / path.name
    with whole(to) as draft:
        shutil.copyfile(path, draft)
    return path.name


def _notebooks(config: Experiment, out: Path, missing: list[str], sources: dict[str, str]) -> Iterator[Page]:
    """The executed notebooks, group by group; ``sources`` gets the page of each by the name of its file, for links."""
    walk = {path: "" for pattern in ("0*", "31_*") for path in sorted(WALK.glob(f"{pattern}.ipynb"))}
    runs = {out / "runs" / job.name / "10_pretrain.ipynb": job_title(job.name) for job in jobs.pretrainings(config)}
    names = ("20_table1", "21_table2", "30_what_matters", "32_when_does_it_help")
    runs |= {out / "tables" / f"{name}.ipynb": "" for name in names}
    folds = {}
    for job in jobs.finetunings(config):
        task, percent, arm, fold, seed = (job.parameters[key] for key in ("TASK", "PERCENT", "ARM", "FOLD", "SEED"))
        what = f"{share_title(task, percent)}, {arm_title(arm)}, fold {fold}, seed {seed}"
        folds[out / "runs" / job.name / "11_finetune.ipynb"] = what
    for group, books in (("Walk-through", walk), ("Notebooks of this run", runs), ("folds", folds)):
        for path, what in books.items():
            name = path.parent.name if path.parent.parent == out / "runs" else path.stem
            if made := markup.notebook(path, group != "folds") if path.is_file() else None:
                for file, picture in made[2].items():
                    with whole(out / "site" / "notebooks" / file) as draft:
                        draft.write_bytes(picture)
                page = Page(f"notebooks/{name}.html", what or f"{name[:2]} {made[0]}", made[1], group)
                sources.setdefault(path.name, page.path)
                yield page
            else:
                place = path.relative_to(out).as_posix() if path.is_relative_to(out) else path.name
                missing.append(f"notebook {place}{': damaged' if path.is_file() else ''}")


def _file(path: Path, name: str, missing: list[str]) -> str:
    """A Markdown file as HTML; nothing, and its name on the list, where it is not there."""
    if not path.is_file():
        missing.append(name)
        return ""
    return markup.markdown(path.read_text(encoding="utf-8"))
