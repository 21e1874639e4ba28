"""The seven collections of the paper (Sec. 3.1): labels, counts, licence, folders, and what is odd about them.

Every collection labels only what its makers labelled; all else is its background (R29).  The counts are the
paper's (R20): 131 + 63 + 281 + 80 + 210 = 765 scans for pre-training, 41 and 30 for fine-tuning.
"""

import os
from pathlib import Path

from mixcl.config.profile import nearest
from mixcl.config.settings import Collection, DataConfig
from mixcl.errors import InputError

_NNUNET = ("imagesTr/{case}_0000.nii.gz", "labelsTr/{case}.nii.gz")  # "raw" data of nnU-Net
_LITS = (
    "20 scans, volumes 28 to 47 of LiTS, have an identity affine and so a false spacing of 1 mm "
    "(github.com/PatrickChrist/LITS-CHALLENGE/issues/14); data check warns of 1 mm in 512 x 512",
    "these 20 are the scans of 3D-IRCADb (github.com/JunMa11/AbdomenCT-1K/issues/27)",
)
BTCV_NAMES = {
    1: "spleen", 2: "right kidney", 3: "left kidney", 4: "gallbladder", 5: "esophagus", 6: "liver",
    7: "stomach", 8: "aorta", 9: "inferior vena cava", 10: "portal and splenic vein", 11: "pancreas",
    12: "right adrenal gland", 13: "left adrenal gland",
}  # fmt: skip


def _msd(number: int, organ: str, names: dict[int, str], count: int, quirks: tuple[str, ...] = ()) -> Collection:
    """A task of the Medical Segmentation Decathlon."""
    return Collection(
        title=f"MSD Task{number:02} {organ}",
        quirks=(
            "scans of the Decathlon are said to be stored with left and right flipped against their headers "
            "(github.com/Project-MONAI/model-zoo/issues/766); data check looks where liver and spleen lie",
            *quirks,
        ),
        root=f"Task{number:02}_{organ}",
        roots=(f"Dataset{number:03}_{organ}", f"Task{number:03}_{organ}"),
        layouts=(_NNUNET,),
        names=names,
        count=count,
        licence="CC BY-SA 4.0",
        url="http://medicaldecathlon.com",
        citation="Simpson et al., A large annotated medical image dataset for the development and evaluation "
        "of segmentation algorithms, arXiv:1902.09063, 2019",
    )


COLLECTIONS: dict[str, Collection] = {
    "msd_liver": _msd(3, "Liver", {1: "liver", 2: "liver tumour"}, 131, _LITS),
    "msd_lung": _msd(6, "Lung", {1: "lung tumour"}, 63),
    "msd_pancreas": _msd(7, "Pancreas", {1: "pancreas", 2: "pancreas tumour"}, 281),
    "nih_pancreas": Collection(
        title="NIH Pancreas-CT",
        quirks=(
            "cases 25 and 70 of the first release were withdrawn, 80 are left",
            "images are DICOM, slices from feet to head, and labels NIfTI whose rows run from front to back: converted "
            "images often run the other way (github.com/mattiaspaul/deedsBCV/issues/2); labels are turned as both "
            "headers say (label_grid: header), and where these do not fit data check names the case",
        ),
        root="Pancreas-CT",
        label_grid="header",
        image="images/PANCREAS_{case}.nii.gz",
        label="labels/label{case}.nii.gz",
        layouts=(
            ("PANCREAS_{case}.nii.gz", "label{case}.nii.gz"),
            ("PANCREAS_{case}", "labels/label{case}.nii.gz"),
            ("PANCREAS_{case}", "TCIA_pancreas_labels-02-05-2017/label{case}.nii.gz"),
            ("PANCREAS_{case}", "label{case}.nii.gz"),
            ("imagesTr/PANCREAS_{case}.nii.gz", "labelsTr/label{case}.nii.gz"),
            _NNUNET,
        ),
        roots=("NIH_Pancreas-CT", "NIH-Pancreas-CT"),
        names={1: "pancreas"},
        count=80,
        licence="CC BY 3.0",
        url="https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU",
        citation="Roth et al., Data From Pancreas-CT, The Cancer Imaging Archive, 2016",
    ),
    "kits19": Collection(
        title="KiTS19",
        quirks=(
            "the first axis of a file runs from head to feet (github.com/neheller/kits19/issues/9 and 15); scans are "
            "turned by their headers",
            "300 cases are listed and 210 have labels; some labels were corrected over time, and case 160 has slices "
            "of 512 x 796",
        ),
        root="kits19/data",
        image="{case}/imaging.nii.gz",
        label="{case}/segmentation.nii.gz",
        layouts=(_NNUNET,),
        roots=("kits19", "KiTS19/data", "KiTS19", "kits19-master/data", "Dataset064_KiTS", "Task064_KiTS"),
        names={1: "kidney", 2: "kidney tumour"},
        count=210,
        licence="CC BY-NC-SA 4.0",
        url="https://github.com/neheller/kits19",
        citation="Heller et al., The KiTS19 Challenge Data: 300 Kidney Tumor Cases with Clinical Context, CT "
        "Semantic Segmentations, and Surgical Outcomes, arXiv:1904.00445, 2019",
    ),
    "msd_spleen": _msd(9, "Spleen", {1: "spleen"}, 41),
    "btcv": Collection(
        title="BTCV",
        quirks=("30 cases have labels; sets of 47 under this name are another labelling of other scans, too",),
        root="BTCV",
        image="RawData/Training/img/img{case}.nii.gz",
        label="RawData/Training/label/label{case}.nii.gz",
        layouts=(
            ("Training/img/img{case}.nii.gz", "Training/label/label{case}.nii.gz"),
            ("img/img{case}.nii.gz", "label/label{case}.nii.gz"),
            ("imagesTr/img{case}.nii.gz", "labelsTr/label{case}.nii.gz"),
            ("img{case}.nii.gz", "label{case}.nii.gz"),
            _NNUNET,
        ),
        roots=("Abdomen", "Synapse", "RawData"),
        names=BTCV_NAMES,
        count=30,
        licence="terms of the Synapse project; an account is needed",
        url="https://www.synapse.org/#!Synapse:syn3193805/wiki/89480",
        citation="Landman et al., Multi-Atlas Labeling Beyond the Cranial Vault: Workshop and Challenge, MICCAI 2015",
    ),
}
"""The built-in collections by name; an own collection of the same name takes the place of one."""


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
            text = f"unknown collection {name!r}{nearest(name, known)}; define it under data.collections or use one of"
            raise InputError(f"{text} {', '.join(known)}")
    return {name: known[name] for name in wanted}


def expected_count(data: DataConfig, name: str) -> int | None:
    """Labelled cases that a collection should have: of phantoms as many as asked for, else the paper's count (R20)."""
    return data.phantom.counts.get(name) if data.source == "phantom" else (COLLECTIONS | data.collections)[name].count


def folder(collection: Collection, raw_root: Path) -> Path:
    """Folder of a collection: its ``root``, ``~`` and variables expanded, below ``raw_root`` unless absolute.

    Where that is not there, the first of its other names (``roots``) that is.

    >>> folder(COLLECTIONS["msd_lung"], Path("/data")).as_posix()
    '/data/Task06_Lung'
    """
    names = [raw_root / Path(os.path.expandvars(name)).expanduser() for name in (collection.root, *collection.roots)]
    return next((path for path in names if path.is_dir()), names[0])
