"""The files of a collection: which layout is there, which cases it has, and what is missing of them."""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mixcl.config.settings import Collection
from mixcl.data.files.opened import reading
from mixcl.data.files.table import as_spelled, listed, no_name, stem
from mixcl.errors import InputError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".hdr", ".img", ".dcm")


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sorting key in which numbers count as numbers.

    >>> sorted(["liver_10", "liver_2", "liver_02"], key=natural_key)
    ['liver_02', 'liver_2', 'liver_10']
    """
    parts = re.split(r"([0-9]+)", text)
    key = [(0, int(p), "") if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts if p]
    return [*key, (2, 0, text)]  # equal up to leading zeros: by the text itself


class _Found(NamedTuple):
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
            return listed(as_spelled(root / collection.table))
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
        missing |= {case: found.fault for case, found in (*images.items(), *labels.items()) if found.fault}
        return {case: (images[case].path, labels[case].path) for case in both if case not in missing}, missing


def _missing(what: str, root: Path, template: str, case: str, partner: Path) -> str:
    expected = root / template.replace("{case}", case)
    return f"{expected}: the {what} is missing for {partner}; add it, or take {partner.name} away"


def _both(image: str, label: str, root: Path) -> tuple[dict[str, _Found], dict[str, _Found]]:
    """Images and labels by case; no file is both."""
    images, labels = _match(image, root), _match(label, root)
    ranks = {found.path: (found.rank, -len(label)) for found in labels.values()}
    mine = {c: f for c, f in images.items() if f.path not in ranks or (f.rank, -len(image)) < ranks[f.path]}
    taken = {found.path for found in mine.values()}
    return mine, {c: f for c, f in labels.items() if f.path not in taken}


def _match(template: str, root: Path) -> dict[str, _Found]:
    """What matches a template, by what stands in the place of ``{case}``: files, or folders of DICOM series."""
    template = unicodedata.normalize("NFC", template)
    bare = stem(template)
    folders = bare == template
    pattern = re.escape(bare).replace(re.escape("{case}"), "(?P<case>[^/.][^/]*)", 1)
    pattern = pattern.replace(re.escape("{case}"), "(?P=case)")
    cases: dict[str, _Found] = {}
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
            cases[match["case"]] = _Found(path, rank, no_name(match["case"], path))
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
