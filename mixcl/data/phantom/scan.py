"""Phantoms: CT-like volumes with the label gaps of the real collections.

Organs are told apart by place, shape, texture and neighbourhood.  Their attenuation depends on the contrast phase and
changes from case to case by more than organs differ, so that absolute HU is a weak cue, as it is in real life.
A case depends on the seed, its collection and its number alone.  It is computed in float64 and rounded to whole HU at
the end, which hides the last bits in which instruction sets differ, so that x86-64 machines draw the same voxels.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mixcl.config.settings import PhantomConfig
from mixcl.data.phantom import body as anatomy
from mixcl.data.phantom.body import Array, Body

LABELS: dict[str, dict[int, int]] = {  # full truth -> label value of the collection; all else is background
    "msd_liver": {6: 1, anatomy.LIVER_TUMOUR: 2},
    "msd_lung": {anatomy.LUNG_TUMOUR: 1},
    "msd_pancreas": {11: 1, anatomy.PANCREAS_TUMOUR: 2},
    "nih_pancreas": {11: 1},
    "kits19": {2: 1, 3: 1, anatomy.KIDNEY_TUMOUR: 2},
    "msd_spleen": {1: 1},
    "btcv": {value: value for value in range(1, 14)},
}
ROUGH = (6.0, 6.0, 6.0)  # mm, of the grid on which it is seen whether a tumour shows, whatever the voxel size

# HU without contrast and in the arterial, portal and delayed phase; wavelength (mm) and amplitude (HU) of the texture.
TISSUES: dict[int, tuple[tuple[float, float, float, float], float, float]] = {
    0: ((-1000,) * 4, 0, 0), 1: ((48, 110, 115, 95), 22, 14), 2: ((32, 130, 160, 140), 28, 22),
    3: ((32, 130, 160, 140), 28, 22), 4: ((10, 10, 12, 14), 60, 3), 5: ((38, 50, 62, 60), 16, 10),
    6: ((56, 66, 106, 92), 44, 8), 7: ((36, 52, 66, 62), 34, 20), 8: ((42, 260, 150, 112), 60, 4),
    9: ((40, 90, 140, 116), 60, 4), 10: ((42, 95, 160, 120), 50, 5), 11: ((38, 94, 88, 74), 17, 18),
    12: ((28, 62, 72, 60), 18, 8), 13: ((28, 62, 72, 60), 18, 8), anatomy.LUNG: ((-820,) * 4, 26, 40),
    anatomy.BONE: ((330, 340, 340, 335), 18, 90), anatomy.MUSCLE: ((54, 58, 64, 62), 20, 9),
    anatomy.FAT: ((-100, -98, -96, -97), 40, 9), anatomy.BOWEL: ((34, 48, 62, 60), 26, 22),
    anatomy.HEART: ((42, 190, 140, 112), 50, 8), anatomy.GAS: ((-880,) * 4, 40, 20),
    anatomy.TISSUE: ((40, 66, 82, 76), 24, 12),
    anatomy.LIVER_TUMOUR: ((42, 58, 66, 70), 18, 14), anatomy.LUNG_TUMOUR: ((28, 48, 56, 56), 26, 18),
    anatomy.PANCREAS_TUMOUR: ((32, 52, 60, 62), 20, 10), anatomy.KIDNEY_TUMOUR: ((30, 92, 88, 80), 18, 20),
}  # fmt: skip


class Phantom(NamedTuple):
    """A scan, RAS+, and what is in it."""

    image: NDArray[np.int16]  # [X, Y, Z] in HU
    truth: NDArray[np.uint8]  # of the same shape: BTCV's labels 1 to 13 and those named in `mixcl.data.phantom.body`
    affine: Array  # [4, 4] to mm


class Scan(NamedTuple):
    """How a case is scanned: HU a tissue and texture waves by label, and what the machine adds."""

    hu: dict[int, float]
    waves: dict[int, Array]
    gain: float
    cupping: float
    tilt: Array
    noise: float
    kernel: float


def make_case(config: PhantomConfig, collection: str, index: int) -> Phantom:
    """One phantom: case ``index`` of a built-in collection, with its tumour; ``msd_lung`` holds more of the chest."""
    key = int.from_bytes(hashlib.sha256(collection.encode()).digest()[:4], "big")
    streams = np.random.SeedSequence([config.seed, key, index]).spawn(4)
    patient, geometry, scanner, grains = (np.random.Generator(np.random.PCG64(s)) for s in streams)
    chest, tumour = collection == "msd_lung", next((t for t in LABELS[collection] if t in anatomy.PARENT), None)
    frame = geometry.random(7)  # of the scan: voxel size, margins, ends
    body = anatomy.draw_body(patient, config.difficulty, tumour)
    while tumour is not None and not _shows(body, tumour, *_grid(ROUGH, frame, body, chest)):
        body = anatomy.draw_body(patient, config.difficulty, tumour)  # another organ or the end of the scan hid it
    shape, affine = _grid(config.spacing, frame, body, chest)
    scan = _draw_scan(scanner, config.difficulty)
    image, truth = np.empty(shape, np.int16), np.empty(shape, np.uint8)
    for start in range(0, shape[2], 32):  # slabs, so that a volume of real size needs little memory
        part = slice(start, min(start + 32, shape[2]))
        x, y, z = _positions(shape, affine, part)
        truth[..., part] = _rasterise(body, x, y, z)
        image[..., part] = _acquire(scan, truth[..., part], x, y, z, grains)
    return Phantom(image, truth, affine)


def labelled(truth: NDArray[np.uint8], collection: str) -> NDArray[np.uint8]:
    """What the collection's makers would have labelled; an unlabelled tumour counts as the organ it is in."""
    table = np.zeros(256, np.uint8)
    table[list(LABELS[collection])] = list(LABELS[collection].values())
    for tumour, parent in anatomy.PARENT.items():
        table[tumour] = LABELS[collection].get(tumour, table[parent])
    return table[truth]


