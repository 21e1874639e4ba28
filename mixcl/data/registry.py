"""The seven collections of the paper (Sec. 3.1), and how the cases of a collection are found on disk.

Every collection labels only what its makers labelled; all else is its background (R29).  The counts are the
paper's (R20): 131 + 63 + 281 + 80 + 210 = 765 scans for pre-training, 41 and 30 for fine-tuning.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
from pathlib import Path

from mixcl.config import Collection, DataConfig, InputError

_MSD = {
    "licence": "CC BY-SA 4.0",
    "url": "http://medicaldecathlon.com",
    "citation": "Simpson et al., A large annotated medical image dataset for the development and evaluation "
    "of segmentation algorithms, arXiv:1902.09063, 2019",
}
BTCV_NAMES = {
    1: "spleen", 2: "right kidney", 3: "left kidney", 4: "gallbladder", 5: "esophagus", 6: "liver",
    7: "stomach", 8: "aorta", 9: "inferior vena cava", 10: "portal and splenic vein", 11: "pancreas",
    12: "right adrenal gland", 13: "left adrenal gland",
}  # fmt: skip

COLLECTIONS: dict[str, Collection] = {
    "msd_liver": Collection(
        title="MSD Task03 Liver",
        root="Task03_Liver",
        names={1: "liver", 2: "liver tumour"},
        count=131,
        **_MSD,
    ),
    "msd_lung": Collection(
        title="MSD Task06 Lung", root="Task06_Lung", names={1: "lung tumour"}, count=63, **_MSD
    ),
    "msd_pancreas": Collection(
        title="MSD Task07 Pancreas",
        root="Task07_Pancreas",
        names={1: "pancreas", 2: "pancreas tumour"},
        count=281,
        **_MSD,
    ),
    "nih_pancreas": Collection(
        title="NIH Pancreas-CT",
        root="Pancreas-CT",
        image="images/PANCREAS_{case}.nii.gz",
        label="labels/label{case}.nii.gz",
        names={1: "pancreas"},
        count=80,
        licence="CC BY 3.0",
        url="https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU",
        citation="Roth et al., Data From Pancreas-CT, The Cancer Imaging Archive, 2016",
    ),
    "kits19": Collection(
        title="KiTS19",
        root="kits19/data",
        image="{case}/imaging.nii.gz",
        label="{case}/segmentation.nii.gz",
        names={1: "kidney", 2: "kidney tumour"},
        count=210,
        licence="CC BY-NC-SA 4.0",
        url="https://github.com/neheller/kits19",
        citation="Heller et al., The KiTS19 Challenge Data: 300 Kidney Tumor Cases with Clinical Context, CT "
        "Semantic Segmentations, and Surgical Outcomes, arXiv:1904.00445, 2019",
    ),
    "msd_spleen": Collection(
        title="MSD Task09 Spleen", root="Task09_Spleen", names={1: "spleen"}, count=41, **_MSD
    ),
    "btcv": Collection(
        title="BTCV",
        root="BTCV",
        image="RawData/Training/img/img{case}.nii.gz",
        label="RawData/Training/label/label{case}.nii.gz",
        names=BTCV_NAMES,
        count=30,
        licence="terms of the Synapse project; an account is needed",
        url="https://www.synapse.org/#!Synapse:syn3193805/wiki/89480",
        citation="Landman et al., Multi-Atlas Labeling Beyond the Cranial Vault: Workshop and Challenge, "
        "MICCAI 2015",
    ),
}
"""The built-in collections by name; an own collection of the same name takes the place of one."""

PAPER_COUNTS: dict[str, int] = {name: c.count for name, c in COLLECTIONS.items() if c.count is not None}
"""Labelled cases a collection, Sec. 3.1 (R20)."""


def collections(data: DataConfig) -> dict[str, Collection]:
    """The collections that ``data.pretrain`` and ``data.finetune`` name, in that order, each once.

    Raises
    ------
    InputError
        A name that is neither built in nor defined under ``data.collections``.

    >>> list(collections(DataConfig(pretrain=("kits19", "btcv"), finetune=("btcv",))))
    ['kits19', 'btcv']
    """
    known = COLLECTIONS | data.collections
    wanted = list(dict.fromkeys((*data.pretrain, *data.finetune)))
    for name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise InputError(
                f"unknown collection {name!r}{hint}; define it under data.collections or use one of "
                f"{', '.join(known)}"
            )
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise InputError(
                f"collection name {name!r}: use letters, digits, '_', '-' and '.', as it names a folder"
            )
    return {name: known[name] for name in wanted}


def folder(collection: Collection, raw_root: Path) -> Path:
    """Folder of a collection: its ``root``, ``~`` and variables expanded, below ``raw_root`` unless absolute.

    >>> folder(COLLECTIONS["msd_lung"], Path("/data")).as_posix()
    '/data/Task06_Lung'
    """
    return raw_root / Path(os.path.expandvars(collection.root)).expanduser()


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sorting key in which numbers count as numbers.

    >>> sorted(["liver_10", "liver_2", "liver_02"], key=natural_key)
    ['liver_02', 'liver_2', 'liver_10']
    """
    parts = re.split(r"([0-9]+)", text)
    key = [(0, int(p), "") if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts if p]
    return [*key, (2, 0, text)]  # equal up to leading zeros: by the text itself


