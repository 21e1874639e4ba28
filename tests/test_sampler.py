"""Eq. 7 and the choice of pixels and patches: against scipy and brute force, and by the law of the draws."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from helpers import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from scipy import ndimage, stats

from mixcl import sampler


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(shape: tuple[int, ...], classes: int, seed: int = 0, share: float = 0.6) -> NDArray[np.uint8]:
    """Smooth organs in a background that takes 1 - share of the volume."""
    rng = np.random.default_rng(seed)
    fields = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), 3) for _ in range(classes)])
    highest = fields.max(0)
    return ((fields.argmax(0) + 1) * (highest > np.quantile(highest, 1 - share))).astype(np.uint8)


def scipy_squared(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """One distance transform a label, its squares rounded to the integers that they are."""
    result = np.zeros(labels.shape, np.int64)
    for label in np.unique(labels):
        own = labels == label
        result[own] = np.rint(ndimage.distance_transform_edt(own)[own] ** 2).astype(np.int64)
    return result


def noise(*shape: int, classes: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(len(shape)).integers(0, classes, shape).astype(np.uint8)


def one_voxel(*shape: int) -> NDArray[np.uint8]:
    labels = np.zeros(shape, np.uint8)
    labels[(0,) * len(shape)] = 9  # in the corner, so that the other corner is as far as can be
    return labels


def thin_plates() -> NDArray[np.uint8]:
    labels = np.zeros((30, 30, 40), np.uint8)
    labels[:, :, ::7], labels[::11] = 1, 2
    labels[29, 29, 39] = 3
    return labels


VOLUMES = {
    "noise 1-D": noise(50),
    "noise 2-D": noise(20, 31),
    "noise 3-D": noise(12, 9, 17),
    "one organ": blobs((48, 40, 44), 1, share=0.05),
    "13 organs": blobs((48, 48, 48), 13),
    "13 organs without background": blobs((40, 30, 20), 13, share=1.0),
    "sparse": blobs((64, 64, 64), 3, share=0.02),
    "one voxel 1-D": one_voxel(90),
    "one voxel 3-D": one_voxel(24, 30, 20),
    "one voxel, far": one_voxel(96, 96, 96),
    "just short of too long": one_voxel(127, 100, 90),
    "too long for 16 bits": one_voxel(128, 5, 3),
    "long and thin": np.repeat(noise(3, 300, 2), 2, axis=0),
    "very long line": np.repeat(np.array([0, 1, 0], np.uint8), 700),
    "thin plates": thin_plates(),
    "slice": noise(1, 40, 30),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_squared_distance_is_exactly_scipys(name: str) -> None:
    labels = VOLUMES[name]
    squared = scipy_squared(labels)
    distance = sampler.boundary_distance(labels)
    assert distance.dtype == np.float32
    assert distance.shape == labels.shape
    np.testing.assert_array_equal(np.rint(distance.astype(np.float64) ** 2), squared)
    np.testing.assert_array_equal(distance, np.sqrt(squared.astype(np.float32)))  # the nearest float32 to the root


@settings(max_examples=60, deadline=None)
@given(
    st_numpy.arrays(
        st.sampled_from([np.uint8, np.int16, np.int64]),
        st_numpy.array_shapes(min_dims=1, max_dims=3, max_side=5),
        elements=st.sampled_from([0, 1, 2, 127]),
    )
)
def test_squared_distance_is_brute_force(labels: NDArray[np.integer]) -> None:
    expected = np.sqrt(reference.squared_distance(labels)).astype(np.float32)
    np.testing.assert_array_equal(sampler.boundary_distance(labels), expected)


@settings(max_examples=60, deadline=None)
@given(
    st_numpy.arrays(np.int16, st_numpy.array_shapes(max_dims=3, max_side=5), elements=st.sampled_from([0, 1, 2, 255]))
)
def test_unknown_voxels_are_no_label_and_never_drawn(labels: NDArray[np.integer]) -> None:
    """Their border is no boundary (R33): the distance is to the nearest voxel that is known to be another label's."""
    expected = np.sqrt(reference.squared_distance(labels)).astype(np.float32)
    np.testing.assert_array_equal(sampler.boundary_distance(labels), expected)
    drawn = sampler.sample_pixels(torch.from_numpy(labels), 3, generator=generator()).numpy()
    values, counts = np.unique(labels[labels != 255], return_counts=True)
    found = labels.flatten()[drawn]
    assert found.tolist() == np.repeat(values, np.minimum(counts, 3)).tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_distance_of_any_integers_in_any_layout(dtype: type[np.integer]) -> None:
    volume = blobs((20, 24, 28), 5)
    top = {8: 127, 64: 2**40}.get(np.iinfo(dtype).bits, np.iinfo(dtype).max)
    labels = volume.astype(dtype)
    labels[volume == 5] = top
    expected = np.sqrt(scipy_squared(labels).astype(np.float32))
    for layout in (labels, np.asfortranarray(labels), labels[::-1, :, ::2], labels.transpose(2, 0, 1)):
        np.testing.assert_array_equal(
            sampler.boundary_distance(layout), np.sqrt(scipy_squared(layout), dtype=np.float32)
        )
    tensor = torch.from_numpy(labels)
    for view in (tensor, tensor.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        distance = sampler.boundary_distance(view)
        assert isinstance(distance, torch.Tensor)
        assert distance.dtype == torch.float32
        np.testing.assert_array_equal(distance.numpy(), expected)
    assert len(sampler.sample_pixels(tensor, 7, generator=generator())) == 7 * len(np.unique(labels))


def test_labels_are_left_alone() -> None:
    labels = noise(12, 9, 17)
    before = labels.copy()
    sampler.weight_map(labels)
    sampler.sample_pixels(torch.from_numpy(labels), 3)
    np.testing.assert_array_equal(labels, before)


def test_the_border_of_the_volume_is_no_boundary() -> None:
    labels = np.zeros((9, 7, 5), np.uint8)
    labels[3] = 1  # one plane: the distance grows towards the volume's end and does not fall again
    distance = sampler.boundary_distance(labels)
    np.testing.assert_array_equal(distance[:, 0, 0], [3, 2, 1, 1, 1, 2, 3, 4, 5])
    assert (distance == distance[:, :1, :1]).all()


@pytest.mark.parametrize("value", [0, 1, 254])
@pytest.mark.parametrize("shape", [(1,), (3, 4), (5, 6, 7), (130, 2, 2)])
def test_a_single_label_is_infinitely_far_from_any_other(shape: tuple[int, ...], value: int) -> None:
    labels = torch.full(shape, value, dtype=torch.uint8)
    assert torch.isinf(sampler.boundary_distance(labels)).all()
    assert (sampler.weight_map(labels, eps=0.07) == np.float32(0.07)).all()
    pixels = sampler.sample_pixels(labels, 2, eps=0.0, generator=generator())
    assert len(pixels) == min(2, labels.numel())


@pytest.mark.parametrize(("mu", "eps"), [(8.0, 0.05), (0.5, 0.0), (1e6, 0.3), (3.0, 2.0)])
@pytest.mark.parametrize("name", ["noise 2-D", "13 organs", "one voxel, far", "very long line"])
def test_weight_map_is_eq_7(name: str, mu: float, eps: float) -> None:
    labels = VOLUMES[name]
    weights = sampler.weight_map(labels, mu=mu, eps=eps)
    assert weights.dtype == np.float32
    distance = np.sqrt(scipy_squared(labels).astype(np.float64))
    np.testing.assert_allclose(weights, 0.5 * np.sqrt(distance) * np.exp(-distance / mu) + eps, rtol=2e-7, atol=1e-38)


def test_weight_map_peaks_at_half_mu() -> None:
    # dW/dD = 0 at D = mu / 2 = 4, where W = 0.5 * sqrt(4) * exp(-1/2) + 0.05 = exp(-1/2) + 0.05 = 0.65653
    # (R27).
    labels = np.array([1] + [0] * 40, np.uint8)
    weights = sampler.weight_map(labels)
    assert weights[1:].argmax() + 1 == 4
    assert weights[4] == pytest.approx(math.exp(-0.5) + 0.05, abs=1e-7)
    assert weights[4] == pytest.approx(0.65653, abs=5e-6)
    np.testing.assert_allclose(weights[1:], [reference.weight(d, 8.0, 0.05) for d in range(1, 41)], rtol=1e-6)


@pytest.mark.parametrize(
    "labels",
    [
        torch.zeros(2, 2, 2, 2, dtype=torch.uint8),
        torch.zeros(0, 3, dtype=torch.uint8),
        torch.zeros(3),
        torch.tensor([-1, 0]),
    ],
)
def test_labels_that_are_none_are_refused(labels: torch.Tensor) -> None:
    for function in (sampler.boundary_distance, sampler.weight_map, lambda x: sampler.sample_pixels(x, 1)):
        with pytest.raises(ValueError, match=r"labels (are|have|go)"):
            function(labels)


def test_settings_that_make_no_sense_are_refused() -> None:
    labels = torch.tensor([0, 1])
    for mu, eps in ((0.0, 0.1), (-1.0, 0.1), (8.0, -0.1), (math.inf, 0.1), (8.0, math.nan)):
        with pytest.raises(ValueError, match="mu must be above 0 and eps at least 0"):
            sampler.weight_map(labels, mu=mu, eps=eps)
    with pytest.raises(ValueError, match="ask for at least 1 pixel a class"):
        sampler.sample_pixels(labels, 0)


# draws


@pytest.mark.parametrize("budget", [1, 5, 128, 100_000])
@pytest.mark.parametrize("name", ["noise 2-D", "13 organs", "one organ", "one voxel, far"])
def test_every_label_gives_its_budget_without_repeats(name: str, budget: int) -> None:
    labels = torch.from_numpy(VOLUMES[name].copy())
    pixels = sampler.sample_pixels(labels, budget, generator=generator())
    assert pixels.dtype == torch.int64
    assert len(pixels.unique()) == len(pixels)
    drawn = labels.reshape(-1)[pixels]
    assert (drawn.to(torch.int16).diff() >= 0).all()  # by label, the background among them
    for label, count in zip(*labels.unique(return_counts=True), strict=True):
        own = pixels[drawn == label]
        assert len(own) == min(budget, count)
        assert (own.diff() > 0).all()


def test_draws_depend_on_the_generator_alone() -> None:
    labels = torch.from_numpy(VOLUMES["13 organs"])
    one, two = (sampler.sample_pixels(labels, 20, generator=generator(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, sampler.sample_pixels(labels, 20, generator=generator(4)))
    other = torch.from_numpy(np.asfortranarray(labels.numpy()))
    assert torch.equal(one, sampler.sample_pixels(other.long(), 20, generator=generator(3)))


PATHS = {  # KEYED, PROPOSALS, ROUNDS
    "keys": (10**9, 4, 32),
    "rejection": (0, 4, 10**6),
    "rejection that gives up": (0, 1, 1),
    "as shipped": (sampler.KEYED, sampler.PROPOSALS, sampler.ROUNDS),
}


def lines(length: int, copies: int) -> tuple[torch.Tensor, list[float]]:
    """Many labels in a row, each a line of voxels with a boundary at both ends, and their distances."""
    labels = torch.arange(1, copies + 1).repeat_interleave(length)
    return labels, [float(min(i + 1, length - i)) for i in range(length)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("mu", "eps"), [(2.0, 0.05), (1.0, 0.001)])
def test_draws_follow_successive_weighted_draws(
    path: str, mu: float, eps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(("KEYED", "PROPOSALS", "ROUNDS"), PATHS[path], strict=True):
        monkeypatch.setattr(sampler, name, value)
    length, budget, copies, calls = 7, 3, 42, 240
    labels, distance = lines(length, copies)
    weights = [reference.weight(d, mu, eps) for d in distance]
    g, counts = generator(1), np.zeros(length)
    for _ in range(calls):
        pixels = sampler.sample_pixels(labels, budget, mu=mu, eps=eps, generator=g)
        inner = pixels[(pixels >= length) & (pixels < length * (copies - 1))]  # those with two boundaries
        counts += np.bincount(inner.numpy() % length, minlength=length)
    n = calls * (copies - 2)
    expected = n * reference.inclusion(weights, budget)
    deviation = (counts - expected) / np.sqrt(np.maximum(expected * (1 - expected / n), 1e-9))
    assert abs(deviation).max() < 4.5  # standard deviations; the seed is fixed
    # The test can tell: drawing by the square root of the weights is far off.
    other = n * reference.inclusion(np.sqrt(weights), budget)
    assert (abs(other - expected) / np.sqrt(expected)).max() > 9


@pytest.mark.parametrize("path", ["rejection", "rejection that gives up", "as shipped"])
def test_pairs_of_a_large_class_follow_numpys_law(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All unordered pairs of a class of more than KEYED * budget voxels; numpy's draws are the control."""
    _, proposals, rounds = PATHS[path]
    monkeypatch.setattr(sampler, "PROPOSALS", proposals)
    monkeypatch.setattr(sampler, "ROUNDS", rounds)
    length, copies, calls = 2 * sampler.KEYED + 3, 42, 250
    labels, distance = lines(length, copies)
    w = np.array([reference.weight(d, 2.0, 0.02) for d in distance])
    p = w / w.sum()
    pair = np.triu(np.outer(p, p) * (1 / (1 - p)[:, None] + 1 / (1 - p)[None, :]), 1)  # either order
    n = calls * (copies - 2)
    g, ours, numpys = generator(2), np.zeros((length, length)), np.zeros((length, length))
    for _ in range(calls):
        pixels = sampler.sample_pixels(labels, 2, mu=2.0, eps=0.02, generator=g).numpy().reshape(copies, 2)
        np.add.at(ours, tuple((pixels[1:-1] % length).T), 1)
    rng = np.random.default_rng(0)
    for _ in range(n):
        np.add.at(numpys, tuple(np.sort(rng.choice(length, 2, replace=False, p=p))), 1)
    cells = np.triu_indices(length, 1)
    expected = n * pair[cells]
    common = expected >= 5

    def pooled(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.append(x[common], x[~common].sum())

    for counts in (ours, numpys):
        assert counts.sum() == n
        assert stats.chisquare(pooled(counts[cells]), pooled(expected)).pvalue > 1e-3
    variation = [abs(counts[cells] / n - pair[cells]).sum() / 2 for counts in (ours, numpys)]
    assert variation[0] < 1.25 * variation[1]  # no further from the law than a sample of that size is


@pytest.mark.parametrize(
    ("mu", "eps"), [(8.0, 0.0), (0.5, 0.0), (1e-3, 0.0), (1e6, 0.05), (1e6, 0.0), (1e-300, 1e-300), (1e300, 1e300)]
)
def test_extreme_weights_neither_hang_nor_warn(mu: float, eps: float) -> None:
    labels = torch.from_numpy(VOLUMES["one voxel, far"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights = sampler.weight_map(labels, mu=mu, eps=min(eps, 1e30))
        pixels = sampler.sample_pixels(labels, 50, mu=mu, eps=eps, generator=generator())
    assert torch.isfinite(weights).all()
    assert len(pixels.unique()) == len(pixels) == 51


def test_without_eps_the_nearest_voxels_are_drawn_first_when_mu_is_tiny() -> None:
    # W(2) / W(1) = sqrt(2) exp(-1 / mu) is 5e-44 at mu = 0.01: the 4 voxels at distance 1 come first, then
    # those at sqrt(2), though all weights underflow long before the end of the volume.
    labels = torch.zeros(41, 41, dtype=torch.uint8)
    labels[20, 20] = 1
    distance = sampler.boundary_distance(labels).reshape(-1)
    pixels = sampler.sample_pixels(labels, 8, mu=0.01, eps=0.0, generator=generator())
    assert sorted(distance[pixels].tolist()) == pytest.approx([1] * 5 + [math.sqrt(2)] * 4)


def test_more_voxels_than_multinomial_can_take() -> None:
    labels = torch.zeros(260, 260, 260, dtype=torch.uint8)
    labels[200:, 100:] = 3
    assert labels.numel() > 2**24
    pixels = sampler.sample_pixels(labels, 64, generator=generator())
    drawn = labels.reshape(-1)[pixels]
    assert [(drawn == label).sum() for label in (0, 3)] == [64, 64]
    assert pixels[drawn == 0].max() > 2**22  # from all over the volume
    assert pixels.max() > 2**24


# scans and patches


def test_second_patch_comes_from_the_same_scan_half_the_time() -> None:
    collections = ["a"] * 4 + ["b"] * 3 + ["lone"]
    g, n = generator(), 8000
    pairs = np.array([sampler.choose_pair(collections, generator=g) for _ in range(n)])
    assert all(collections[i] == collections[j] for i, j in pairs)
    first = np.bincount(pairs[:, 0], minlength=8)
    assert stats.chisquare(first).pvalue > 1e-3
    same = pairs[:, 0] == pairs[:, 1]
    assert same[pairs[:, 0] == 7].all()  # no other scan in its collection
    others = pairs[:, 0] < 7
    assert stats.binomtest(int(same[others].sum()), int(others.sum()), 0.5).pvalue > 1e-3
    for i in range(4):
        second = np.bincount(pairs[(pairs[:, 0] == i) & ~same, 1], minlength=8)
        assert stats.chisquare(np.delete(second[:4], i)).pvalue > 1e-3


@pytest.mark.parametrize(("prob", "expected"), [(0.0, 0), (1.0, 1)])
def test_the_coin_can_be_loaded(prob: float, expected: int) -> None:
    g = generator()
    pairs = [sampler.choose_pair(["a", "a", "b", "b"], same_image_prob=prob, generator=g) for _ in range(200)]
    assert {int(i == j) for i, j in pairs} == {expected}


def test_a_pair_needs_a_scan() -> None:
    with pytest.raises(ValueError, match="prepare a collection first"):
        sampler.choose_pair([])


def test_patches_centre_on_each_label_equally_often() -> None:
    shape, patch = (60, 50, 40), 8
    foreground = {  # far apart, of very different sizes
        1: np.array([[x, y, 10] for x in range(8, 20) for y in range(8, 20)]),
        5: np.array([[45, 40, 30]]),
        9: np.array([[30, 10, 30], [31, 10, 30]]),
    }
    g, n = generator(), 3000
    counts = dict.fromkeys(foreground, 0)
    for _ in range(n):
        corner = np.array(sampler.choose_origin(foreground, shape, patch, generator=g))
        assert (corner >= 0).all()
        assert (corner + patch <= shape).all()
        centre = corner + patch // 2
        counts[next(label for label, voxels in foreground.items() if (voxels == centre).all(1).any())] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_patches_stay_inside_and_are_centred_where_the_volume_is_too_short() -> None:
    corners = {1: np.array([[0, 0, 0], [29, 19, 8]])}
    seen = {sampler.choose_origin(corners, (30, 20, 9), 16, generator=generator(s)) for s in range(30)}
    assert seen == {(0, 0, -4), (14, 4, -4)}  # floor((9 - 16) / 2) = -4
    g = generator()
    anywhere = {sampler.choose_origin(corners, (18, 16, 9), 16, foreground_prob=0.0, generator=g) for _ in range(200)}
    assert anywhere == {(0, 0, -4), (1, 0, -4), (2, 0, -4)}
    assert sampler.choose_origin({}, (16, 16, 16), 16, generator=g) == (0, 0, 0)


def test_patches_are_anywhere_without_foreground() -> None:
    g = generator()
    corners = np.array([sampler.choose_origin({}, (20, 8, 8), 8, generator=g)[0] for _ in range(2600)])
    assert stats.chisquare(np.bincount(corners, minlength=13)).pvalue > 1e-3
    mixed = [
        sampler.choose_origin({2: np.array([[4, 4, 4]])}, (200, 8, 8), 8, foreground_prob=0.3, generator=g)[0]
        for _ in range(2000)
    ]
    centred = sum(c == 0 for c in mixed) - 1400 / 193  # less those that are at 0 by chance
    assert centred / 2000 == pytest.approx(0.3, abs=0.04)