def _draw_scan(rng: np.random.Generator, difficulty: float) -> Scan:
    """Contrast phase (between two of the four), attenuation of each tissue, textures, and the scanner's doing."""
    phase = rng.uniform(0, 3)
    early, late = int(phase), min(int(phase) + 1, 3)
    offset, hu, waves = rng.normal(0, 9 * difficulty), {}, {}
    for label, (values, wavelength, amplitude) in TISSUES.items():
        own = rng.normal(0, 11 * difficulty) if 0 < label < 14 or label > anatomy.MUSCLE else 0.0
        mean = values[early] + (phase - early) * (values[late] - values[early])
        hu[label] = float(mean + (own + offset if label else 0.0))
        directions = rng.normal(size=(10, 3))
        directions /= np.sqrt((directions**2).sum(1, keepdims=True))
        lengths = rng.uniform(0.75, 1.35, (10, 1)) * max(wavelength, 1)
        strength = np.full((10, 1), amplitude * rng.uniform(0.7, 1.3) / np.sqrt(5))
        waves[label] = np.hstack([strength, directions * 2 * np.pi / lengths, rng.uniform(0, 2 * np.pi, (10, 1))])
    hu[13], hu[3] = hu[12], hu[2]  # a pair of organs takes up contrast alike
    return Scan(
        hu, waves, gain=1 + 0.02 * difficulty * rng.normal(), cupping=rng.uniform(-12, 12) * difficulty,
        tilt=rng.uniform(-0.05, 0.05, 3) * difficulty, noise=rng.uniform(7, 20) * difficulty,
        kernel=rng.uniform(0.3, 0.9),
    )  # fmt: skip


