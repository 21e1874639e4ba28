"""Collections that may be downloaded without signing in, and how to get the others.

An archive is checked before anything of it is unpacked, and is unpacked into a hidden folder that is then renamed: the
folder of a collection is there whole or not at all.
"""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

from mixcl.data.fetch import fetch, room
from mixcl.errors import InputError

KITS_IMAGE = "https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging/resolve/main/images/case_{:05d}.nii.gz"
KITS_LABEL = "https://raw.githubusercontent.com/neheller/kits19/master/data/case_{:05d}/segmentation.nii.gz"
KITS_CASES = 210  # have labels

STEPS = {
    "nih_pancreas": (
        "NIH Pancreas-CT is given by The Cancer Imaging Archive: https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU\n"
        "1. Get the images with the NBIA Data Retriever (DICOM) and the labels (TCIA_pancreas_labels, NIfTI).\n"
        "2. Put the series of each case into a folder {root}/Pancreas-CT/PANCREAS_0001 (any folders below it will do)\n"
        "   and the labels at {root}/Pancreas-CT/labels/label0001.nii.gz; or convert the series to NIfTI as\n"
        "   {root}/Pancreas-CT/images/PANCREAS_0001.nii.gz. Cases 25 and 70 were withdrawn: 80 are left.\n"
        "3. Run mixcl data check: labels whose headers disagree with the images have to be turned first."
    ),
    "btcv": (
        "BTCV is given by Synapse after signing in: https://www.synapse.org/#!Synapse:syn3193805/wiki/89480\n"
        "1. Join the challenge, agree to its terms and download Abdomen/RawData.zip.\n"
        "2. Unpack it so that these are there, 30 of each: {root}/BTCV/RawData/Training/img/img0001.nii.gz and\n"
        "   {root}/BTCV/RawData/Training/label/label0001.nii.gz."
    ),
}  # fmt: skip


class File(NamedTuple):
    """One download: where it is, where it goes below the root, and its MD5 where the giver tells one."""

    url: str
    to: str
    md5: str | None = None


def files(name: str) -> list[File]:
    """What ``mixcl data get`` downloads for a collection; nothing where an account is needed.

    MSD's addresses and checksums are those of MONAI's ``DecathlonDataset``; KiTS19's are those of its own repository.
    """
    tasks = {"msd_liver": "Task03_Liver", "msd_lung": "Task06_Lung", "msd_pancreas": "Task07_Pancreas",
             "msd_spleen": "Task09_Spleen"}  # fmt: skip
    if name in tasks:
        from monai.apps import DecathlonDataset

        return [File(DecathlonDataset.resource[tasks[name]], f"{tasks[name]}.tar", DecathlonDataset.md5[tasks[name]])]
    if name == "kits19":
        folder = "kits19/data/case_{:05d}/"
        return [
            File(url.format(case), (folder + part).format(case))
            for case in range(KITS_CASES)
            for url, part in ((KITS_IMAGE, "imaging.nii.gz"), (KITS_LABEL, "segmentation.nii.gz"))
        ]
    return []


def get(name: str, root: Path, *, progress: bool = True) -> str:
    """Download a collection into ``root``, or say how to get it; what is there already is left alone.

    Returns
    -------
    str
        Where the collection is now, or the steps to take.

    Raises
    ------
    InputError
        An unknown collection, no room on the disk, a server that does not give the file, a file that is not what it
        should be, an archive that would write outside its folder.
    """
    if name in STEPS:
        return STEPS[name].format(root=root)
    wanted = files(name)
    if not wanted:
        known = ("msd_liver", "msd_lung", "msd_pancreas", "msd_spleen", "kits19", *STEPS)
        raise InputError(f"data get {name}: not a built-in collection; choose one of {', '.join(known)}")
    root.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(wanted, start=1):
        to = root / one.to
        if to.suffix == ".tar":
            if not (root / to.stem).is_dir():
                fetch(one.url, to, one.md5, progress=progress)
                unpack(to, root / to.stem)
        elif not to.is_file():
            shown = f"{number}/{len(wanted)} {to.parent.name}"
            fetch(one.url, to, one.md5, progress=progress, shown=shown)
    place = root / (Path(wanted[0].to).stem if len(wanted) == 1 else Path(wanted[0].to).parts[0])
    return f"{name}: in {place}; check it with: mixcl data check"


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar whose members all lie in ``folder.name``/, and take the archive away afterwards.

    Raises
    ------
    InputError
        A damaged archive, a member outside the folder, a link or device, no room; nothing is left behind then.
    """
    hidden = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            _refuse(archive, members, folder.name)
            room(folder.parent, sum(member.size for member in members), f"to unpack {archive.name}")
            hidden.mkdir(parents=True)
            tar.extractall(hidden, members=members, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        shutil.rmtree(hidden, ignore_errors=True)
        raise InputError(f"{archive}: not a whole tar archive ({error}); take it away and get it again") from None
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        raise InputError(
            f"{archive}: cannot be unpacked ({error}); make room or mend the folder's permissions"
        ) from None
    (hidden / folder.name).replace(folder)
    shutil.rmtree(hidden, ignore_errors=True)
    archive.unlink()


def _refuse(archive: Path, members: list[tarfile.TarInfo], folder: str) -> None:
    """Say which member of an archive would be written where it must not."""
    for member in members:
        parts = Path(member.name).parts
        outside = Path(member.name).is_absolute() or ".." in parts or not parts or parts[0] != folder
        if member.name not in (".", "./") and (outside or not (member.isfile() or member.isdir())):
            raise InputError(
                f"{archive}: {member.name!r} in it is outside {folder}/ or no plain file; nothing was unpacked, "
                "do not trust this archive"
            )
