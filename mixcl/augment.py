"""The distortions of Sec. 3.1, batched, on the device where the batch is (R11).

Pre-training: :func:`spatial` moves image and labels together, :func:`views` then changes intensities alone.
Fine-tuning: :func:`finetune`.  Every decision and every parameter is drawn from CPU generators, one for the batch or
one a sample; with one a sample, a sample's distortion does not depend on what else is in the batch.  Intensities are
in [0, 1], the ends of the HU window.  The magnitudes are not given in the paper (R30).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mixcl.config import FinetuneAugment, ViewsConfig

Generators = torch.Generator | Sequence[torch.Generator]


def spatial(image: Tensor, labels: Tensor, config: ViewsConfig, generators: Generators) -> tuple[Tensor, Tensor]:
    """Elastic and affine, each with ``spatial_prob``, in one resampling of image (linear) and labels (nearest).

    Parameters
    ----------
    image
        [B, 1, X, Y, Z], floating point.
    labels
        [B, X, Y, Z], integers.
    config
        Probabilities and magnitudes.
    generators
        One CPU generator, or one a sample.

    Returns
    -------
    tuple of Tensor
        Same shapes and types.  A sample drawn with neither comes back bit for bit; beyond the border the border is
        repeated; labels take no value that was not there.

    Raises
    ------
    ValueError
        Shapes that do not belong together.
    """
    if image.ndim != 5 or labels.shape != image.shape[:1] + image.shape[2:]:
        raise ValueError(
            f"image {tuple(image.shape)} and labels {tuple(labels.shape)}: give [B, 1, X, Y, Z] and [B, X, Y, Z]"
        )
    each = _each(generators, len(image))
    drawn = [_draw_spatial(config, g) for g in each]
    moved = [row for row, (matrix, control) in enumerate(drawn) if matrix is not None or control is not None]
    if not moved:
        return image, labels
    on_device = [[None if t is None else t.to(image.device, non_blocking=True) for t in drawn[row]] for row in moved]
    grids = torch.stack([sampling_grid(labels.shape[1:], *pair) for pair in on_device])
    rows = torch.tensor(moved, device=image.device)
    warped = resample(image[rows], grids, "bilinear")
    warped_labels = resample(labels[rows, None].float(), grids, "nearest")[:, 0]
    image, labels = image.clone(), labels.clone()
    image[rows], labels[rows] = warped, warped_labels.to(labels.dtype)
    return image, labels


def views(patch: Tensor, config: ViewsConfig, generators: Generators) -> Tensor:
    """A distorted copy of [B, 1, X, Y, Z]: shift, gamma, smoothing, noise, each with ``intensity_prob``; nothing moves."""
    samples = []
    for x, g in zip(patch, _each(generators, len(patch)), strict=True):
        coins, sizes = torch.rand(4, generator=g).tolist(), torch.rand(4, generator=g).tolist()
        seed = int(torch.randint(2**62, (), generator=g))
        on = [coin < config.intensity_prob for coin in coins]
        if on[0]:
            x = shift(x, _between(-config.shift, config.shift, sizes[0]))
        if on[1]:
            x = gamma(x, _between(*config.gamma, sizes[1]))
        if on[2]:
            x = smooth(x, _between(*config.smooth_sigma, sizes[2]))
        if on[3]:
            x = noise(x, _between(*config.noise_std, sizes[3]), seed)
        samples.append(x)
    return torch.stack(samples)


def finetune(
    image: Tensor, labels: Tensor, config: FinetuneAugment, generators: Generators
) -> tuple[Tensor, Tensor]:
    """Rotation by 90, 180 or 270 degrees, flips along each axis, intensity scale and shift, each with ``prob``.

    Shapes as in :func:`spatial`, but the patch must be a cube, or a rotation would change its shape (ValueError).
    """
    if len(set(image.shape[2:])) != 1:
        raise ValueError(f"patches are {tuple(image.shape[2:])} voxels: rotations by 90 degrees need cubes")
    images, maps = [], []
    for x, s, g in zip(image, labels, _each(generators, len(image)), strict=True):
        coins, sizes = torch.rand(6, generator=g).tolist(), torch.rand(2, generator=g).tolist()
        plane, turns = int(torch.randint(3, (), generator=g)), int(torch.randint(1, 4, (), generator=g))
        on = [coin < config.prob for coin in coins]
        if on[0]:
            x, s = rotate90(x, plane, turns), rotate90(s, plane, turns)
        axes = [axis - 3 for axis in range(3) if on[1 + axis]]
        x, s = torch.flip(x, axes), torch.flip(s, axes)
        if on[4]:
            x = x * _between(1 - config.scale, 1 + config.scale, sizes[0])
        if on[5]:
            x = shift(x, _between(-config.shift, config.shift, sizes[1]))
        images.append(x)
        maps.append(s)
    return torch.stack(images), torch.stack(maps)


def affine_matrix(
    rotate_deg: Sequence[float] = (0, 0, 0), scale: Sequence[float] = (1, 1, 1), shear: Sequence[float] = (0,) * 6,
    translate: Sequence[float] = (0, 0, 0),
) -> Tensor:  # fmt: skip
    """[3, 4] matrix from output to input positions, both in [-1, 1] along each axis, in the order (X, Y, Z).

    Rotations about X, Y and Z in degrees, then shear, scale (above 1 shrinks what is shown) and a shift in fractions
    of the edge.
    """
    matrix = torch.eye(3, dtype=torch.float64)
    for axis, degrees in enumerate(rotate_deg):
        i, j = [k for k in range(3) if k != axis]
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        turn = torch.eye(3, dtype=torch.float64)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        matrix = turn @ matrix
    a, b, c2, d, e, f = shear
    slant = torch.tensor([[1, a, b], [c2, 1, d], [e, f, 1]], dtype=torch.float64)
    matrix = slant @ matrix @ torch.diag(torch.tensor(scale, dtype=torch.float64))
    shift_by = 2 * torch.tensor(translate, dtype=torch.float64)
    return torch.cat([matrix, shift_by[:, None]], 1).float()


def sampling_grid(shape: Sequence[int], matrix: Tensor | None, control: Tensor | None) -> Tensor:
    """Where each output voxel reads: [X, Y, Z, 3] in grid_sample's convention (last axis z, y, x; corners aligned).

    Parameters
    ----------
    shape
        (X, Y, Z).
    matrix
        [3, 4] of :func:`affine_matrix`, or None.
    control
        [3, n, n, n], displacements of the control points of a cubic B-spline in fractions of the edge, or None.
    """
    source = matrix if matrix is not None else control
    device = source.device if source is not None else torch.device("cpu")
    axes = [torch.linspace(-1, 1, n, device=device) for n in shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    if matrix is not None:
        grid = grid @ matrix[:, :3].T + matrix[:, 3]
    if control is not None:
        grid = grid + 2 * elastic_field(control, shape)
    return grid.flip(-1)


def elastic_field(control: Tensor, shape: Sequence[int]) -> Tensor:
    """Smooth displacement [X, Y, Z, 3] from control points [3, n, n, n], by uniform cubic B-splines along each axis.

    The displacement never exceeds the largest control point's.
    """
    field = control
    for axis, size in enumerate(shape, start=1):
        weights = _spline(field.shape[axis], size, control.device, control.dtype)
        field = torch.movedim(torch.movedim(field, axis, -1) @ weights.T, -1, axis)
    return field.movedim(0, -1)


def resample(volume: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Read [B, C, X, Y, Z] at [B, X, Y, Z, 3]; the border is repeated beyond the border."""
    kept = volume if volume.dtype in (torch.float32, torch.float64) else volume.float()
    read = F.grid_sample(kept, grid.to(kept.dtype), mode=mode, padding_mode="border", align_corners=True)
    return read.to(volume.dtype)


