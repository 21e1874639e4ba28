"""A table as text: CSV, Markdown, and LaTeX that needs no package."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mixcl.files import write_text
from mixcl.spreadsheet import to_csv

MISSING = "-"
MARK = "✓"
TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "|": r"\textbar{}", '"': r"\symbol{34}",
    "`": r"\symbol{96}", "<": "$<$", ">": "$>$", "±": "$\\pm$",
}  # fmt: skip
"""What stands for each character that LaTeX, or a package such as babel, would take for a command."""


@dataclass(frozen=True)
class TextTable:
    """A table to be written.

    ``name``: bold, before the Markdown caption.  ``groups``: blocks of columns, each with a title (may be empty) and
    the names of its columns.  ``rows``: texts, as many as there are columns.  ``notes``: below the table.
    """

    name: str
    caption: str
    groups: Sequence[tuple[str, Sequence[str]]]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, name: str, caption: str, columns: Mapping[str, Iterable[str]], notes: Sequence[str]) -> TextTable:
        """A table of one block of ``columns``, their texts by name."""
        return cls(name, caption, [("", tuple(columns))], list(zip(*columns.values(), strict=True)), notes)


def write_table(folder: Path, name: str, table: pd.DataFrame, parts: Sequence[TextTable]) -> None:
    """Write ``folder``/NAME.csv, .md and .tex."""
    for suffix, text in (("csv", csv(table)), ("md", markdown(parts)), ("tex", latex(parts))):
        write_text(folder / f"{name}.{suffix}", text)


def csv(table: pd.DataFrame) -> str:
    """As CSV, percent as it is said (15, not 15.0)."""
    return to_csv(table.assign(percent=[f"{p:g}" for p in table["percent"]]))


def markdown(parts: Iterable[TextTable]) -> str:
    """Tables below one another, each with caption, rows and notes."""
    lines: list[str] = []
    for part in parts:
        header = [
            f"{title}: {name}" if title and not number else name
            for title, names in part.groups
            for number, name in enumerate(names)
        ]
        table = [header, ["---"] * len(header), *part.rows]
        lines += [f"**{part.name}** {part.caption}", ""]
        lines += ["| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in row) + " |" for row in table]
        lines += ["", *(f"- {note}" for note in part.notes), *([""] if part.notes else [])]
    return "\n".join(lines).rstrip() + "\n"


def latex(parts: Iterable[TextTable]) -> str:
    """Each table as a ``table``; small print, centred over the text and into the margins where it is wide."""
    lines: list[str] = []
    for part in parts:
        blocks = [rf"\multicolumn{{{len(names)}}}{{c}}{{{tex(title)}}}" for title, names in part.groups]
        rows = [" & ".join(map(tex, cells)) + r" \\" for cells in part.rows]
        lines += [  # a bracket or star at the beginning of a row would be an argument of the line break before it
            r"\begin{table}",
            rf"\caption{{{tex(part.caption)}}}",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}\renewcommand{\arraystretch}{1.2}\medskip",
            rf"\makebox[\textwidth][c]{{\begin{{tabular}}{{{'|'.join('l' * len(names) for _, names in part.groups)}}}",
            r"\hline",
            " & ".join(blocks) + r" \\",
            " & ".join(tex(name) for _, names in part.groups for name in names) + r" \\",
            r"\hline",
            *(f"{{}}{row}" if row.startswith(("[", "*")) else row for row in rows),
            r"\hline",
            r"\end{tabular}}",
            *(rf"\par\smallskip{{\footnotesize {tex(note)}}}" for note in part.notes),
            r"\end{table}",
            "",
        ]
    return "\n".join(lines)


def tex(text: str) -> str:
    r"""Text for LaTeX.

    >>> tex("btcv_2: 5 % +0.0019 [a]")
    'btcv\\_2: 5 \\% $+$0.0019\\textsuperscript{a}'
    >>> tex("[-0.1, +0.2], p < 0.001")
    '[$-$0.1, $+$0.2], p $<$ 0.001'
    >>> tex(r"\input{a}")
    '\\textbackslash{}input\\{a\\}'
    """
    if text in (MISSING, MARK):
        return "--" if text == MISSING else r"$\surd$"
    text = "".join(TEX.get(sign, sign) for sign in one_line(text))
    text = re.sub(r" ?(\$\\pm\$) ?", r" \1 ", text)
    text = re.sub(r"(?<![\w.$])([+-])(?=\d)", r"$\1$", text)
    return re.sub(r" ?\[([a-z])\]", r"\\textsuperscript{\1}", text)


def one_line(text: str) -> str:
    r"""Printable signs and single spaces: a line break in a name would end a row.

    >>> one_line("left\n\nkidney\0")
    'left kidney'
    """
    return "".join(sign for sign in " ".join(text.split()) if sign.isprintable())
