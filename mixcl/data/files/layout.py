"""The files of a collection, by templates or by a table: which cases it has, and what is missing of them."""

import codecs
import csv
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mixcl.config.settings import Collection
from mixcl.data.files.raw import reading
from mixcl.errors import InputError
from mixcl.files import file_name

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".hdr", ".img", ".dcm")
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class _Match(NamedTuple):
    """A file or folder that a template matches: ``rank`` 0 as it is written, else with another ending (`ENDINGS`)."""

    path: Path
    rank: int
    fault: str = ""  # what is wrong with its name


def match_cases(collection: Collection, root: Path) -> tuple[dict[str, tuple[Path, Path]], dict[str, str]]:
    """Pairs of image and label files below ``root``, in natural order, and a sentence on each other case.

    Such a case lacks its image or its label, or has a name that is none or another's.  Images without a label are left
    out without a word when the labelled cases are as many as the paper counts: KiTS19 lists 300, of which 210 have one.

    Of the collection's templates and ``layouts`` those with most pairs count, the first of equals.  ``{case}`` is one
    part of a path that does not start with a dot, as the ``._liver_1.nii.gz`` of some archives do.  A file of another
    format takes the place of one that is not there: ``a.nrrd`` of ``a.nii.gz``.  Where both templates match a file,
    the one that says more of its name takes it.

    Raises InputError: no such folder, one that may not be entered, no file that matches, a table that cannot be read.
    """
    with reading(root):
        root = as_spelled(root)
        if not root.is_dir():
            mend = f"set data.root to the folder that holds {collection.root!r}, or mend the collection's root"
            whose = collection.title or "the collection"
            raise InputError(f"{root}: no such folder for {whose}; {mend}", "missing collection")
        if collection.table is not None:
            return read_table(as_spelled(root / collection.table))
        layouts = [(*pair, *_both(*pair, root)) for pair in ((collection.image, collection.label), *collection.layouts)]
        image, label, images, labels = max(layouts, key=lambda layout: len(layout[2].keys() & layout[3].keys()))
        if not images and not labels:
            text = f"no file matches {' or '.join(repr(layout[0]) for layout in layouts)}; found are {_census(root)}"
            raise InputError(f"{root}: {text}; check the collection's root and templates", "missing collection")
        both = sorted(images.keys() & labels.keys(), key=natural_key)
        no_label = sorted(images.keys() - labels.keys(), key=natural_key)
        no_image = sorted(labels.keys() - images.keys(), key=natural_key)
        if collection.count == len(both):
            no_label = []  # the unlabelled test part of a challenge
        missing = {case: _missing("label", root, label, case, images[case].path) for case in no_label}
        missing |= {case: _missing("image", root, image, case, labels[case].path) for case in no_image}
        missing |= {case: match.fault for case, match in (*images.items(), *labels.items()) if match.fault}
        return {case: (images[case].path, labels[case].path) for case in both if case not in missing}, missing


def _missing(what: str, root: Path, template: str, case: str, partner: Path) -> str:
    expected = root / template.replace("{case}", case)
    return f"{expected}: the {what} is missing for {partner}; add it, or take {partner.name} away"


def _both(image: str, label: str, root: Path) -> tuple[dict[str, _Match], dict[str, _Match]]:
    """Images and labels by case; no file is both."""
    images, labels = _matches(image, root), _matches(label, root)
    ranks = {match.path: (match.rank, -len(label)) for match in labels.values()}
    mine = {c: m for c, m in images.items() if m.path not in ranks or (m.rank, -len(image)) < ranks[m.path]}
    taken = {match.path for match in mine.values()}
    return mine, {c: m for c, m in labels.items() if m.path not in taken}


def _matches(template: str, root: Path) -> dict[str, _Match]:
    """What matches a template, by what stands in the place of ``{case}``: files, or folders of DICOM series."""
    template = unicodedata.normalize("NFC", template)
    bare = stem(template)
    folders = bare == template
    pattern = re.escape(bare).replace(re.escape("{case}"), "(?P<case>[^/.][^/]*)", 1)
    pattern = pattern.replace(re.escape("{case}"), "(?P=case)")
    cases: dict[str, _Match] = {}
    for name, path in _candidates(root, bare.split("/"), ""):
        end = "" if folders else name[len(stem(name)) :]
        match = re.fullmatch(pattern, name.removesuffix(end))
        if match is None or path.is_dir() != folders or (not folders and not end):
            continue
        rank = 0 if bare + end == template else 1 + ENDINGS.index(end.lower())
        before = cases.get(match["case"])
        if before is not None and before.rank == rank:
            text = f"{path}: its name is that of {before.path.name} but for the way letters are written; rename one"
            cases[match["case"]] = before._replace(fault=text)
        if before is None or rank < before.rank:
            cases[match["case"]] = _Match(path, rank, no_name(match["case"], path))
    return cases


