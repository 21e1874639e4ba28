"""The distortions of Sec. 3.1, batched, on the device where the batch is (R11).

Pre-training: :func:`spatial` moves image and labels together, :func:`views` then changes intensities alone.
Fine-tuning: :func:`finetune`.  Intensities are in [0, 1], the ends of the HU window, and may leave it.  Probabilities
are the paper's, magnitudes are not given there (R30).  Every decision and parameter is drawn on the CPU, so that
nothing waits for another device; one generator a sample makes its distortion independent of the batch.  Half precision
is distorted in float32.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mixcl.config.settings import FinetuneAugment, ViewsConfig
from mixcl.moments import as_float, full_precision

Generators = torch.Generator | Sequence[torch.Generator]
ALL = slice(None)


def spatial(image: Tensor, labels: Tensor, config: ViewsConfig, generators: Generators) -> tuple[Tensor, Tensor]:
    """Elastic and affine, each with ``spatial_prob``, in one resampling of image (linear) and labels (nearest).

    An output voxel o reads the input at A(o + u(o)), with the inverse A of the affine map and the elastic field u.
    Shapes and types stay.  A sample drawn with neither is returned bit for bit (with no sample drawn, the given tensors
    themselves); beyond the border the border is repeated; labels take no value that was not there.

    Images are floating point [B, C, X, Y, Z], labels integers [B, X, Y, Z], and there is one CPU generator, or one a
    sample; else ValueError.  Parameters are uniform within plus and minus their magnitude.
    """
    _check(image, labels)
    shape, each = labels.shape[1:], _each(generators, len(image))
    drawn = {row: drawn for row, g in enumerate(each) if (drawn := _draw_spatial(shape, config, g)) is not None}
    if not drawn:
        return image, labels
    new_image, new_labels = image.clone(), labels.clone()
    together = 1 if image.device.type == "cpu" else len(drawn)  # what stays in cache, or few launches
    for start in range(0, len(drawn), together):
        rows = list(drawn)[start : start + together]
        where = sampling_grid(shape, *_gather([drawn[row] for row in rows], image))
        index = torch.tensor(rows).to(image.device, non_blocking=True)
        new_image.index_copy_(0, index, read_linear(image.index_select(0, index), where))
        new_labels.index_copy_(0, index, read_nearest(labels.index_select(0, index), where))
    return new_image, new_labels


def spatial_labels(labels: Tensor, at: slice, config: ViewsConfig, generator: torch.Generator) -> Tensor:
    """The labels that :func:`spatial` makes of one map [X, Y, Z], at every axis' voxels ``at`` alone, on the CPU.

    The voxels between are left out before anything is worked out, which takes a small part of the time.  Where a voxel
    is read from the middle between two, rounding may decide otherwise than it does for the whole map.
    """
    drawn = _draw_spatial(labels.shape, config, generator)
    if drawn is None:
        return labels[at, at, at]
    where = sampling_grid(labels.shape, *_gather([drawn], labels[None, None]), at)
    return read_nearest(labels[None], where)[0]


def views(patch: Tensor, config: ViewsConfig, generators: Generators) -> Tensor:
    """A distorted copy of [B, C, X, Y, Z]: shift, gamma, smoothing, noise in this order; no voxel moves.

    Each is drawn with ``intensity_prob``, independently of the others and for each sample of its own; its parameter
    is uniform within the configured range.  Shape and type stay; a sample drawn with none is copied bit for bit.
    Raises ValueError for another number of dimensions.
    """
    if patch.ndim != 5:
        raise ValueError(f"patches are {tuple(patch.shape)}: give [B, C, X, Y, Z]")
    samples = []
    for sample, g in zip(patch, _each(generators, len(patch)), strict=True):
        coins, sizes = torch.rand(4, generator=g).tolist(), torch.rand(4, generator=g).tolist()
        seed = int(torch.randint(2**62, (), generator=g))
        on, x = [coin < config.intensity_prob for coin in coins], as_float(sample)
        if on[0]:
            x = shift(x, _between(-config.shift, config.shift, sizes[0]))
        if on[1]:
            x = gamma(x, _between(*config.gamma, sizes[1]))
        if on[2]:
            x = smooth(x, _between(*config.smooth_sigma, sizes[2]))
        if on[3]:
            x = noise(x, _between(*config.noise_std, sizes[3]), seed)
        samples.append(x.to(patch.dtype))
    return torch.stack(samples)


def finetune(image: Tensor, labels: Tensor, config: FinetuneAugment, generators: Generators) -> tuple[Tensor, Tensor]:
    """Rotation by 90, 180 or 270 degrees in one of three planes, three flips, intensity scale and shift.

    The rotation, the flip along each axis (sagittal X, coronal Y, axial Z), the scale and the shift are each drawn with
    ``prob``.  All is as in :func:`spatial`, but the result never shares memory with what was given, and patches must be
    cubes, else ValueError is raised: a rotation would change the shape of others.
    """
    _check(image, labels)
    if config.prob > 0 and len(set(labels.shape[1:])) != 1:
        raise ValueError(f"patches of {tuple(labels.shape[1:])} voxels: rotations by 90 degrees need cubes")
    images, maps = [], []
    for sample, s, g in zip(image, labels, _each(generators, len(image)), strict=True):
        coins, sizes = torch.rand(6, generator=g).tolist(), torch.rand(2, generator=g).tolist()
        axis, turns = int(torch.randint(3, (), generator=g)), int(torch.randint(1, 4, (), generator=g))
        on, x = [coin < config.prob for coin in coins], as_float(sample)
        if on[0]:
            x, s = rotate90(x, axis, turns), rotate90(s, axis, turns)
        axes = [k for k in range(3) if on[1 + k]]
        x, s = flip(x, axes), flip(s, axes)
        if on[4]:
            x = scale(x, _between(1 - config.scale, 1 + config.scale, sizes[0]))
        if on[5]:
            x = shift(x, _between(-config.shift, config.shift, sizes[1]))
        images.append(x.to(image.dtype))
        maps.append(s)
    return torch.stack(images), torch.stack(maps)


def affine_matrix(
    shape: Sequence[int], rotate_deg: Sequence[float] = (0, 0, 0), zoom: Sequence[float] = (1, 1, 1),
    shear: Sequence[float] = (0,) * 6, translate: Sequence[float] = (0, 0, 0),
) -> Tensor:  # fmt: skip
    """Where an output voxel o reads the input of a distorted picture: [3, 4] float64, [A | b], p = A o + b.

    The centre of ``shape`` (X, Y, Z) stays where it is but for ``translate``, in fractions of the edges.  The picture
    grows by ``zoom`` along X, Y and Z, is sheared by the off-diagonal entries (xy, xz, yx, yz, zx, zy), voxels a voxel,
    and turned right-handed about X, then Y, then Z, degrees.

    >>> affine_matrix((96, 96, 96), translate=(0.25, 0, 0)).tolist()[0]  # a voxel shows what was 24 voxels before it
    [1.0, 0.0, 0.0, -24.0]
    """
    turn = torch.eye(3, dtype=torch.float64)
    for axis, degrees in enumerate(rotate_deg):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        about = torch.eye(3, dtype=torch.float64)
        about[i, i] = about[j, j] = math.cos(math.radians(degrees))
        about[j, i], about[i, j] = math.sin(math.radians(degrees)), -math.sin(math.radians(degrees))
        turn = about @ turn
    xy, xz, yx, yz, zx, zy = shear
    slant = torch.tensor([[1, xy, xz], [yx, 1, yz], [zx, zy, 1]], dtype=torch.float64)
    inverse = torch.linalg.inv(turn @ slant @ torch.diag(torch.tensor(zoom, dtype=torch.float64)))
    centre = torch.tensor([(n - 1) / 2 for n in shape], dtype=torch.float64)
    moved = torch.tensor([t * n for t, n in zip(translate, shape, strict=True)], dtype=torch.float64)
    return torch.cat([inverse, (centre - inverse @ (centre + moved))[:, None]], 1)


def elastic_field(control: Tensor, shape: Sequence[int], at: slice = ALL) -> Tensor:
    """Smooth displacement [B, 3, X, Y, Z] from control points [B, 3, n, n, n] by uniform cubic B-splines; same unit.

    The control points are spread evenly from border to border and repeated beyond it.  The field lies within their
    range and is one-to-one when none exceeds 0.4 of their spacing (Choi and Lee 2000, doi:10.1006/gmod.2000.0531):
    with n points an axis, below 0.4 / (n - 1) of the edge.  ``at`` leaves voxels out along every axis.

    >>> elastic_field(torch.ones(1, 3, 4, 4, 4), (5, 6, 7)).sub(1).abs().max().item() < 1e-6
    True
    """
    sizes = zip(control.shape[2:], shape, strict=True)
    along_x, along_y, along_z = (_spline(n, size, control)[at] for n, size in sizes)  # [X, n], [Y, n], [Z, n]
    with full_precision(control):
        planes = along_y @ (control @ along_z.T)  # [B, 3, n, Y, Z]
        field: Tensor = (along_x @ planes.flatten(3)).unflatten(3, planes.shape[3:])  # [B, 3, X, Y, Z]
        return field


def sampling_grid(shape: Sequence[int], matrix: Tensor, control: Tensor | None = None, at: slice = ALL) -> Tensor:
    """A(o + u(o)) + b of every voxel o: [B, 3, X, Y, Z] in voxels, as scipy.ndimage.map_coordinates wants it.

    ``matrix`` is [B, 3, 4] of :func:`affine_matrix`; ``control`` is [B, 3, n, n, n] of :func:`elastic_field` in voxels.
    A u is a B-spline field as well, and its control points are A times those of u.  ``at`` leaves voxels out along
    every axis.
    """
    x, y, z = (torch.arange(n, device=matrix.device, dtype=matrix.dtype)[at] for n in shape)
    along_x, along_y, along_z, offset = matrix[..., None].unbind(2)  # each [B, 3, 1]
    plane = (along_y * y)[..., None] + (along_z * z + offset)[:, :, None]  # [B, 3, Y, Z]
    grid = (along_x * x)[..., None, None] + plane[:, :, None]  # [B, 3, X, Y, Z]
    if control is not None:
        turned = (matrix[:, :, :3, None, None, None] * control[:, None]).sum(2)  # [B, 3, n, n, n]
        grid += elastic_field(turned, shape, at)
    return grid


def read_linear(image: Tensor, grid: Tensor) -> Tensor:
    """[B, C, X, Y, Z] read at [B, 3, ...] voxels by trilinear interpolation; beyond the border, the border."""
    normal = grid.flip(1)  # grid_sample wants z, y, x in [-1, 1]
    for k, size in enumerate(reversed(image.shape[2:])):
        normal[:, k].mul_(2 / max(size - 1, 1)).sub_(1)
    wide = as_float(image)
    values = F.grid_sample(wide, normal.movedim(1, -1).to(wide.dtype), padding_mode="border", align_corners=True)
    return values.to(image.dtype)


def read_nearest(labels: Tensor, grid: Tensor) -> Tensor:
    """[B, X, Y, Z] of any type read at [B, 3, ...] voxels, each from the nearest voxel; beyond the border, the border.

    The choice of F.grid_sample's nearest, without its detour over floating point, which is inexact above 2^24.
    """
    flat = torch.zeros((), dtype=torch.int32, device=grid.device)
    for k, size in enumerate(labels.shape[1:]):
        flat = flat * size + grid[:, k].clamp(0, size - 1).round_().to(torch.int32)
    return labels.flatten(1).gather(1, flat.flatten(1).long()).view(flat.shape)


def shift(x: Tensor, by: float) -> Tensor:
    """x + by, in fractions of the window."""
    return x + by


def scale(x: Tensor, factor: float) -> Tensor:
    """x * factor."""
    return x * factor


def gamma(x: Tensor, exponent: float) -> Tensor:
    """((x - low) / (high - low)) ** exponent * (high - low) + low, with the lowest and the highest value of x.

    The range is kept, so that values outside [0, 1] do no harm (as MONAI's AdjustContrast does); above 1 darkens.
    """
    wide = as_float(x)
    low, high = wide.amin(), wide.amax()
    span = (high - low).clamp_min(1e-7)
    return ((wide - low) / span).pow_(exponent).mul_(span).add_(low).to(x.dtype)


def smooth(x: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of the last three axes of [..., X, Y, Z], ``sigma`` in voxels; the border is repeated.

    One axis after another, cut off at 4 sigma, as scipy.ndimage.gaussian_filter with mode "nearest".  A sum of shifted
    copies: faster than conv3d on a CPU, and in full precision on a GPU.
    """
    radius = int(4 * sigma + 0.5)
    if radius == 0:
        return x
    taps = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(radius + 1)]
    total = taps[0] + 2 * sum(taps[1:])
    out = as_float(x).reshape(1, -1, *x.shape[-3:])
    for axis in (2, 3, 4):
        pad, size = [0] * 6, out.shape[axis]
        pad[2 * (4 - axis)] = pad[2 * (4 - axis) + 1] = radius
        padded = F.pad(out, pad, mode="replicate")
        out = padded.narrow(axis, radius, size) * (taps[0] / total)
        for k in range(1, radius + 1):
            for start in (radius - k, radius + k):
                out.add_(padded.narrow(axis, start, size), alpha=taps[k] / total)
    return out.reshape(x.shape).to(x.dtype)