def shift(x: Tensor, by: float) -> Tensor:
    """Add a constant, in fractions of the window."""
    return x + by


def gamma(x: Tensor, exponent: float) -> Tensor:
    """Raise to a power within the sample's own range, so that values outside [0, 1] are safe and the range is kept."""
    low, high = x.amin(), x.amax()
    span = (high - low).clamp_min(1e-6)
    return ((x - low) / span).clamp(0, 1).pow(exponent) * span + low


def smooth(x: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of [1, X, Y, Z] by ``sigma`` voxels, axis by axis, the border repeated."""
    if sigma <= 0:
        return x
    radius = max(1, math.ceil(4 * sigma))
    taps = torch.arange(-radius, radius + 1, device=x.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (taps / sigma).square())
    kernel = (kernel / kernel.sum()).to(x.dtype)
    out = x[None]
    for axis in range(3):
        shape, pad = [1] * 3, [0] * 6
        shape[axis] = len(taps)
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = radius
        out = F.conv3d(F.pad(out, pad, mode="replicate"), kernel.view(1, 1, *shape))
    return out[0]


def noise(x: Tensor, std: float, seed: int) -> Tensor:
    """Add Gaussian noise of ``std`` (fraction of the window), drawn on x's own device from ``seed``."""
    generator = torch.Generator(x.device).manual_seed(seed)
    drawn = torch.randn(x.shape, generator=generator, device=x.device, dtype=torch.float32)
    return x + std * drawn.to(x.dtype)


def rotate90(x: Tensor, plane: int, turns: int) -> Tensor:
    """Turn the last three axes by ``turns`` times 90 degrees in the plane that leaves axis ``plane`` alone."""
    first, second = [axis - 3 for axis in range(3) if axis != plane]
    return torch.rot90(x, turns, (first, second))


def _draw_spatial(config: ViewsConfig, g: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
    """Affine matrix and elastic control points of one sample, or None; the same numbers are drawn in every case."""
    coins = torch.rand(2, generator=g).tolist()
    numbers = (2 * torch.rand(15, generator=g) - 1).tolist()
    n = config.elastic_grid
    control = (2 * torch.rand(3, n, n, n, generator=g) - 1) * config.elastic_magnitude
    matrix = affine_matrix(
        [config.rotate_deg * v for v in numbers[:3]],
        [1 + config.scale * v for v in numbers[3:6]],
        [config.shear * v for v in numbers[6:12]],
        [config.translate * v for v in numbers[12:15]],
    )
    return (
        matrix if coins[0] < config.spatial_prob else None,
        control if coins[1] < config.spatial_prob else None,
    )


def _spline(points: int, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[size, points] weights of uniform cubic B-splines; the outermost control points reach beyond the edges."""
    position = torch.linspace(0, points - 1, size, device=device, dtype=dtype)[:, None]
    t = (position - torch.arange(points, device=device, dtype=dtype)).abs()
    inner, outer = 2 / 3 - t.square() + t.pow(3) / 2, (2 - t).clamp_min(0).pow(3) / 6
    return torch.where(t < 1, inner, outer)


def _each(generators: Generators, samples: int) -> Sequence[torch.Generator]:
    if isinstance(generators, torch.Generator):
        return [generators] * samples
    if len(generators) != samples:
        raise ValueError(f"{len(generators)} generators for {samples} samples: give one, or one a sample")
    return generators


def _between(low: float, high: float, u: float) -> float:
    return low + (high - low) * u
