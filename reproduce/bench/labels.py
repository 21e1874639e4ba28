"""How label maps should be resampled to the store's grid: by the nearest voxel, or by the strongest of linear maps.

The second is interpolated for each label as a map of 0 and 1, and the label with the highest value wins.  Both start
from shapes that are known exactly, drawn on the voxels of a scanner and put at random places: volume against the true
one, Dice against the shape drawn on the new grid, and whether a shape is lost or falls apart.  With ``--real`` label
maps of a folder are resampled as well, and their volumes in ml are compared before and after.

    python reproduce/bench/labels.py --out labels.json --real DIR
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import sides
from numpy.typing import NDArray
from scipy import ndimage

from mixcl.data.files.grid import resample_linear, resample_nearest, resampled_shape, spacing_of, to_ras
from mixcl.data.files.volume import read_volume, voxels_of

TARGET = (1.5, 1.5, 2.0)
SLICES = (1.0, 2.0, 3.0, 5.0)
"""Slice thickness, mm; voxels are 0.7 mm wide."""
SHAPES = [("sphere", d) for d in (6.0, 10.0, 20.0, 40.0)] + [("tube", d) for d in (2.0, 3.0, 4.0, 6.0)]
"""Kinds and diameters, mm; a tube is 40 mm long and lies in any direction."""
TOUCHING = np.ones((3, 3, 3))

Labels = NDArray[np.uint8]


def main() -> None:
    parser = sides.arguments(__doc__, repeats=20)
    parser.add_argument("--real", type=Path, help="folder with label maps called *seg*.nii.gz or case_*.nii.gz")
    args = parser.parse_args()
    found = {f"{kind} {size:g} mm": analytic(kind, size, args.repeats) for kind, size in SHAPES}
    for name, rows in found.items():
        print(f"{name}: " + "; ".join(f"{way} {told(row)}" for way, row in rows.items()))
    thin = [rows for name, rows in found.items() if name.startswith("tube")]
    bias = {way: np.mean([abs(rows[way]["volume"]) for rows in thin]) for way in WAYS}
    apart = {way: np.mean([1 - rows[way]["dice"] for rows in found.values()]) for way in WAYS}
    ratios = {"labels-tube-volume": bias["linear"] / bias["nearest"], "labels-dice": apart["nearest"] / apart["linear"]}
    real = {} if args.real is None else given(args.real)
    sides.report("labels", args, ratios, target=TARGET, shapes=found, real=real)


def linear(labels: Labels, spacing: Sequence[float], target: Sequence[float]) -> Labels:
    """The label whose map of 0 and 1, interpolated linearly, is highest; of equal ones the lower value."""
    best = result = None
    for value in np.unique(labels):
        weight = resample_linear((labels == value).astype(np.float32), spacing, target)
        if best is None or result is None:
            best, result = weight, np.full(weight.shape, value)
        else:
            more = weight > best
            best[more], result[more] = weight[more], value
    if result is None:
        raise ValueError("an empty label map")
    return result


WAYS: dict[str, Callable[[Labels, Sequence[float], Sequence[float]], Labels]] = {
    "nearest": resample_nearest, "linear": linear,
}  # fmt: skip


def analytic(kind: str, size: float, places: int) -> dict[str, dict[str, float]]:
    """Means over slice thicknesses and random places and directions, by way of resampling."""
    rng = np.random.default_rng(0)
    volume = np.pi / 6 * size**3 if kind == "sphere" else np.pi / 4 * size**2 * 40
    rows = defaultdict(list)
    for thickness in np.repeat(SLICES, places):
        spacing = (0.7, 0.7, float(thickness))
        shape = [round(66 / step) for step in spacing]
        centre, direction = rng.uniform(-10.5, 10.5, 3), rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        source = _drawn(kind, size, shape, spacing, centre, direction)
        truth = _drawn(kind, size, resampled_shape(shape, spacing, TARGET), TARGET, centre, direction)
        for way, resample in WAYS.items():
            made = resample(source, spacing, TARGET)
            both = 2 * (made & truth).sum() / max(made.sum(dtype=int) + truth.sum(dtype=int), 1)
            pieces = ndimage.label(made, TOUCHING)[1] - ndimage.label(source, TOUCHING)[1]
            lost = source.any() and not made.any()
            rows[way].append((made.sum() * np.prod(TARGET) / volume - 1, both, pieces, lost))
    return {way: dict(zip(("volume", "dice", "pieces", "lost"), np.mean(r, axis=0).tolist(), strict=True))
            for way, r in rows.items()}  # fmt: skip


def _drawn(
    kind: str, size: float, shape: Sequence[int], spacing: Sequence[float], centre: NDArray[np.float64],
    direction: NDArray[np.float64],
) -> Labels:  # fmt: skip
    """A shape on a grid whose middle is 0 mm: the voxels whose centre it holds."""
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*(axis - c for axis, c in zip(axes, centre, strict=True)), indexing="ij", sparse=True)
    square = x**2 + y**2 + z**2
    if kind == "sphere":
        return (square <= (size / 2) ** 2).astype(np.uint8)
    along = x * direction[0] + y * direction[1] + z * direction[2]
    return ((square - along**2 <= (size / 2) ** 2) & (np.abs(along) <= 20)).astype(np.uint8)


def given(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Of each label map and way: errors of volume above and below 10 ml, labels lost, pieces more than before."""
    found = {}
    for path in sorted((*folder.rglob("*seg*.nii.gz"), *folder.rglob("case_*.nii.gz"))):
        volume = read_volume(path)
        labels, affine = to_ras(volume.data.astype(np.uint8), volume.affine)
        spacing = spacing_of(affine)
        before = {value: n * float(np.prod(spacing)) / 1000 for value, n in voxels_of(labels).items() if value}
        rows = {}
        for way, resample in WAYS.items():
            made = np.ascontiguousarray(resample(labels, spacing, TARGET))
            after = voxels_of(made)
            errors = {v: after.get(v, 0) * float(np.prod(TARGET)) / 1000 / ml - 1 for v, ml in before.items()}
            large = [abs(e) for v, e in errors.items() if before[v] > 10]
            small = [abs(e) for v, e in errors.items() if before[v] <= 10]
            rows[way] = {
                "largest error over 10 ml": max(large, default=0.0), "mean error over 10 ml": _mean(large),
                "mean error below": _mean(small), "lost": sum(v not in after for v in before),
                "pieces": _mean([_pieces(made == v) - _pieces(labels == v) for v in before]),
            }  # fmt: skip
        name = str(path.relative_to(folder))
        found[name] = rows
        print(f"{name}: " + "; ".join(f"{way} {told(row)}" for way, row in rows.items()))
    return found


def _pieces(inside: NDArray[np.bool_]) -> int:
    return int(ndimage.label(inside, TOUCHING)[1])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def told(row: dict[str, float]) -> str:
    return ", ".join(f"{what} {value:.4f}" for what, value in row.items())


if __name__ == "__main__":
    main()
