"""Markdown and notebooks as the HTML of a page: mathematics without a script, and what a reader needs to get about."""

import html
import itertools
import os
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

LINK = re.compile(
    r'(?s)<a href="(?![#/]|[\w.+-]+:)(?:[^"#]*/)?(?P<name>[^"#/]*)(?P<part>#[^"]*)?"[^>]*>(?P<text>.*?)</a>'
)
"""A link to a place beside the page."""
MATH = re.compile(
    r"(?s)(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|(?<![\\$])\$(?P<inline>[^$\n]+(?:\n[^$\n]+)?)\$"
)
HEADING = re.compile(r"<h(?P<level>[1-6])(?P<more>[^>]*)>(?P<text>.*?)</h(?P=level)>", re.DOTALL)
TABLE = re.compile(r"<table.*?</table>", re.DOTALL)
IMAGE = re.compile(r'<img(?P<more>[^>]*?) src="(?P<src>[^"]+)"(?P<rest>[^>]*)>')
READING = re.compile(r"\bR\d{1,2}\b")
QUIET = ("a", "code", "pre", "math", "style", "svg", "h1", "h2", "h3", "h4")  # R-numbers in these lead nowhere


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
                found = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
                title, heading = (found[0] if title == path.stem and found else title), (found or [heading])[-1]
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


def reachable(body: str) -> str:
    """HTML whose headings have ids, whose tables have headers, and whose wide parts the keyboard can scroll.

    >>> reachable("<h2>What it says</h2>")
    '<h2 id="what-it-says">What it says</h2>'
    """
    used: set[str] = set(re.findall(r'id="([^"]+)"', body))
    numbers = itertools.count(1)

    def heading(match: re.Match[str]) -> str:
        if "id=" in match["more"]:
            return match[0]
        name = re.sub(r"\W+", "-", plain(match["text"]).lower()).strip("-") or "part"
        name = next(n for n in itertools.chain([name], (f"{name}-{k}" for k in itertools.count(2))) if n not in used)
        used.add(name)
        return f'<h{match["level"]} id="{name}"{match["more"]}>{match["text"]}</h{match["level"]}>'

    def table(match: re.Match[str]) -> str:
        where = f'class="wide" tabindex="0" role="region" aria-label="Table {next(numbers)} of this page"'
        return f"<div {where}>{_with_headers(match[0])}</div>"

    formula = r'<span class="wide" tabindex="0" role="group" aria-label="Formula">\g<0></span>'
    body = re.sub(r'<math display="block".*?</math>', formula, body, flags=re.DOTALL)
    body = TABLE.sub(table, HEADING.sub(heading, body))
    return re.sub(r"<pre(?![^>]*tabindex)", '<pre tabindex="0"', body)


def _with_headers(table: str) -> str:
    """A table whose headers say of what they are, empty ones being none; those of readings have their number as id."""

    def row(match: re.Match[str]) -> str:
        name = f' id="{match["text"]}"' if READING.fullmatch(match["text"]) else ""
        return f'{match["row"]}<th scope="row"{name}{match["more"]}>{match["text"]}</th>'

    head, middle, rows = table.partition("<tbody>")
    head = re.sub(r"<th(?:\s[^>]*)?></th>", "<td></td>", head)
    head = re.sub(r"<th(?P<more>(?:\s[^>]*)?)>(?=[^<])", r'<th scope="col"\g<more>>', head)
    rows = re.sub(r"(?P<row><tr[^>]*>\s*)<t[dh](?P<more>[^>]*)>(?P<text>.+?)</t[dh]>", row, rows)
    return f"{head}{middle}{rows}"


def with_sizes(body: str, folder: Path) -> str:
    """HTML whose pictures, in files below ``folder``, have a width and a height, and are links to themselves."""
    from PIL import Image

    def put(match: re.Match[str]) -> str:
        path = folder / html.unescape(match["src"])
        if match["src"].startswith("data:") or not path.is_file():
            return match[0]
        size = ""
        if "width=" not in match["more"] + match["rest"] and path.suffix == ".png":
            with Image.open(path) as image:
                size = ' width="{}" height="{}"'.format(*image.size)
        image_tag = f'<img{match["more"]} src="{match["src"]}"{match["rest"]}{size} loading="lazy">'
        return f'<a class="full" href="{match["src"]}">{image_tag}</a>'

    return IMAGE.sub(put, body)


def linked(body: str, here: str, pages: Mapping[str, str]) -> str:
    """Links to files that have a page lead to it, relative to the page ``here``; of others the text is left."""

    def put(match: re.Match[str]) -> str:
        page = pages.get(match["name"])
        return f'<a href="{relative(page, here)}{match["part"] or ""}">{match["text"]}</a>' if page else match["text"]

    return LINK.sub(put, body)


def with_readings(body: str, numbers: Collection[str], to: str) -> str:
    """HTML in which each known R-number is a link into the page ``to``, but for links, code and headings.

    >>> with_readings("<p>See R9, <code>R9</code> and r9.</p>", {"R9"}, "readings.html")
    '<p>See <a href="readings.html#R9">R9</a>, <code>R9</code> and r9.</p>'
    """
    quiet, parts = 0, []
    for part in re.split(r"(<[^>]+>)", body):
        if tag := re.match(r"<(/?)(\w+)", part):
            quiet += (tag[2] in QUIET) * (-1 if tag[1] else 1)
        elif not quiet:
            part = READING.sub(lambda m: f'<a href="{to}#{m[0]}">{m[0]}</a>' if m[0] in numbers else m[0], part)
        parts.append(part)
    return "".join(parts)


def sections(body: str) -> list[tuple[str, str]]:
    """Id and text of the headings of the second level."""
    found = re.findall(r'<h2(?=\s)[^>]*?id="([^"]+)"[^>]*>(.*?)</h2>', body, re.DOTALL)
    return [(name, plain(text)) for name, text in found]


def plain(text: str) -> str:
    """The text of HTML, without the sign of an anchor."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).replace("¶", "").split())


def relative(page: str, here: str) -> str:
    """A page as seen from another, both below the folder of the site.

    >>> relative("index.html", "notebooks/a.html"), relative("notebooks/b.html", "notebooks/a.html")
    ('../index.html', 'b.html')
    """
    return Path(os.path.relpath(page, Path(here).parent)).as_posix()
