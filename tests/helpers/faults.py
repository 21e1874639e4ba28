"""Scans that are wrong in one way each: how to plant the fault, and the name under which it is to be found."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from helpers.volumes import write_case
from numpy.typing import NDArray

from mixcl.config.settings import PhantomConfig
from mixcl.data.phantom import scan

SPACING = (6.0, 6.0, 6.0)
Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]


def body(number: int) -> Arrays:
    """Image, label map and affine of a phantom with BTCV's labels; each number another one."""
    made = scan.make_case(PhantomConfig(seed=5, spacing=SPACING), "btcv", number)
    return made.image, scan.labelled(made.truth, "btcv"), made.affine


def changed(
    change: Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], tuple[Any, ...]],
) -> Callable[[Path, str], None]:
    """A fault that lies in the arrays or the affine."""

    def plant(root: Path, case: str) -> None:
        write_case(root, case, *change(*body(zlib.crc32(case.encode()) % 10**6)))

    return plant


def file(change: Callable[[Path, Path], object]) -> Callable[[Path, str], None]:
    """A fault that lies in the files (image, label)."""

    def plant(root: Path, case: str) -> None:
        write_case(root, case, *body(zlib.crc32(case.encode()) % 10**6))
        change(root / "imagesTr" / f"{case}.nii.gz", root / "labelsTr" / f"{case}.nii.gz")

    return plant


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_header(path: Path, **values: Any) -> None:
    """Overwrite fields of a NIfTI header, leaving the voxels alone."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for key, value in values.items():
        header[key] = value
    raw[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(raw)))


def poked(value: float) -> Callable[[Any, Any, Any], tuple[Any, ...]]:
    def change(image: Any, label: Any, affine: Any) -> tuple[Any, ...]:
        image = image.astype(np.float32)
        image[5, 5, 5] = value
        return image, label, affine

    return change


def padded(image: Any, label: Any, affine: Any) -> tuple[Any, ...]:
    x, y = np.indices(image.shape[:2])
    corner = (x - image.shape[0] / 2) ** 2 + (y - image.shape[1] / 2) ** 2 > (0.7 * max(image.shape[:2])) ** 2
    corner[:2, :2] = True
    image = image.copy()
    image[corner] = -2048
    return image, label, affine


def shifted(affine: NDArray[Any]) -> NDArray[Any]:
    moved = affine.copy()
    moved[0, 3] += 9
    return moved


def mirrored(affine: NDArray[Any], axis: int, length: int) -> NDArray[Any]:
    """The affine of the same place with one axis counted from the other end."""
    turned = affine.copy()
    turned[:3, 3] += affine[:3, axis] * (length - 1)
    turned[:3, axis] *= -1
    return turned


def off(label: Any) -> Any:
    """The label map a third of the volume to the side, into the air."""
    return np.roll(label, label.shape[0] // 2, axis=0)


FAULTS: dict[str, tuple[str, Callable[[Path, str], None]]] = {
    "no-label": ("missing partner", file(lambda i, s: s.unlink())),
    "no-image": ("missing partner", file(lambda i, s: i.unlink())),
    "image-cut": ("damaged", file(lambda i, s: cut(i))),
    "label-cut": ("damaged", file(lambda i, s: cut(s))),
    "few-voxels": ("damaged", file(lambda i, s: i.write_bytes(gzip.compress(gzip.decompress(i.read_bytes())[:9000])))),
    "empty-file": ("damaged", file(lambda i, s: i.write_bytes(b""))),
    "not-packed": ("format", file(lambda i, s: i.write_bytes(gzip.decompress(i.read_bytes())))),
    "not-nifti": ("format", file(lambda i, s: i.write_bytes(gzip.compress(b"hello" * 200)))),
    "4d": ("dimension", changed(lambda i, s, a: (np.stack([i, i], -1), s, a))),
    "2d-label": ("dimension", changed(lambda i, s, a: (i, s[:, :, 0], a))),
    "complex": ("format", changed(lambda i, s, a: (i.astype(np.complex64), s, a))),
    "other-shape": ("shape", changed(lambda i, s, a: (i, s[:, :, 1:], a))),
    "moved": ("affine", changed(lambda i, s, a: (i, s, a, shifted(a)))),
    "other-axes": ("axes", changed(lambda i, s, a: (i, s[::-1], a, mirrored(a, 0, i.shape[0])))),
    "nan": ("nan", changed(poked(np.nan))),
    "infinite": ("nan", changed(poked(np.inf))),
    "constant": ("constant", changed(lambda i, s, a: (np.zeros_like(i), s, a))),
    "unsigned": ("intercept", changed(lambda i, s, a: ((i + 1024).clip(0).astype(np.uint16), s, a))),
    "twice": ("intercept", changed(lambda i, s, a: (i - 1024, s, a))),
    "8-bit": ("range", changed(lambda i, s, a: (((i.clip(-150, 250) + 150) / 400 * 255).astype(np.uint8), s, a))),
    "bones": ("range", changed(lambda i, s, a: (i.clip(400, 900).astype(np.int16), s, a))),
    "scaled": ("range", changed(lambda i, s, a: ((i / 1000).astype(np.float32), s, a))),
    "huge": ("range", changed(poked(3e7))),
    "padding": ("padding", changed(padded)),
    "unknown-label": ("unknown label", changed(lambda i, s, a: (i, np.where(s == 6, 77, s).astype(np.uint8), a))),
    "negative-label": ("unknown label", changed(lambda i, s, a: (i, np.where(s == 6, -1, s).astype(np.int16), a))),
    "fractional": ("fractional label", changed(lambda i, s, a: (i, (s * 0.7).astype(np.float32), a))),
    "empty-label": ("empty label", changed(lambda i, s, a: (i, np.zeros_like(s), a))),
    "label-is-image": ("unknown label", changed(lambda i, s, a: (i, i, a))),
    "no-spacing": ("spacing", file(lambda i, s: with_header(i, pixdim=[1, 0, 6, 6, 0, 0, 0, 0]))),
    "in-metres": ("field of view", changed(lambda i, s, a: (i, s, np.diag([0.006, 0.006, 0.006, 1.0])))),
    "too-large": ("spacing", changed(lambda i, s, a: (i, s, np.diag([25.0, 25.0, 25.0, 1.0])))),
    "too-coarse": ("thick slices", changed(lambda i, s, a: (i[:, :, ::2], s[:, :, ::2], a * [[1, 1, 2, 1]]))),
    "singular": ("header", file(lambda i, s: with_header(i, srow_z=[0, 0, 0, 0], sform_code=2, qform_code=0))),
    "left-right": ("laterality", changed(lambda i, s, a: (i[::-1], s[::-1], a))),
    "front-back": ("front and back", changed(lambda i, s, a: (i[:, ::-1], s[:, ::-1], a))),
    "head-feet": ("head and feet", changed(lambda i, s, a: (i[:, :, ::-1], s[:, :, ::-1], a))),
    "swapped": ("axes", changed(lambda i, s, a: (i.swapaxes(0, 1), s.swapaxes(0, 1), a))),
    "label-off": ("label off image", changed(lambda i, s, a: (i, off(s), a))),
    "too-big": ("organ size", changed(lambda i, s, a: (i, s, a * 1.9))),
    "no-orientation": ("orientation", file(lambda i, s: [with_header(p, sform_code=0, qform_code=0) for p in (i, s)])),
}


def sliced(change: Callable[[NDArray[Any], NDArray[Any], int], object]) -> Callable[[Path, str], None]:
    """A fault in the slices: ``change`` edits image and label in place, given the middle slice."""

    def edit(image: Any, label: Any, affine: Any) -> tuple[Any, ...]:
        image, label = image.copy(), label.copy()
        change(image, label, image.shape[2] // 2)
        return image, label, affine

    return changed(edit)


def put(array: NDArray[Any], index: Any, value: Any) -> None:
    array[index] = value


def drawn_lots(image: NDArray[Any], label: NDArray[Any], middle: int) -> None:
    order = np.random.default_rng(0).permutation(image.shape[2])
    image[...], label[...] = image[:, :, order], label[:, :, order]


def sheared(affine: NDArray[Any]) -> NDArray[Any]:
    tilted = affine.copy()
    tilted[1, 2] = 2.0
    return tilted


def turned(affine: NDArray[Any], degrees: float) -> NDArray[Any]:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.asarray(np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine)


def other_qform(path: Path) -> None:
    given = nib.load(path)
    made = nib.Nifti1Image(np.asanyarray(given.dataobj), given.affine)
    made.set_sform(given.affine, 1)
    made.set_qform(given.affine @ np.diag([-1, -1, 1, 1]), 1)
    nib.save(made, path)


def halfway(label: NDArray[Any]) -> NDArray[Any]:
    smooth = label.astype(np.float32)
    smooth[1:] = (smooth[1:] + smooth[:-1]) / 2
    return smooth


def someone_elses(label: NDArray[Any]) -> NDArray[Any]:
    other = body(987654)[1]
    fitted = np.zeros_like(label)
    box = tuple(slice(0, min(a, b)) for a, b in zip(label.shape, other.shape, strict=True))
    fitted[box] = other[box]
    return fitted


def swapped_names(label: NDArray[Any]) -> NDArray[Any]:
    return np.select([label == 2, label == 3], [3, 2], label.astype(int)).astype(np.uint8)


def sprinkled(label: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.random.default_rng(0).random(label.shape) < 0.001, 6, label).astype(np.uint8)


def every(label: NDArray[Any], step: int) -> NDArray[Any]:
    return np.where(np.arange(label.shape[2]) % step == 0, label, 0).astype(np.uint8)


def exchange(image: Path, label: Path) -> None:
    kept = image.read_bytes()
    image.write_bytes(label.read_bytes())
    label.write_bytes(kept)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
FAULTS |= {
    "almost-whole": ("fractional label", changed(lambda i, s, a: (i, (s * 0.9995).astype(np.float32), a))),
    "interpolated": ("fractional label", changed(lambda i, s, a: (i, halfway(s), a))),
    "label-slope": ("unknown label", file(lambda i, s: with_header(s, scl_slope=2, scl_inter=0))),
    "slope-2": ("range", file(lambda i, s: with_header(i, scl_slope=2, scl_inter=0))),
    "half-hu": ("range", changed(lambda i, s, a: (i // 2, s, a))),
    "ten-hu": ("range", changed(lambda i, s, a: (i.astype(np.int32) * 10, s, a))),
    "inverted": ("range", changed(lambda i, s, a: (-i, s, a))),
    "windowed": ("range", changed(lambda i, s, a: (i.clip(-160, 240), s, a))),
    "bytes-swapped": ("range", changed(lambda i, s, a: (i.astype(np.int16).byteswap(), s, a))),
    "minus-spacing": ("spacing", file(lambda i, s: with_header(i, pixdim=[1, -6, 6, 6, 0, 0, 0, 0]))),
    "two-spacings": ("spacing", file(lambda i, s: with_header(i, pixdim=[1, 3, 3, 3, 0, 0, 0, 0]))),
    "unit-metre": ("spacing", file(lambda i, s: with_header(i, xyzt_units=1))),
    "tilted": ("shear", changed(lambda i, s, a: (i, s, sheared(a)))),
    "oblique": ("orientation", changed(lambda i, s, a: (i, s, turned(a, 30)))),
    "two-forms": ("orientation", file(lambda i, s: other_qform(i))),
    "blank-slice": ("blank slices", sliced(lambda i, s, k: put(i, np.s_[:, :, k], 0))),
    "zeros-on-top": ("blank slices", sliced(lambda i, s, k: put(i, np.s_[:, :, -4:], 0))),
    "slice-twice": ("repeated slices", sliced(lambda i, s, k: put(i, np.s_[:, :, k], i[:, :, k - 1]))),
    "shuffled": ("slice order", sliced(drawn_lots)),
    "part-upside-down": ("slice jump", sliced(lambda i, s, k: put(i, np.s_[:, :, :k], i[:, :, :k][:, :, ::-1].copy()))),
    "label-flipped-0": ("label off image", changed(lambda i, s, a: (i, s[::-1], a))),
    "label-flipped-1": ("label off image", changed(lambda i, s, a: (i, s[:, ::-1], a))),
    "label-flipped-2": ("label off image", changed(lambda i, s, a: (i, s[:, :, ::-1], a))),
    "image-mirrored": ("label off image", changed(lambda i, s, a: (i[::-1], s, a))),
    "someone-elses": ("label off image", changed(lambda i, s, a: (i, someone_elses(s), a))),
    "kidneys-swapped": ("laterality", changed(lambda i, s, a: (i, swapped_names(s), a))),
    "other-values": ("organ size", changed(lambda i, s, a: (i, np.where(s > 0, 14 - s, 0).astype(np.uint8), a))),
    "sprinkled": ("sparse label", changed(lambda i, s, a: (i, sprinkled(s), a))),
    "every-third": ("sparse label", changed(lambda i, s, a: (i, every(s, 3), a))),
    "one-hot": ("dimension", changed(lambda i, s, a: (i, np.stack([s == k for k in range(14)], -1).astype("u1"), a))),
    "label-nan": ("nan", changed(lambda i, s, a: (i, np.where(s == 6, np.nan, s).astype(np.float32), a))),
    "colour": ("format", changed(lambda i, s, a: (np.zeros(i.shape, [(c, "u1") for c in "RGB"]), s, a))),
    "exchanged": ("unknown label", file(exchange)),
    "pointer": ("pointer", file(lambda i, s: i.write_text(POINTER))),
    "web-page": ("web page", file(lambda i, s: i.write_text("<!DOCTYPE html><html>please sign in</html>"))),
    "packed-twice": ("format", file(lambda i, s: i.write_bytes(gzip.compress(i.read_bytes())))),
    "rest-behind": ("format", file(lambda i, s: i.write_bytes(i.read_bytes() + b"rest"))),
    "last-byte": ("damaged", file(lambda i, s: i.write_bytes(i.read_bytes()[:-1]))),
    "more-voxels": ("header", file(lambda i, s: i.write_bytes(gzip.compress(gzip.decompress(i.read_bytes()) * 2)))),
    "huge-shape": ("damaged", file(lambda i, s: with_header(i, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]))),
    "link-to-nowhere": ("missing", file(lambda i, s: (i.unlink(), i.symlink_to("nowhere")))),
    "folder": ("missing partner", file(lambda i, s: (i.unlink(), i.mkdir()))),
    "on-its-side": ("axes", changed(lambda i, s, a: (np.rot90(i, 1, (1, 2)), np.rot90(s, 1, (1, 2)), a))),
}