def _grid(
    nominal: tuple[float, float, float], frame: Array, body: Body, chest: bool
) -> tuple[tuple[int, int, int], Array]:
    """Voxels and RAS affine of a scan that holds the trunk from the lower kidneys to the lung bases, or more.

    ``frame``: seven numbers between 0 and 1 that choose the field of view and how far voxels are from ``nominal`` mm.
    """

    def between(low: float, high: float, k: slice | int) -> Any:
        return low + (high - low) * frame[k]

    spacing = np.array(nominal) * (between(0.92, 1.08, 0), between(0.92, 1.08, 0), between(0.85, 1.1, 1))
    margin = between(6, 22, slice(2, 5))
    low = np.array([-body.half[0], -body.half[1], between(-110, -88, 5)]) * body.scale - margin * (1, 1, 0)
    top = between(165, 190, 6) if chest else between(118, 140, 6)
    high = np.array([body.half[0], body.half[1], top]) * body.scale + margin * (1, 1, 0)
    shape = np.ceil((high - low) / spacing).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low
    return (int(shape[0]), int(shape[1]), int(shape[2])), affine


def _shows(body: Body, label: int, shape: tuple[int, int, int], affine: Array) -> bool:
    """Whether a label has 2 ml on a grid and spans two voxels along each axis, so that resampling keeps some."""
    here = _rasterise(body, *_positions(shape, affine, slice(0, shape[2]))) == label
    enough = here.sum() * np.diag(affine)[:3].prod() >= 2000  # cubic millimetres
    return bool(enough and all(np.ptp(places) > 0 for places in np.nonzero(here)))


def _positions(shape: tuple[int, int, int], affine: Array, part: slice) -> tuple[Array, Array, Array]:
    """Patient positions in mm, shaped to be broadcast against each other."""
    axes = [affine[a, 3] + affine[a, a] * np.arange(n) for a, n in enumerate(shape)]
    return axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, part]


def _rasterise(body: Body, x: Array, y: Array, z: Array) -> NDArray[np.uint8]:
    """The full truth on a slab; later shapes are painted over earlier ones, inside the muscle wall."""
    u, v, w = anatomy.to_reference(body, x, y, z)
    truth, free = anatomy.trunk(body, u, v, w)
    for shape in body.shapes:
        low, high = anatomy.bounds(body, shape)
        box = tuple(slice(*np.searchsorted(axis.ravel(), (low[a], high[a]))) for a, axis in enumerate((x, y, z)))
        if any(s.start >= s.stop for s in box):
            continue
        here = anatomy.inside(shape, u[box], v[box], w[box]) & free[box]
        if shape.label == anatomy.LUNG_TUMOUR:
            here &= np.isin(truth[box], (anatomy.LUNG, anatomy.LUNG_TUMOUR))
        if shape.label != anatomy.BONE:
            here &= truth[box] != anatomy.BONE
        truth[box][here] = shape.label
    return truth


def _acquire(
    scan: Scan, truth: NDArray[np.uint8], x: Array, y: Array, z: Array, rng: np.random.Generator
) -> NDArray[np.int16]:
    """HU of a slab: tissue with texture, blurred in the plane, plus shading and noise of the kernel's grain."""
    table = np.zeros(256)
    table[list(scan.hu)] = list(scan.hu.values())
    image = table[truth]
    for label in set(np.unique(truth).tolist()) - {0}:
        here = truth == label
        px, py, pz = (np.broadcast_to(axis, truth.shape)[here] for axis in (x, y, z))
        for strength, kx, ky, kz, phase in scan.waves[label]:
            image[here] += strength * np.cos(kx * px + ky * py + kz * pz + phase)
    image = ndimage.gaussian_filter(image, (0.45, 0.45, 0))
    centre = ((x - x.mean()) / 150) ** 2 + ((y - y.mean()) / 110) ** 2
    shading = scan.cupping * (centre - 0.5) + scan.tilt[0] * x + scan.tilt[1] * y + scan.tilt[2] * z
    image = scan.gain * image + np.where(truth > 0, shading, 0.0)
    grain = ndimage.gaussian_filter(rng.normal(size=truth.shape), (scan.kernel, scan.kernel, 0))
    image += scan.noise * grain / grain.std()
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)