def noise(x: Tensor, std: float, seed: int) -> Tensor:
    """Add Gaussian noise of ``std`` (fraction of the window), drawn on x's own device from ``seed``."""
    generator = torch.Generator(x.device).manual_seed(seed)
    drawn = torch.randn(x.shape, generator=generator, device=x.device, dtype=torch.float32)
    return x + drawn.mul_(std).to(x.dtype)


def rotate90(x: Tensor, axis: int, turns: int) -> Tensor:
    """Turn the last three axes ``turns`` times by 90 degrees about ``axis`` (0 is X): numpy.rot90 of the other two."""
    first, second = [k - 3 for k in range(3) if k != axis]
    return torch.rot90(x, turns, (first, second))


def flip(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Mirror the last three axes along each of ``axes`` (0 is X, left and right); always a copy."""
    return torch.flip(x, [axis - 3 for axis in axes])


def _draw_spatial(shape: Sequence[int], config: ViewsConfig, g: torch.Generator) -> tuple[Tensor, Tensor] | None:
    """One sample's matrix and control points in voxels (0 without elastic), or None; always draws as many numbers."""
    affine, elastic = (torch.rand(2, generator=g) < config.spatial_prob).tolist()
    numbers = (affine * (2 * torch.rand(15, generator=g) - 1)).tolist()
    n = config.elastic_grid
    control = (2 * torch.rand(3, n, n, n, generator=g) - 1) * config.elastic_magnitude
    if not (affine or elastic):
        return None
    matrix = affine_matrix(
        shape, [config.rotate_deg * v for v in numbers[:3]], [1 + config.scale * v for v in numbers[3:6]],
        [config.shear * v for v in numbers[6:12]], [config.translate * v for v in numbers[12:15]],
    )  # fmt: skip
    return matrix, control * torch.tensor(shape)[:, None, None, None] if elastic else torch.zeros_like(control)


def _gather(drawn: Sequence[tuple[Tensor, Tensor]], image: Tensor) -> tuple[Tensor, Tensor | None]:
    """What several samples drew in one tensor a kind, where the image is; no control points where all are 0."""
    precision = torch.promote_types(image.dtype, torch.float32)
    matrices, controls = (torch.stack(part) for part in zip(*drawn, strict=True))
    moved = [part.to(image.device, precision, non_blocking=True) for part in (matrices, controls)]
    return moved[0], moved[1] if controls.any() else None


def _spline(points: int, size: int, like: Tensor) -> Tensor:
    """[size, points] weights of uniform cubic B-splines; what lies beyond the first and last point counts as theirs."""
    position = torch.linspace(0, points - 1, size, dtype=torch.float64)[:, None]
    t = (position - torch.arange(-1, points + 1)).abs()
    weights = torch.where(t < 1, 2 / 3 - t**2 + t**3 / 2, (2 - t).clamp_min(0) ** 3 / 6)
    weights[:, 1] += weights[:, 0]
    weights[:, -2] += weights[:, -1]
    return weights[:, 1:-1].to(like.device, like.dtype, non_blocking=True)


def _between(low: float, high: float, u: float) -> float:
    return low + (high - low) * u


def _each(generators: Generators, samples: int) -> Sequence[torch.Generator]:
    """One CPU generator a sample; one for all is drawn from in turn."""
    each = [generators] * samples if isinstance(generators, torch.Generator) else generators
    if len(each) != samples:
        raise ValueError(f"{len(each)} generators for {samples} samples: give one, or one a sample")
    if any(g.device.type != "cpu" for g in each):
        raise ValueError("generators must be on the CPU, so that no decision waits for another device")
    return each


def _check(image: Tensor, labels: Tensor) -> None:
    if image.ndim != 5 or labels.shape != image.shape[:1] + image.shape[2:]:
        given = f"image {tuple(image.shape)} and labels {tuple(labels.shape)}"
        raise ValueError(f"{given}: give [B, C, X, Y, Z] and [B, X, Y, Z]")