def find_cases(collection: Collection, root: Path) -> dict[str, tuple[Path, Path]]:
    """Pairs of image and label files below ``root``, by case, in natural order.

    Parameters
    ----------
    collection
        Its ``image`` and ``label`` templates say where the files are; ``{case}`` is one part of a path that
        does not start with a dot, so the ``._liver_1.nii.gz`` that some archives carry are passed over.
    root
        Folder of the collection (`folder`).

    Raises
    ------
    InputError
        No such folder, no file that matches, or a file without its partner.

    Images without a label are left out without a word when the labelled cases are as many as the paper
    counts: KiTS19 lists 300 cases of which 210 have labels.
    """
    pairs, missing = match_cases(collection, root)
    if missing:
        raise InputError("\n".join(missing.values()))
    return pairs


def match_cases(collection: Collection, root: Path) -> tuple[dict[str, tuple[Path, Path]], dict[str, str]]:
    """As `find_cases`, but a missing partner is no error: it is a sentence in the second result, by case."""
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder for {collection.title or 'the collection'}; set data.root to the folder "
            f"that holds {collection.root!r}, or mend the collection's root"
        )
    images, labels = _match(collection.image, root), _match(collection.label, root)
    if not images and not labels:
        raise InputError(
            f"{root}: no file matches {collection.image!r}; check the collection's root and templates"
        )
    both = sorted(images.keys() & labels.keys(), key=natural_key)
    no_label = sorted(images.keys() - labels.keys(), key=natural_key)
    no_image = sorted(labels.keys() - images.keys(), key=natural_key)
    if collection.count == len(both):
        no_label = []  # the unlabelled test part of a challenge
    missing = {
        c: _missing("label", root / collection.label.replace("{case}", c), images[c]) for c in no_label
    }
    missing |= {
        c: _missing("image", root / collection.image.replace("{case}", c), labels[c]) for c in no_image
    }
    return {case: (images[case], labels[case]) for case in both}, missing


def _missing(what: str, expected: Path, partner: Path) -> str:
    return f"{expected}: the {what} is missing for {partner}; add it, or take {partner.name} away"


def _match(template: str, root: Path) -> dict[str, Path]:
    """Files that match a template, by what stands in the place of ``{case}``."""
    pattern = re.escape(template).replace(re.escape("{case}"), "(?P<case>[^/.][^/]*)", 1)
    pattern = pattern.replace(re.escape("{case}"), "(?P=case)")
    found = {}
    for path in root.glob(glob.escape(template).replace("{case}", "*")):
        match = re.fullmatch(pattern, path.relative_to(root).as_posix())
        if match and not path.is_dir():
            found[match["case"]] = path
    return found