def _candidates(folder: Path, parts: list[str], name: str) -> Iterator[tuple[str, Path]]:
    """Paths below a folder whose parts could be those of a template, and their names from there, letters composed."""
    part, *rest = parts
    if rest and "{case}" not in part:
        path = as_spelled(folder / part)
        if path.is_dir():
            yield from _candidates(path, rest, f"{name}{part}/")
        return
    pattern = re.escape(part).replace(re.escape("{case}"), ".*")
    with reading(folder):
        entries = sorted(folder.iterdir())
    for path in entries:
        own = unicodedata.normalize("NFC", path.name)
        if not rest:
            yield f"{name}{own}", path
        elif re.fullmatch(pattern, own) and path.is_dir():
            yield from _candidates(path, rest, f"{name}{own}/")


def _census(root: Path) -> str:
    """What kinds of files lie below a folder."""
    files = [path for path in itertools.islice(root.rglob("*"), 10000) if path.is_file()]
    ends = Counter("".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix for path in files)
    kinds = ", ".join(f"{number} {end or 'without an ending'}" for end, number in ends.most_common(4))
    return f"{kinds} ({files[0].relative_to(root)})" if files else "no files at all"


def read_table(path: Path) -> tuple[dict[str, tuple[Path, Path]], dict[str, str]]:
    """Cases (image, label) of a table with these columns (paths from its folder) and, if given, ``case``.

    Read are UTF-8, UTF-16 and Windows-1252; columns parted by comma, semicolon, tab or bar; names of columns in any
    case.  Beside the cases comes a sentence by case on each whose line is wrong: a file that is not listed, not there
    or out of reach, the name of another, or none that a file could have.

    Raises InputError: no table, no such columns, or no line.
    """
    rows = _rows(path)
    if len(rows) < 2:
        raise InputError(f"{path}: lists no case; give the columns image and label, a line a case", "table")
    (_, names), *lines = rows.items()
    columns = [name.casefold() for name in names]
    if not {"image", "label"} <= set(columns):
        text = f"its columns are {', '.join(map(repr, names))}; name two of them image and label, in its first line"
        raise InputError(f"{path}: {text}", "table")
    if twice := {name for name in ("case", "image", "label") if columns.count(name) > 1}:
        text = f"has {' and '.join(sorted(twice))} for two columns; keep the one that is meant"
        raise InputError(f"{path}: {text}", "table")
    pairs: dict[str, tuple[Path, Path]] = {}
    faults: dict[str, str] = {}
    for number, cells in lines:
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
                pairs[case] = _existing(image, line), _existing(label, line)
            except InputError as error:
                faults[case] = str(error)
    return pairs, faults


def _existing(given: Path, line: str) -> Path:
    """A file of a line as the disk spells it."""
    try:
        file = as_spelled(given)
        there = file.exists()
    except OSError as error:  # no name for a file, a folder that is closed
        raise InputError(f"{line} lists what cannot be read ({error.strerror}); mend it, or take it out") from None
    if not there:
        raise InputError(f"{line} lists {file}, and there is no such file; add it, or take the line out")
    return file


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
    separator = max((",", ";", "\t", "|"), key=first.count)
    if lines and (declared := re.fullmatch(r'"?sep=(.)"?', lines[0].strip(), re.IGNORECASE)):  # a line for Excel
        separator, lines[0] = declared[1], "\n"
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


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sorting key in which numbers count as numbers.

    >>> sorted(["liver_10", "liver_2", "liver_02"], key=natural_key)
    ['liver_02', 'liver_2', 'liver_10']
    """
    parts = re.split(r"([0-9]+)", text)
    key = [(0, int(p), "") if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts if p]
    return [*key, (2, 0, text)]  # equal up to leading zeros: by the text itself


def no_name(case: str, where: Path | str) -> str:
    """What is wrong with a case's name, or nothing."""
    try:
        file_name(case)
    except InputError as error:
        return f"{where}: {error}"
    return ""


def stem(name: str) -> str:
    """A file's name without what says its format.

    >>> stem("a.b.NII.GZ"), stem("scan.nrrd"), stem("series.1")
    ('a.b', 'scan', 'series.1')
    """
    return re.sub(r"\.(nii|nii\.gz|hdr|img|nrrd|mha|dcm)$", "", name, flags=re.IGNORECASE)


def as_spelled(path: Path) -> Path:
    """The path as the disk spells it, where only the way of composing letters such as an umlaut differs."""
    spelled = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        below = spelled / part
        if not below.exists() and spelled.is_dir() and os.access(spelled, os.R_OK):
            same = unicodedata.normalize("NFC", part)
            entries = (entry for entry in spelled.iterdir() if unicodedata.normalize("NFC", entry.name) == same)
            below = next(entries, below)
        spelled = below
    return spelled
