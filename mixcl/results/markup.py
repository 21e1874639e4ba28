"""Markdown and notebooks as the HTML of a page: mathematics without a script, and what a reader needs to get about."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

LOCAL = re.compile(r"^(?![#/]|[\w.+-]+:)")
"""Where a link leads to a place beside the page."""
MATH = re.compile(
    r"(?s)(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|(?<![\\$])\$(?P<inline>[^$\n]+(?:\n[^$\n]+)?)\$"
)
READING = re.compile(r"\bR\d{1,2}\b")
QUIET = ["a", "code", "pre", "math", "style", "svg", "h1", "h2", "h3", "h4"]  # R-numbers in these lead nowhere


def parsed(body: str) -> BeautifulSoup:
    """HTML to be gone over by the functions below, which change it; ``str`` gives it back."""
    from bs4 import BeautifulSoup

    return BeautifulSoup(body, "html.parser")


def markdown(text: str) -> str:
    """Our own Markdown as HTML, raw HTML in it escaped."""
    import mistune

    return str(mistune.create_markdown(escape=True, plugins=["table"])(text))


def notebook(path: Path, extract: bool = True) -> tuple[str, str, Mapping[str, bytes]] | None:
    """An executed notebook as title, HTML without a script, pictures by file name (without ``extract`` in the HTML).

    None for a damaged file.
    """
    import nbformat

    try:
        book = nbformat.read(path, as_version=4)
        title = heading = path.stem
        for cell in book.cells:
            if cell.cell_type == "markdown":
                headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
                title, heading = headings[0] if title == path.stem and headings else title, [heading, *headings][-1]
                cell.source = with_mathml(cell.source)
                continue
            # a slider needs a running kernel; the pictures beside it need none
            cell.outputs = [out for out in cell.outputs if not any("widget" in kind for kind in out.get("data", {}))]
            for output in cell.outputs:
                for kind in output.get("data", {}):
                    if kind.startswith("image/"):
                        output.metadata.setdefault(kind, {}).setdefault("alt", f"Picture of the section: {heading}")
        resources = {"unique_key": path.stem, "output_files_dir": "pictures"}
        body, made = _exporter(extract).from_notebook_node(book, resources=resources)
    except (ValueError, AttributeError, nbformat.ValidationError):
        return None
    return title, str(body), made.get("outputs") or {}


@cache
def _exporter(extract: bool) -> Any:
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import ExtractOutputPreprocessor

    exporter = HTMLExporter(template_name="basic")
    exporter.register_preprocessor(ExtractOutputPreprocessor, enabled=extract)
    return exporter


def with_mathml(text: str) -> str:
    """Markdown with $...$ and $$...$$ as MathML, which browsers show without help; code stays as it is.

    >>> with_mathml("`$x$` and $x$")[:10], "<math" in with_mathml("`$x$` and $x$")
    ('`$x$` and ', True)
    >>> with_mathml("$x_$, which is none")
    '$x_$, which is none'
    """
    from latex2mathml.converter import convert

    def put(match: re.Match[str]) -> str:
        if match["code"]:
            return match["code"]
        formula = match["block"] or match["inline"]
        try:
            math = convert(" ".join(formula.split()), display="block" if match["block"] else "inline")
        except Exception:  # a slip in a formula, whose kinds have no common name
            return match[0]
        return str(math).replace("\n", " ").replace("_", "&#95;").replace("*", "&#42;")

    return MATH.sub(put, text)


def make_reachable(page: BeautifulSoup) -> None:
    """Give headings an id and tables headers, and let the keyboard scroll what is wide.

    >>> page = parsed("<h2>What it says</h2>")
    >>> make_reachable(page)
    >>> str(page)
    '<h2 id="what-it-says">What it says</h2>'
    """
    used = {str(tag["id"]) for tag in page.find_all(id=True)}
    for heading in page.find_all(re.compile("^h[1-6]$"), id=False):
        name = re.sub(r"\W+", "-", plain(heading).lower()).strip("-") or "part"
        name = next(n for n in itertools.chain([name], (f"{name}-{k}" for k in itertools.count(2))) if n not in used)
        used.add(name)
        heading["id"] = name
    for number, table in enumerate(page.find_all("table"), 1):
        _give_headers(table)
        region = {"class": "wide", "tabindex": "0", "role": "region", "aria-label": f"Table {number} of this page"}
        table.wrap(page.new_tag("div", attrs=region))
    for formula in page.find_all("math", display="block"):
        group = {"class": "wide", "tabindex": "0", "role": "group", "aria-label": "Formula"}
        formula.wrap(page.new_tag("span", attrs=group))
    for code in page.find_all("pre", tabindex=False):
        code["tabindex"] = "0"


def _give_headers(table: Tag) -> None:
    """Let the headers of a table say of what they are, empty ones be none; those of readings get their number as id."""
    for cell in table.select("thead th"):
        if plain(cell):
            cell["scope"] = "col"
        else:
            cell.name, cell.attrs = "td", {}
    for cell in table.select("tbody tr > :first-child"):
        if text := plain(cell):
            cell.name, cell["scope"] = "th", "row"
            if READING.fullmatch(text):
                cell["id"] = text


def link_pictures(page: BeautifulSoup, folder: Path) -> None:
    """Give pictures, in files below ``folder``, a width and a height, and make them links to themselves."""
    from PIL import Image

    for picture in page.find_all("img", src=True):
        source = str(picture["src"])
        if source.startswith("data:") or not (folder / source).is_file():
            continue
        if source.endswith(".png") and "width" not in picture.attrs:
            with Image.open(folder / source) as image:
                picture["width"], picture["height"] = map(str, image.size)
        picture["loading"] = "lazy"
        picture.wrap(page.new_tag("a", attrs={"class": "full", "href": source}))


def link_pages(page: BeautifulSoup, here: str, pages: Mapping[str, str]) -> None:
    """Let links to files that have a page lead to it, relative to the page ``here``; of others leave the text."""
    for link in page.find_all("a", href=LOCAL, class_=False):  # those with a class lead into the API reference
        path, mark, part = str(link["href"]).partition("#")
        if target := pages.get(path.rpartition("/")[2]):
            link.attrs = {"href": relative(target, here) + mark + part}
        else:
            link.unwrap()


def link_readings(page: BeautifulSoup, numbers: Collection[str], to: str) -> None:
    """Make each known R-number a link into the page ``to``, but for those in links, code and headings.

    >>> page = parsed("<p>See R9, <code>R9</code> and r9.</p>")
    >>> link_readings(page, {"R9"}, "readings.html")
    >>> str(page)
    '<p>See <a href="readings.html#R9">R9</a>, <code>R9</code> and r9.</p>'
    """
    from bs4 import NavigableString

    for text in page.find_all(string=READING):
        if type(text) is NavigableString and not text.find_parent(QUIET):  # a comment is another type
            parts = re.split(f"({READING.pattern})", text)
            text.replace_with(
                *(page.new_tag("a", href=f"{to}#{part}", string=part) if part in numbers else part for part in parts)
            )


def sections(page: BeautifulSoup) -> list[tuple[str, str]]:
    """Id and text of the headings of the second level."""
    return [(str(heading["id"]), plain(heading)) for heading in page.find_all("h2", id=True)]


def plain(tag: Tag) -> str:
    """The text of a part of a page, without the sign of an anchor."""
    return " ".join(tag.get_text().replace("¶", "").split())


def relative(page: str, here: str) -> str:
    """A page as seen from another, both below the folder of the site.

    >>> relative("index.html", "notebooks/a.html"), relative("notebooks/b.html", "notebooks/a.html")
    ('../index.html', 'b.html')
    """
    return Path(os.path.relpath(page, Path(here).parent)).as_posix()
