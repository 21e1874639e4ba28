"""A table that lists the files of a collection, as spreadsheets write it."""

import codecs
import csv
import os
import re
import unicodedata
from pathlib import Path

from mixcl.errors import InputError
from mixcl.files import file_name

BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
SEPARATORS = (",", ";", "\t", "|")


def listed(path: Path) -> tuple[dict[str, tuple[Path, Path]], dict[str, str]]:
    """Cases (image, label) of a table with these columns (paths from its folder) and, if given, ``case``.

    Read are UTF-8, UTF-16 and Windows-1252; columns parted by comma, semicolon, tab or bar; names of columns in any
    case.  Beside the cases comes a sentence by case on each whose line is wrong: a file that is not listed, not there
    or out of reach, the name of another, or none that a file could have.

    Raises InputError: no table, no such columns, or no line.
    """
    rows = _rows(path)
    if len(rows) < 2:
        raise InputError(f"{path}: lists no case; give the columns image and label, a line a case", "table")
    names = next(iter(rows.values()))
    columns = [name.casefold() for name in names]
    if not {"image", "label"} <= set(columns):
        text = f"its columns are {', '.join(map(repr, names))}; name two of them image and label, in its first line"
        raise InputError(f"{path}: {text}", "table")
    if twice := {name for name in ("case", "image", "label") if columns.count(name) > 1}:
        text = f"has {' and '.join(sorted(twice))} for two columns; keep the one that is meant"
        raise InputError(f"{path}: {text}", "table")
    pairs: dict[str, tuple[Path, Path]] = {}
    faults: dict[str, str] = {}
    for number, cells in list(rows.items())[1:]:
        row, line = dict(zip(columns, cells, strict=False)), f"{path}: line {number}"
        if not (row.get("image") and row.get("label")):
            faults[f"line {number}"] = f"{line} has no image or no label; complete it, or take it out"
            continue
        image, label = (path.parent / os.path.expanduser(row[key]) for key in ("image", "label"))
        case = unicodedata.normalize("NFC", row.get("case") or stem(image.name))
        if case in pairs or case in faults:
            pairs.pop(case, None)  # which one is meant is not known
            mend = "name each once" if "case" in columns else "add a column case with a name for each"
            faults[case] = f"{line} names the case {case!r} again; {mend}"
        elif fault := no_name(case, line):
            faults[case] = fault
        else:
            try:
                pairs[case] = _file(image, line), _file(label, line)
            except InputError as error:
                faults[case] = str(error)
    return pairs, faults


def no_name(case: str, where: Path | str) -> str:
    """What is wrong with a case's name, or nothing."""
    try:
        file_name(case)
    except InputError as error:
        return f"{where}: {error}"
    return ""


def _file(given: Path, line: str) -> Path:
    """A file of a line as the disk spells it."""
    try:
        file = as_spelled(given)
        there = file.exists()
    except OSError as error:  # no name for a file, a folder that is closed
        raise InputError(f"{line} lists what cannot be read ({error.strerror}); mend it, or take it out") from None
    if not there:
        raise InputError(f"{line} lists {file}, and there is no such file; add it, or take the line out")
    return file


def stem(name: str) -> str:
    """A file's name without what says its format.

    >>> stem("a.b.NII.GZ"), stem("scan.nrrd"), stem("series.1")
    ('a.b', 'scan', 'series.1')
    """
    return re.sub(r"\.(nii|nii\.gz|hdr|img|nrrd|mha|dcm)$", "", name, flags=re.IGNORECASE)


def as_spelled(path: Path) -> Path:
    """The path as the disk spells it, where only the way of composing letters such as an umlaut differs."""
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        below = found / part
        if not below.exists() and found.is_dir() and os.access(found, os.R_OK):
            same = unicodedata.normalize("NFC", part)
            below = next((one for one in found.iterdir() if unicodedata.normalize("NFC", one.name) == same), below)
        found = below
    return found


def _rows(path: Path) -> dict[int, list[str]]:
    """The cells of each line of a table that is not empty, by its number."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        text = f"{path}: the collection's table cannot be read ({error.strerror}); mend data.collections"
        raise InputError(text, "table") from None
    if raw.startswith((b"PK", b"\xd0\xcf\x11\xe0")):
        raise InputError(f"{path}: a workbook of a spreadsheet, no text; save it as CSV", "table")
    lines = _text(raw).splitlines(keepends=True)
    first = next((line for line in lines if line.strip()), "")
    separator = max(SEPARATORS, key=first.count)
    if lines and (told := re.fullmatch(r'"?sep=(.)"?', lines[0].strip(), re.IGNORECASE)):  # a line for Excel
        separator, lines[0] = told[1], "\n"
    read = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)  # so that quotes have an end
    try:
        rows = [[cell.strip() for cell in row] for row in read]
    except csv.Error as error:
        raise InputError(f"{path}: the collection's table cannot be read ({error}); save it as CSV", "table") from None
    return {number: row for number, row in enumerate(rows, start=1) if any(row)}


def _text(raw: bytes) -> str:
    code = next((code for bom, code in BOMS.items() if raw.startswith(bom)), "utf-8")
    if code == "utf-8" and b"\0" in raw[:200]:
        code = "utf-16-le" if raw[1:2] == b"\0" else "utf-16-be"
    try:
        return raw.decode(code)
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")
