"""The files of a collection: which layout is there, which cases it has, and what is missing of them."""

import csv
import glob
import re
from pathlib import Path

from mixcl.config.settings import Collection
from mixcl.errors import InputError
from mixcl.files import file_name


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sorting key in which numbers count as numbers.

    >>> sorted(["liver_10", "liver_2", "liver_02"], key=natural_key)
    ['liver_02', 'liver_2', 'liver_10']
    """
    parts = re.split(r"([0-9]+)", text)
    key = [(0, int(p), "") if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts if p]
    return [*key, (2, 0, text)]  # equal up to leading zeros: by the text itself


def match_cases(collection: Collection, root: Path) -> tuple[dict[str, tuple[Path, Path]], dict[str, str]]:
    """Pairs of image and label files below ``root``, and a sentence on each missing partner: by case, in natural order.

    Images without a label are left out without a word when the labelled cases are as many as the paper
    counts: KiTS19 lists 300 cases of which 210 have labels.

    Parameters
    ----------
    collection
        Its ``image`` and ``label`` templates say where the files are; ``{case}`` is one part of a path that
        does not start with a dot, so the ``._liver_1.nii.gz`` that some archives carry are passed over.
    root
        Folder of the collection (`mixcl.data.registry.folder`).

    Raises
    ------
    InputError
        No such folder, no file that matches, or a table that cannot be read.
    """
    if not root.is_dir():
        mend = f"set data.root to the folder that holds {collection.root!r}, or mend the collection's root"
        whose = collection.title or "the collection"
        raise InputError(f"{root}: no such folder for {whose}; {mend}", "missing collection")
    if collection.table is not None:
        return _listed(root / collection.table)
    image, label = layout(collection, root)
    images, labels = _match(image, root), _match(label, root)
    if not images and not labels:
        templates = " or ".join(repr(template) for template, _ in _layouts(collection))
        text = f"{root}: no file matches {templates}; check the collection's root and templates"
        raise InputError(text, "missing collection")
    both = sorted(images.keys() & labels.keys(), key=natural_key)
    no_label = sorted(images.keys() - labels.keys(), key=natural_key)
    no_image = sorted(labels.keys() - images.keys(), key=natural_key)
    if collection.count == len(both):
        no_label = []  # the unlabelled test part of a challenge
    missing = {c: _missing("label", root / label.replace("{case}", c), images[c]) for c in no_label}
    missing |= {c: _missing("image", root / image.replace("{case}", c), labels[c]) for c in no_image}
    return {case: (images[case], labels[case]) for case in both}, missing


def _listed(path: Path) -> tuple[dict[str, tuple[Path, Path]], dict[str, str]]:
    """Cases of a table with the columns ``image`` and ``label`` (paths from its folder) and, if given, ``case``."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        text = f"{path}: the collection's table cannot be read ({error}); mend data.collections"
        raise InputError(text, "table") from None
    pairs: dict[str, tuple[Path, Path]] = {}
    missing = {}
    for number, row in enumerate(rows, start=2):
        if not (row.get("image") and row.get("label")):
            text = f"{path}: line {number} has no image or no label; give the columns image and label"
            raise InputError(text, "table")
        image, label = path.parent / row["image"], path.parent / row["label"]
        case = row.get("case") or image.name.removesuffix(".gz").removesuffix(".nii")
        file_name(case)  # says which name cannot be one
        if case in pairs or case in missing:
            raise InputError(f"{path}: line {number} names the case {case!r} again; name each once", "table")
        gone = next((path for path in (image, label) if not path.exists()), None)
        if gone is None:
            pairs[case] = (image, label)
        else:
            missing[case] = f"{gone}: no such file, though {path.name} lists it in line {number}; add it or take it out"
    if not rows:
        raise InputError(f"{path}: lists no case; give the columns image and label, a line a case", "table")
    return pairs, missing


def layout(collection: Collection, root: Path) -> tuple[str, str]:
    """The templates (image, label) that fit the files below ``root``: those with most pairs, the first of equals."""
    return max(_layouts(collection), key=lambda pair: len(_match(pair[0], root).keys() & _match(pair[1], root).keys()))


def _layouts(collection: Collection) -> tuple[tuple[str, str], ...]:
    return ((collection.image, collection.label), *collection.layouts)


def _missing(what: str, expected: Path, partner: Path) -> str:
    return f"{expected}: the {what} is missing for {partner}; add it, or take {partner.name} away"


def _match(template: str, root: Path) -> dict[str, Path]:
    """What matches a template, by what stands in the place of ``{case}``: files, or folders of DICOM series."""
    pattern = re.escape(template).replace(re.escape("{case}"), "(?P<case>[^/.][^/]*)", 1)
    pattern = pattern.replace(re.escape("{case}"), "(?P=case)")
    cases = {}
    for path in root.glob(glob.escape(template).replace("{case}", "*")):
        match = re.fullmatch(pattern, path.relative_to(root).as_posix())
        if match and path.is_dir() != template.endswith((".nii", ".nii.gz")):
            file_name(match["case"])  # says which name cannot be one
            cases[match["case"]] = path
    return cases
