"""Collections that may be downloaded without signing in, and how to get the others.

An archive is checked before it is unpacked, into a hidden folder: that of a collection is there whole or not at all.
"""

import io
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

from mixcl.data.fetch import fetch
from mixcl.data.registry import COLLECTIONS
from mixcl.errors import InputError
from mixcl.files import check_room, human, writing
from mixcl.lock import held

MSD = "https://msd-for-monai.s3-us-west-2.amazonaws.com/{}.tar"
MSD_MD5 = {  # addresses and checksums are those of MONAI's DecathlonDataset
    "msd_liver": "a90ec6c4aa7f6a3d087205e23d4e6397", "msd_lung": "8afd997733c7fc0432f71255ba4e52dc",
    "msd_pancreas": "4f7080cfca169fa8066d17ce6eb061e4", "msd_spleen": "410d4a301da4e5b2f6f86ec3ddba524e",
}  # fmt: skip
KITS = {  # addresses are those of KiTS19's own repository
    "imaging": "https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging/resolve/main/images/case_{:05}.nii.gz",
    "segmentation": "https://raw.githubusercontent.com/neheller/kits19/master/data/case_{:05}/segmentation.nii.gz",
}
MOST_HEADERS = 2**23  # bytes of an archive's names and other headers: of some 16,000 files
STEPS = {
    "nih_pancreas": (
        "NIH Pancreas-CT is given by The Cancer Imaging Archive: https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU\n"
        "1. Get the images with the NBIA Data Retriever (DICOM) and the labels (TCIA_pancreas_labels, NIfTI).\n"
        "2. Put the series of each case into a folder {root}/Pancreas-CT/PANCREAS_0001 (any folders below it will do)\n"
        "   and the labels at {root}/Pancreas-CT/labels/label0001.nii.gz; or convert the series to NIfTI as\n"
        "   {root}/Pancreas-CT/images/PANCREAS_0001.nii.gz. Cases 25 and 70 were withdrawn: 80 are left.\n"
        "3. Run mixcl data check: labels are turned as the headers of both say, and those that fit no\n"
        "   image are named."
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
    """What ``mixcl data get`` downloads for a collection; nothing where an account is needed."""
    if name in MSD_MD5:
        folder = COLLECTIONS[name].root
        return [File(MSD.format(folder), f"{folder}.tar", MSD_MD5[name])]
    cases = range(COLLECTIONS[name].count or 0) if name == "kits19" else ()  # the first ones have labels
    return [File(KITS[part].format(k), f"kits19/data/case_{k:05}/{part}.nii.gz") for k in cases for part in KITS]


def get(name: str, root: Path, *, progress: bool = True) -> str:
    """Download a collection into ``root``, and say where it is or how to get it; what is there already is left alone.

    Raises InputError: another process that gets it, an unknown collection, no room on the disk, a server that does not
    give the file, a file that is not what it should be, an archive that would write outside its folder.
    """
    if name in STEPS:
        return STEPS[name].format(root=root)
    wanted = files(name)
    if not wanted:
        known = ", ".join((*MSD_MD5, "kits19", *STEPS))
        raise InputError(f"data get {name}: not a built-in collection; choose one of {known}")
    folder = root / Path(wanted[0].to).parts[0].removesuffix(".tar")
    if (folder / "phantom.json").exists():
        raise InputError(f"{folder}: holds phantoms; take the folder away, or choose another --to")
    if not all(_is_there(root / file.to) for file in wanted):
        with held(root / f".{name}.lock", f"{root}: {name}"):
            for number, file in enumerate(wanted, start=1):
                _get(file, root, progress, f"{number}/{len(wanted)}")
    return f"{name}: in {folder}; check it with: mixcl data check"


def _get(file: File, root: Path, progress: bool, number: str) -> None:
    """Download a file that is not there, and unpack an archive; one that is there was checked when it came."""
    to = root / file.to
    if _is_there(to):
        return
    if to.suffix == ".tar" and _unpacked(to.with_suffix("")):
        _finish(to, to.with_suffix(""))
        return
    if not to.is_file():
        fetch(file.url, to, file.md5, progress=progress, shown=f"{number} {to.parent.name}" if number != "1/1" else "")
    if to.suffix == ".tar":
        unpack(to, to.with_suffix(""))


def _is_there(to: Path) -> bool:
    """Whether a file is there, or what was unpacked of it and nothing else that unpacking leaves."""
    folder = to.with_suffix("")
    return to.is_file() if to.suffix != ".tar" else _unpacked(folder) and not _hidden(folder).is_dir()


def _unpacked(folder: Path) -> bool:
    """Whether a collection was unpacked; an empty folder, which a user may have made, is none."""
    return folder.is_dir() and any(folder.iterdir())


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar whose members all lie in ``folder.name``/, and take the archive away afterwards.

    Raises InputError: a damaged archive, a member outside the folder, a link or device, headers or members beyond
    measure, no room; nothing is left behind then.
    """
    hidden = _hidden(folder)
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        with writing(folder):
            _check(archive, folder)
            hidden.mkdir()
            with tarfile.open(archive, "r:") as tar:
                for member in tar:
                    _write(tar, member, hidden / member.name)
            (hidden / folder.name).replace(folder)
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise InputError(f"{archive}: not a whole tar archive ({error}); take it away and get it again") from None
    finally:
        if not _unpacked(folder):
            shutil.rmtree(hidden, ignore_errors=True)
    _finish(archive, folder)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, to: Path) -> None:
    """Write a folder or plain file with the user's own rights; of a file no more than it says it has."""
    content = tar.extractfile(member)
    if content is None:
        to.mkdir(parents=True, exist_ok=True)
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    with content, to.open("wb") as file:
        shutil.copyfileobj(content, file, 2**20)
    if to.stat().st_size != member.size:
        raise tarfile.ReadError(f"{member.name[:100]!a} is cut")


def _hidden(folder: Path) -> Path:
    """Where a collection is unpacked; beside a finished one it says that a kill came before `_finish`."""
    return folder.with_name(f".{folder.name}.unpacking")


def _finish(archive: Path, folder: Path) -> None:
    """Take away what an unpacked collection needs no more."""
    with writing(archive):
        archive.unlink(missing_ok=True)
        shutil.rmtree(_hidden(folder), ignore_errors=True)


class _Headers(io.FileIO):
    """A tar archive of which no more is read than headers may have; tarfile alone reads whatever one of them claims."""

    left = MOST_HEADERS

    def read(self, size: int | None = -1) -> bytes:
        """The next ``size`` bytes; an InputError where headers have more than they may."""
        self.left -= self.left + 1 if size is None or size < 0 else size
        if self.left < 0:
            text = f"{self.name}: has more than {human(MOST_HEADERS)} of names and other headers; nothing was unpacked"
            raise InputError(f"{text}, do not trust this archive")
        return super().read(size)


def _check(archive: Path, folder: Path) -> None:
    """Refuse an archive with a member that would be written where it must not, or without room for all of them."""
    size = 0
    with _Headers(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            size += member.size
            parts = Path(member.name).parts
            inside = parts[:1] == (folder.name,) and ".." not in parts
            plain = member.isdir() or (member.isfile() and not member.issparse())
            if not (plain and (inside or member.name in (".", "./"))):
                text = f"{member.name[:100]!a} in it is outside {folder.name}/ or no plain file; nothing was unpacked"
                raise InputError(f"{archive}: {text}, do not trust this archive")
    check_room(folder.parent, size, f"to unpack {archive.name}")
