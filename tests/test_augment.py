"""Distortions against scipy and numpy, and the properties that the rest builds on (Sec. 3.1, R11)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from scipy.spatial.transform import Rotation
from torch import Tensor

from mixcl import augment
from mixcl.config.settings import FinetuneAugment, ViewsConfig

SURE = ViewsConfig(spatial_prob=1.0, intensity_prob=1.0)
NEVER = ViewsConfig(spatial_prob=0.0, intensity_prob=0.0)
Step = Callable[[Tensor, Tensor, Sequence[torch.Generator] | torch.Generator], tuple[Tensor, Tensor]]


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def batch(samples: int = 3, edge: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth images in [0, 1], and labels that are no consecutive numbers."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((samples, edge, edge, edge)), (0, 2, 2, 2))
    scaled = (smooth - smooth.min()) / np.ptp(smooth)
    values = np.array([0, 3, 7, 200], dtype=np.uint8)
    labels = values[np.digitize(scaled, (0.4, 0.5, 0.6))]
    return torch.from_numpy(scaled).float()[:, None], torch.from_numpy(labels)


def step(name: str, prob: float | None = None) -> Step:
    """One of the three stages, as a function of image, labels and generators."""
    config = ViewsConfig() if prob is None else ViewsConfig(spatial_prob=prob, intensity_prob=prob)
    tune = FinetuneAugment() if prob is None else FinetuneAugment(prob=prob)
    if name == "views":
        return lambda image, labels, g: (augment.views(image, config, g), labels)
    if name == "spatial":
        return lambda image, labels, g: augment.spatial(image, labels, config, g)
    return lambda image, labels, g: augment.finetune(image, labels, tune, g)


STAGES = pytest.mark.parametrize("name", ["spatial", "views", "finetune"])


# What holds for every stage


@STAGES
def test_a_sample_does_not_depend_on_the_batch(name: str) -> None:
    image, labels = batch(6)
    together = step(name)(image, labels, seeded(*range(6)))
    for k in range(6):
        alone = step(name)(image[k : k + 1], labels[k : k + 1], seeded(k))
        assert torch.equal(alone[0][0], together[0][k])
        assert torch.equal(alone[1][0], together[1][k])


@STAGES
def test_the_same_generators_give_the_same_result(name: str) -> None:
    image, labels = batch()
    for seeds in (lambda: seeded(4, 5, 6), lambda: seeded(4)[0]):
        first, again = (step(name, 1.0)(image, labels, seeds()) for _ in range(2))
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])
    other = step(name, 1.0)(image, labels, seeded(7, 8, 9))
    assert not torch.equal(first[0], other[0])


@STAGES
def test_one_generator_distorts_every_sample_differently(name: str) -> None:
    image, labels = batch(1)
    twice, _ = step(name, 1.0)(image.repeat(2, 1, 1, 1, 1), labels.repeat(2, 1, 1, 1), seeded(0)[0])
    assert not torch.equal(twice[0], twice[1])


@STAGES
def test_probability_zero_is_the_identity_and_one_changes_every_sample(name: str) -> None:
    image, labels = batch(8)
    kept = image.clone(), labels.clone()
    same = step(name, 0.0)(image, labels, seeded(*range(8)))
    assert torch.equal(same[0], image)
    assert torch.equal(same[1], labels)
    changed, _ = step(name, 1.0)(image, labels, seeded(*range(8)))
    assert (changed != image).flatten(1).any(1).all()
    assert torch.equal(image, kept[0])
    assert torch.equal(labels, kept[1])


@STAGES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_agree_with_float32(name: str, dtype: torch.dtype) -> None:
    image, labels = batch()
    expected, expected_labels = step(name, 1.0)(image, labels, seeded(0, 1, 2))
    found, found_labels = step(name, 1.0)(image.to(dtype), labels, seeded(0, 1, 2))
    assert found.dtype == dtype
    assert (found_labels == expected_labels).float().mean() > 0.999  # a voxel may be as near to one as to another
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 2e-4}[dtype]
    assert torch.allclose(found.float(), expected, atol=tolerance)


@STAGES
def test_autocast_changes_nothing(name: str) -> None:
    image, labels = batch()
    expected = step(name, 1.0)(image, labels, seeded(0, 1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        found = step(name, 1.0)(image, labels, seeded(0, 1, 2))
    assert found[0].dtype == torch.float32
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@STAGES
def test_generators_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="2 generators for 3 samples"):
        step(name)(*batch(3), seeded(0, 1))


@pytest.mark.parametrize("name", ["spatial", "finetune"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_labels_take_no_new_value_and_keep_their_type(name: str, dtype: torch.dtype) -> None:
    image, labels = batch(4)
    large = 2**24 + 1 if dtype == torch.int64 else 100  # which float32 cannot hold
    labels = torch.where(labels == 200, large, labels.to(dtype)).to(dtype)
    _, moved = step(name, 1.0)(image, labels, seeded(0, 1, 2, 3))
    assert moved.dtype == dtype
    assert set(moved.unique().tolist()) <= set(labels.unique().tolist())
    assert not torch.equal(moved, labels)


@pytest.mark.parametrize("name", ["spatial", "finetune"])
def test_labels_go_where_the_image_goes(name: str) -> None:
    _, labels = batch(4, edge=32)
    plain = FinetuneAugment(prob=1.0, scale=0.0, shift=0.0)
    act = step(name, 1.0) if name == "spatial" else lambda x, s, g: augment.finetune(x, s, plain, g)
    for value in (3, 7):
        mask = labels == value
        shown, moved = act(mask[:, None].float(), labels, seeded(0, 1, 2, 3))
        clear = (shown[:, 0] - 0.5).abs() > 0.45  # the linear image says which voxel it is
        agree = (shown[:, 0] > 0.5) == (moved == value)
        assert clear.float().mean() > 0.5
        assert agree[clear].float().mean() > 0.999


# How often


def test_each_distortion_is_drawn_with_its_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = batch(1, edge=4)
    draws = 1000
    counts = dict.fromkeys(["shift", "gamma", "smooth", "noise"], 0)
    for name in counts:

        def counting(x: Tensor, *_: object, name: str = name) -> Tensor:
            counts[name] += 1
            return x

        monkeypatch.setattr(augment, name, counting)
    many = image.expand(draws, -1, -1, -1, -1)
    augment.views(many, ViewsConfig(), seeded(*range(draws)))
    assert all(likely(count, draws, 0.2) for count in counts.values()), counts
    for name in ("rotate90", "scale", "shift"):
        counts[name] = 0

        def counting(x: Tensor, *_: object, name: str = name) -> Tensor:
            counts[name] += 1
            return x

        monkeypatch.setattr(augment, name, counting)
    augment.finetune(many, labels.expand(draws, -1, -1, -1), FinetuneAugment(), seeded(*range(draws)))
    counts["rotate90"] //= 2  # image and labels
    assert all(likely(counts[name], draws, 0.2) for name in ("rotate90", "scale", "shift")), counts


def test_spatial_draws_elastic_and_affine_independently() -> None:
    draws, shape = 1000, (8, 8, 8)
    kinds = dict.fromkeys(itertools.product((False, True), repeat=2), 0)
    for g in seeded(*range(draws)):
        drawn = augment._draw_spatial(shape, ViewsConfig(), g)
        affine = drawn is not None and not torch.equal(drawn[0], augment.affine_matrix(shape))
        kinds[affine, drawn is not None and bool(drawn[1].any())] += 1
    assert all(likely(count, draws, 0.25) for count in kinds.values()), kinds


def test_turns_planes_and_flips_are_equally_likely() -> None:
    """A cube with a marked corner region tells the 24 rotations and 8 flips apart."""
    draws = 2000
    marked = torch.arange(8.0).view(1, 1, 2, 2, 2)
    labels = torch.zeros(draws, 2, 2, 2, dtype=torch.uint8)
    plain = FinetuneAugment(prob=0.2, scale=0.0, shift=0.0)
    moved, _ = augment.finetune(marked.expand(draws, -1, -1, -1, -1), labels, plain, seeded(*range(draws)))
    cube = np.arange(8.0).reshape(2, 2, 2)
    expected: dict[bytes, float] = {}
    for axis, turns, *flips in itertools.product(range(3), range(4), *[(False, True)] * 3):
        chance = 0.8 / 3 if turns == 0 else 0.2 / 9
        for flipped in flips:
            chance *= 0.2 if flipped else 0.8
        turned = np.rot90(cube, turns, [k for k in range(3) if k != axis])
        key = np.flip(turned, [k for k in range(3) if flips[k]]).astype(np.float32).tobytes()
        expected[key] = expected.get(key, 0.0) + chance
    found = dict.fromkeys(expected, 0)
    for sample in moved:
        found[sample.numpy().tobytes()] += 1
    assert all(likely(found[key], draws, chance) for key, chance in expected.items())


def likely(count: int, draws: int, prob: float) -> bool:
    """A binomial count that is not among the one in a million least likely ones; seeds are fixed."""
    low, high = stats.binom.interval(1 - 1e-6, draws, prob)
    return bool(low <= count <= high)


# Spatial


def affine_reference(
    volume: NDArray[np.float64], degrees: Sequence[float], zoom: Sequence[float], slant: NDArray[np.float64],
    by: Sequence[float],
) -> NDArray[np.float64]:  # fmt: skip
    """Turn, shear, zoom and move the picture about its centre, by scipy."""
    forward = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ slant @ np.diag(zoom)
    centre = (np.array(volume.shape) - 1) / 2
    inverse = np.linalg.inv(forward)
    offset = centre - inverse @ (centre + np.array(by) * volume.shape)
    return ndimage.affine_transform(volume, inverse, offset, order=1, mode="nearest")


@pytest.mark.parametrize("shape", [(20, 20, 20), (24, 17, 12)])
def test_affine_agrees_with_scipy(shape: tuple[int, int, int]) -> None:
    volume = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), 1.0)
    degrees, zoom, by = (12.0, -7.0, 30.0), (1.1, 0.9, 1.05), (0.1, -0.05, 0.02)
    slant = np.array([[1, 0.05, -0.03], [0.02, 1, 0.04], [-0.05, 0.01, 1]])
    off_diagonal = [slant[i, j] for i, j in itertools.permutations(range(3), 2)]
    matrix = augment.affine_matrix(shape, degrees, zoom, off_diagonal, by)[None]
    grid = augment.sampling_grid(shape, matrix)
    found = augment.read_linear(torch.from_numpy(volume)[None, None], grid)[0, 0].numpy()
    assert np.allclose(found, affine_reference(volume, degrees, zoom, slant, by), atol=1e-10)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quarter_turn_is_rot90(axis: int) -> None:
    image, labels = batch(1, edge=9)
    degrees = [90.0 if k == axis else 0.0 for k in range(3)]
    grid = augment.sampling_grid((9, 9, 9), augment.affine_matrix((9, 9, 9), degrees)[None].float())
    plane = [((axis + 1) % 3), ((axis + 2) % 3)]  # right-handed: Y to Z, Z to X, X to Y
    for found, given in (
        (augment.read_linear(image, grid)[0, 0], image[0, 0]),
        (augment.read_nearest(labels, grid)[0], labels[0]),
    ):
        assert np.allclose(found.numpy(), np.rot90(given.numpy(), 1, plane), atol=1e-5)


def test_whole_voxel_shift_moves_the_picture_and_repeats_the_border() -> None:
    labels = torch.arange(8, dtype=torch.uint8)[:, None, None].expand(8, 8, 8)[None]
    grid = augment.sampling_grid((8, 8, 8), augment.affine_matrix((8, 8, 8), translate=(0.25, 0, 0))[None])
    assert augment.read_nearest(labels, grid)[0, :, 4, 4].tolist() == [0, 0, 0, 1, 2, 3, 4, 5]
    linear = augment.read_linear(labels[:, None].double(), grid)[0, 0, :, 4, 4]
    assert linear.tolist() == pytest.approx([0, 0, 0, 1, 2, 3, 4, 5])


def test_nearest_is_the_choice_of_grid_sample() -> None:
    _, labels = batch(2, edge=15)
    grid = augment.sampling_grid((15, 15, 15), *drawn_at_most(2, 15))
    normal = (grid.flip(1) * (2 / 14) - 1).movedim(1, -1)
    expected = torch.nn.functional.grid_sample(
        labels[:, None].double(), normal, mode="nearest", padding_mode="border", align_corners=True
    )
    assert torch.equal(augment.read_nearest(labels, grid), expected[:, 0].to(torch.uint8))


def drawn_at_most(samples: int, edge: int) -> tuple[Tensor, Tensor]:
    """Matrices and control points of distortions as strong as the default allows."""
    rng = np.random.default_rng(1)
    config = ViewsConfig()
    shape, n = (edge,) * 3, config.elastic_grid
    matrices = [
        augment.affine_matrix(
            shape, config.rotate_deg * s[:3], 1 + config.scale * s[3:6], config.shear * s[6:12],
            config.translate * s[12:],
        )
        for s in rng.choice([-1.0, 1.0], (samples, 15))
    ]  # fmt: skip
    corners = rng.choice([-1.0, 1.0], (samples, 3, n, n, n)) * config.elastic_magnitude * edge
    return torch.stack(matrices), torch.from_numpy(corners)


def test_elastic_field_agrees_with_scipy() -> None:
    control = np.random.default_rng(0).standard_normal((1, 3, 4, 5, 6))
    shape = (11, 13, 9)
    where = np.meshgrid(*[np.linspace(0, n - 1, m) for n, m in zip((4, 5, 6), shape, strict=True)], indexing="ij")
    found = augment.elastic_field(torch.from_numpy(control), shape)
    for k in range(3):
        points = np.pad(control[0, k], 3, mode="edge")  # far enough that scipy's own border does not matter
        expected = ndimage.map_coordinates(points, np.array(where) + 3, order=3, prefilter=False)
        assert np.allclose(found[0, k].numpy(), expected, atol=1e-12)


def test_the_grid_is_the_affine_map_of_the_moved_voxel() -> None:
    matrix, control = drawn_at_most(1, 12)
    voxels = np.stack(np.meshgrid(*[np.arange(12.0)] * 3, indexing="ij"))
    moved = voxels + augment.elastic_field(control, (12, 12, 12))[0].numpy()
    expected = np.einsum("ij,jxyz->ixyz", matrix[0, :, :3].numpy(), moved) + matrix[0, :, 3, None, None, None].numpy()
    assert np.allclose(augment.sampling_grid((12, 12, 12), matrix, control)[0].numpy(), expected)


def test_default_distortions_fold_nothing_and_are_smooth() -> None:
    matrix, control = drawn_at_most(50, 24)
    grid = augment.sampling_grid((24, 24, 24), matrix, control).numpy()
    jacobian = np.stack([np.gradient(grid, axis=k) for k in (2, 3, 4)], 2)  # [B, 3, 3, X, Y, Z]
    determinant = np.linalg.det(np.moveaxis(jacobian, (1, 2), (-2, -1)))
    assert determinant.min() > 0.2
    field = augment.elastic_field(control, (24, 24, 24)).numpy()
    assert np.abs(field).max() <= ViewsConfig().elastic_magnitude * 24 * (1 + 1e-6)
    assert np.abs(np.diff(field, n=2, axis=2)).max() < 0.15  # voxels per voxel squared


def test_many_samples_are_read_as_each_alone() -> None:
    image, labels = batch(4, edge=12)
    matrix, control = drawn_at_most(4, 12)
    together = augment.sampling_grid((12, 12, 12), matrix, control)
    for k in range(4):
        alone = augment.sampling_grid((12, 12, 12), matrix[k : k + 1], control[k : k + 1])
        assert torch.allclose(alone[0], together[k])
        assert torch.equal(augment.read_nearest(labels[k : k + 1], alone)[0], augment.read_nearest(labels, together)[k])
        linear = augment.read_linear(image, together)[k]
        assert torch.allclose(augment.read_linear(image[k : k + 1], alone)[0], linear)


def test_untouched_samples_keep_every_bit() -> None:
    image, labels = batch(12)
    moved, moved_labels = augment.spatial(image, labels, ViewsConfig(), seeded(*range(12)))
    drawn = [augment._draw_spatial(labels.shape[1:], ViewsConfig(), g) for g in seeded(*range(12))]
    kept = [k for k, what in enumerate(drawn) if what is None]
    assert 0 < len(kept) < 12
    assert torch.equal(moved[kept], image[kept])
    assert torch.equal(moved_labels[kept], labels[kept])


def test_spatial_takes_patches_that_are_no_cubes() -> None:
    image, labels = batch(2)
    moved, moved_labels = augment.spatial(image[..., :13], labels[..., :13], SURE, seeded(0, 1))
    assert moved.shape == (2, 1, 20, 20, 13)
    assert moved_labels.shape == (2, 20, 20, 13)


# Intensities


def test_gamma_agrees_with_the_formula() -> None:
    x = np.random.default_rng(0).uniform(-0.2, 1.3, (1, 8, 8, 8))
    low, high = x.min(), x.max()
    for exponent in (0.7, 1.0, 1.5):
        expected = ((x - low) / (high - low)) ** exponent * (high - low) + low
        assert np.allclose(augment.gamma(torch.from_numpy(x), exponent).numpy(), expected, atol=1e-12)


def test_gamma_agrees_with_monai() -> None:
    from monai.transforms import AdjustContrast

    image, _ = batch(1)
    expected = torch.as_tensor(AdjustContrast(gamma=1.4)(image[0] - 0.1))
    assert torch.allclose(augment.gamma(image[0] - 0.1, 1.4), expected, atol=1e-5)


def test_gamma_of_a_constant_is_the_constant() -> None:
    flat = torch.full((1, 4, 4, 4), 0.3)
    assert torch.equal(augment.gamma(flat, 0.7), flat)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.9, 1.5, 4.0])
def test_smooth_agrees_with_scipy(sigma: float) -> None:
    x = np.random.default_rng(0).standard_normal((2, 12, 9, 15))
    expected = ndimage.gaussian_filter(x, (0, sigma, sigma, sigma), mode="nearest")
    assert np.allclose(augment.smooth(torch.from_numpy(x), sigma).numpy(), expected, atol=1e-12)


def test_shift_scale_and_noise_do_what_they_say() -> None:
    x = torch.rand(1, 40, 40, 40, generator=seeded(0)[0])
    assert torch.equal(augment.shift(x, 0.25), x + 0.25)
    assert torch.equal(augment.scale(x, 0.5), x / 2)
    added = (augment.noise(x, 0.1, seed=1) - x).double().numpy() / 0.1
    assert stats.kstest(added.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(added.ravel(), x.numpy().ravel())[0, 1]) < 0.02
    assert not torch.equal(augment.noise(x, 0.1, seed=1), augment.noise(x, 0.1, seed=2))
    assert torch.equal(augment.noise(x, 0.0, seed=1), x)


def test_views_are_shift_gamma_smoothing_and_noise_in_this_order() -> None:
    """With every step drawn, a view of a constant is the shifted constant plus noise of the drawn strength."""
    flat = torch.full((64, 1, 8, 8, 8), 0.5)
    seen = augment.views(flat, SURE, seeded(*range(64)))
    by = seen.flatten(1).mean(1) - 0.5
    assert by.abs().max() < 0.1 + 0.02
    assert by.min() < -0.06
    assert by.max() > 0.06
    spread = seen.flatten(1).std(1)
    assert spread.max() > 0.07  # noise comes last: smoothing would have taken most of it away
    assert spread.max() < 0.11


def test_views_of_one_patch_differ_but_do_not_move() -> None:
    image, _ = batch(1, edge=32)
    strong = ViewsConfig(intensity_prob=1.0, noise_std=(0.0, 0.0))
    first, second = (augment.views(image, strong, seeded(seed)) for seed in (1, 2))
    assert not torch.equal(first, second)
    overlap = torch.fft.ifftn(torch.fft.fftn(first[0, 0]) * torch.fft.fftn(second[0, 0]).conj()).real
    assert int(overlap.argmax()) == 0  # the best alignment of the two is no displacement


# Fine-tuning


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotations_are_numpys(axis: int, turns: int) -> None:
    image, _ = batch(2, edge=5)
    plane = [k + 2 for k in range(3) if k != axis]
    assert np.array_equal(augment.rotate90(image, axis, turns), np.rot90(image.numpy(), turns, plane))


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_flips_are_numpys(axes: tuple[int, ...]) -> None:
    image, _ = batch(2, edge=5)
    assert np.array_equal(augment.flip(image, axes), np.flip(image.numpy(), [k + 2 for k in axes]))


def test_finetune_keeps_intensities_within_scale_and_shift() -> None:
    image, labels = batch(32, edge=6)
    found, _ = augment.finetune(image, labels, FinetuneAugment(prob=1.0), seeded(*range(32)))
    for x, y in zip(image.flatten(1).sort(1).values, found.flatten(1).sort(1).values, strict=True):
        factor, by = np.polyfit(x.double().numpy(), y.double().numpy(), 1)
        assert np.allclose(factor * x.numpy() + by, y.numpy(), atol=1e-5)
        assert 0.9 - 1e-5 <= factor <= 1.1 + 1e-5
        assert abs(by) <= 0.1 + 1e-5


def test_finetune_needs_cubes() -> None:
    image, labels = batch(1)
    with pytest.raises(ValueError, match=r"\(20, 20, 13\).*need cubes"):
        augment.finetune(image[..., :13], labels[..., :13], FinetuneAugment(), seeded(0))


# Shapes and devices


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    image, labels = batch(2)
    for act in (step("spatial"), step("finetune")):
        with pytest.raises(ValueError, match="give"):
            act(image, labels[:1], seeded(0, 1))
        with pytest.raises(ValueError, match="give"):
            act(image[:, 0], labels, seeded(0, 1))
    with pytest.raises(ValueError, match="give"):
        augment.views(labels, ViewsConfig(), seeded(0, 1))


def test_nothing_reads_a_value_back_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device whose tensors have no values, whatever waited for one would fail."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which that device does not know
    image, labels = (t.to("meta") for t in batch(3))
    moved, moved_labels = augment.spatial(image, labels, SURE, seeded(0, 1, 2))
    tuned, _ = augment.finetune(image, labels, FinetuneAugment(prob=1.0), seeded(0, 1, 2))
    for found in (moved, tuned, augment.shift(image, 0.1), augment.gamma(image, 1.2), augment.smooth(image, 1.0)):
        assert found.device.type == "meta"
        assert found.shape == image.shape
    assert moved_labels.dtype == labels.dtype


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@STAGES
def test_cuda_never_waits_and_agrees_with_the_cpu(name: str) -> None:
    image, labels = batch()
    on_device, labels_on_device = image.cuda(), labels.cuda()
    config = {"spatial": 1.0, "finetune": 1.0}.get(name)
    step(name, 1.0)(on_device, labels_on_device, seeded(0, 1, 2))  # kernels are loaded once
    torch.cuda.set_sync_debug_mode("error")
    try:
        found, found_labels = step(name, config)(on_device, labels_on_device, seeded(0, 1, 2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.is_cuda
    if config is not None:  # noise is drawn on the device and is another one there
        expected, expected_labels = step(name, config)(image, labels, seeded(0, 1, 2))
        assert torch.allclose(found.cpu(), expected, atol=1e-3)
        assert (found_labels.cpu() == expected_labels).float().mean() > 0.99
