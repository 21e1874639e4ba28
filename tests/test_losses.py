"""Eq. 2 to 6: against loops in float64, against properties, against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import reference
from helpers.memory import saved_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mixcl import losses, moments

REDUCTIONS = ("ratio", "supcon", "sum")
BACKGROUNDS = ("ignore_pairs", "ignore_all")
SHAPES = [(1, 1), (4, 3), (1, 5), (2, 1, 3), (1, 3, 7), (2, 3, 4, 2), (1, 4, 2, 3, 2), (3, 2, 1, 1, 1), (2, 6, 1, 2, 1)]
CASES = {
    "two classes": ([1, 1, 2], [2, 1, 1, 2]),
    "n is not m": ([1, 2, 0, 3, 3], [3, 0]),
    "one pair": ([4], [4]),
    "single class": ([7, 7, 7], [7, 7]),
    "many classes": ([1, 2, 3, 4, 5, 6, 0, 13], [13, 12, 11, 5, 4, 3, 2, 0]),
    "background mix": ([0, 0, 1, 1, 0], [0, 1, 0, 2]),
    "above 127": ([200, 254, 128, 0], [254, 128, 127, 200]),
    "no positive": ([1, 2, 0], [3, 0, 3]),
    "all background": ([0, 0], [0, 0, 0]),
    "some unknown": ([255, 1, 2, 0, 1], [1, 255, 2, 0, 255]),
    "all unknown": ([255, 255], [255, 1, 0]),
}  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


def assert_agrees(loss: Callable[..., Tensor], loops: Callable[..., float], inputs: list[Tensor]) -> None:
    """Value and gradient equal those of the loops to 1e-6."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    value = loss(*inputs)
    assert value.dtype == torch.float64
    assert value.shape == ()
    arrays = [x.detach().numpy() for x in inputs]
    assert value.item() == pytest.approx(loops(*arrays), rel=1e-6, abs=1e-9)
    ours = torch.autograd.grad(value, inputs)
    for mine, theirs in zip(ours, reference.gradients(loops, arrays), strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-6, atol=1e-6 * max(1.0, abs(theirs).max(initial=0)))


def embeddings(n: int, m: int, channels: int = 5, seed: int = 0) -> list[Tensor]:
    return [normal(n, channels, seed=seed), normal(m, channels, seed=seed + 1)]


# Eq. 5


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_correlation_is_eq_5(shape: tuple[int, ...], center: bool) -> None:
    a, b = normal(*shape) + 0.3, normal(*shape, seed=1) + 0.3
    mix = normal(shape[1], shape[1], seed=2)  # a random functional of C, so that every entry's gradient counts
    c = losses.cross_correlation(a, b, center=center)
    assert c.shape == (shape[1], shape[1])
    np.testing.assert_allclose(c, reference.correlation(a.numpy(), b.numpy(), center), rtol=1e-6, atol=1e-12)
    if center and a[:, 0].numel() <= 2:
        return  # two centred positions give C = +-1 with a gradient of exactly 0, one gives no C at all
    assert_agrees(
        lambda x, y: (mix * losses.cross_correlation(x, y, center=center)).sum(),
        lambda x, y: float((mix.numpy() * reference.correlation(x, y, center)).sum()),
        [a, b],
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=5), st.integers(0, 99), st.booleans())
def test_cross_correlation_of_any_shape(shape: list[int], seed: int, center: bool) -> None:
    a, b = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    c = losses.cross_correlation(a, b, center=center)
    np.testing.assert_allclose(c, reference.correlation(a.numpy(), b.numpy(), center), rtol=1e-6, atol=1e-9)
    assert c.abs().max() <= 1 + 1e-9  # centring by sums costs digits


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_channel_without_signal_correlates_with_nothing_and_gets_no_gradient(
    center: bool, dtype: torch.dtype
) -> None:
    a, b = normal(2, 3, 5).to(dtype), normal(2, 3, 5, seed=1).to(dtype)
    a[:, 1] = 0.7 if center else 0.0  # centring takes a constant away but for rounding
    a.requires_grad_()
    c = losses.cross_correlation(a, b, center=center)
    assert (c[1] == 0).all()
    assert c[0].abs().min() > 0
    losses.decorrelation(c).backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert (a.grad[:, 1] == 0).all()
    assert a.grad[:, 0].abs().max() > 0


def test_center_is_standardising_by_hand() -> None:
    a, b = normal(2, 4, 3, 3) + 2, normal(2, 4, 3, 3, seed=1) - 1
    standard = [(z - z.mean((0, 2, 3), keepdim=True)) / z.std((0, 2, 3), keepdim=True) for z in (a, b)]
    expected = sum(torch.einsum("bix,bjx->ij", *(z.flatten(2) for z in standard)) for _ in (0,)) / (2 * 9 - 1)
    torch.testing.assert_close(losses.cross_correlation(a, b, center=True), expected)


def test_cross_correlation_is_invariant_to_the_scale_of_a_channel() -> None:
    a, b = normal(2, 4, 5), normal(2, 4, 5, seed=1)
    scale = torch.tensor([1e-6, 1.0, 30.0, 1e6], dtype=torch.float64)[None, :, None]
    torch.testing.assert_close(losses.cross_correlation(a * scale, b), losses.cross_correlation(a, b))
    for factor in (1e-12, 1e12):
        torch.testing.assert_close(
            losses.cross_correlation(a.float() * factor, b.float()), losses.cross_correlation(a, b).float()
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cross_correlation_is_computed_in_float32(dtype: torch.dtype) -> None:
    a, b = (normal(2, 8, 12, 12, 12, seed=s).to(dtype) for s in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        c = losses.cross_correlation(a, b)
    assert c.dtype == torch.float32
    torch.testing.assert_close(c.double(), losses.cross_correlation(a.double(), b.double()), rtol=0, atol=2e-6)


@pytest.mark.parametrize("shapes", [((2, 3, 4), (2, 3, 5)), ((3,), (3,)), ((0, 3, 2), (0, 3, 2)), ((2, 3), (3, 2))])
def test_cross_correlation_names_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"both must be \[B, C, \*spatial\] and equal") as caught:
        losses.cross_correlation(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
    assert str(shapes[0]) in str(caught.value)


# Eq. 4


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(("lam", "weights"), [(0.0051, None), (0.0, None), (0.3, (1.0, 0.25, 0.0)), (2.0, (3, 2, 1))])
def test_identity_is_eq_4(lam: float, weights: tuple[float, ...] | None, center: bool) -> None:
    shapes = [(2, 2, 3, 2), (2, 3, 3), (2, 4, 2)]
    levels = [normal(*shape, seed=s) + 0.2 for s in (0, 10) for shape in shapes]
    assert_agrees(
        lambda *z: losses.identity_consistency(z[:3], z[3:], lam=lam, center=center, level_weights=weights),
        lambda *z: reference.identity(z[:3], z[3:], lam, center, weights),
        levels,
    )


@pytest.mark.parametrize("center", [False, True])
def test_identity_gradcheck(center: bool) -> None:
    inputs = tuple(normal(1, 3, 4, seed=s).requires_grad_() for s in (0, 1))
    assert torch.autograd.gradcheck(lambda x, y: losses.identity_consistency([x], [y], center=center), inputs)


def test_identity_is_0_for_orthogonal_channels_with_themselves() -> None:
    # Rows of an orthogonal matrix are orthogonal channels: C is the identity, both terms of Eq. 4 vanish.
    q = torch.linalg.qr(normal(12, 12))[0][:5]
    z = (q * torch.tensor([1.0, 2.0, 0.1, 7.0, 1e3], dtype=torch.float64)[:, None]).reshape(1, 5, 3, 4)
    assert losses.identity_consistency([z, z[:, :2]], [z, z[:, :2]]).item() == pytest.approx(0, abs=1e-20)


def test_identity_of_equal_channels_has_a_known_value() -> None:
    # c equal channels: every C_ij is 1, the diagonal term is 0 and the other is lambda c (c - 1).
    z = normal(2, 1, 3).expand(2, 4, 3)
    assert losses.identity_consistency([z], [z], lam=0.5).item() == pytest.approx(0.5 * 4 * 3)
    # opposite views: C_ij = -1, so (1 + 1)^2 c + lambda c (c - 1).
    assert losses.identity_consistency([z], [-z], lam=0.5).item() == pytest.approx(4 * 4 + 0.5 * 4 * 3)


def test_identity_adds_levels_with_their_weights() -> None:
    a, b = [normal(1, c, 4, seed=c) for c in (2, 3)], [normal(1, c, 4, seed=c + 9) for c in (2, 3)]
    one, two = (losses.identity_consistency([x], [y]).item() for x, y in zip(a, b, strict=True))
    assert losses.identity_consistency(a, b).item() == pytest.approx(one + two)
    assert losses.identity_consistency(a, b, level_weights=(0.5, 3.0)).item() == pytest.approx(one / 2 + 3 * two)
    with pytest.raises(ValueError, match="1 level weights for 2 levels"):
        losses.identity_consistency(a, b, level_weights=(1.0,))
    with pytest.raises(ValueError, match="2 levels in one view and 1 in the other"):
        losses.identity_consistency(a, b[:1])
    with pytest.raises(ValueError, match="at least one"):
        losses.identity_consistency([], [])


@pytest.mark.parametrize("lam", [0.0051, 0.2, 1.0])
def test_floor_is_reached_by_a_construction(lam: float) -> None:
    # Rows u_i of a flat orthogonal basis U = H / sqrt(c) (Hadamard) give U U^T = P, a projection of rank M
    # with the diagonal M / c.  With z_i = sqrt(g) u_i and z'_i = u_i / sqrt(g) for g = (t, 1/t, t, 1/t) all
    # norms are equal and C = P (c / M) / (1 + k) where (t + 1/t) / 2 = 1 + k.  So tr C = c / (1 + k) and
    # |C|^2 = (tr C)^2 / M, which makes Eq. 4: c - 2 c / (1+k) + (1 - lambda) c / (1+k)^2
    # + lambda c^2 / (M (1+k)^2) = c k / (1 + k).
    c, m = 16, 4
    h = torch.ones(1, 1, dtype=torch.float64)
    while len(h) < c:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    u = h[:, :m]
    half = 1 + lam * (c / m - 1)
    t = half + math.sqrt(half**2 - 1)
    g = torch.tensor([t, 1 / t, t, 1 / t], dtype=torch.float64)
    loss = losses.identity_consistency([(u * g.sqrt())[None]], [(u / g.sqrt())[None]], lam=lam)
    assert loss.item() == pytest.approx(losses.identity_floor(c, m, lam=lam), rel=1e-9)


@pytest.mark.parametrize("lam", [0.0051, 0.3, 3.0])
def test_floor_is_never_undercut(lam: float) -> None:
    for seed in range(60):
        channels, positions = 2 + seed % 11, 1 + seed % 5
        z = normal(1, channels, positions, seed=seed)
        other = z if seed % 2 else z + 0.3 * normal(1, channels, positions, seed=seed + 100)
        loss = losses.identity_consistency([z], [other], lam=lam).item()
        assert loss >= losses.identity_floor(channels, positions, lam=lam) - 1e-9
    a, b = (normal(1, 12, 3, seed=s).requires_grad_() for s in (0, 1))
    optimizer = torch.optim.LBFGS(
        [a, b], max_iter=400, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = losses.identity_consistency([a], [b], lam=lam)
        loss.backward()
        return loss

    optimizer.step(closure)
    best, floor = closure().item(), losses.identity_floor(12, 3, lam=lam)
    assert floor - 1e-9 <= best
    assert best <= floor * 1.01 or lam > 1  # tight where lambda is at most 1
    assert losses.identity_floor(3, 12, lam=lam) == 0


# folded statistics


@pytest.mark.parametrize("shape", [(1, 3, 4, 3, 2), (2, 4, 5, 1, 3), (3, 2, 2, 2, 2)])
def test_folded_moments_are_those_of_the_convolution(shape: tuple[int, ...]) -> None:
    h_a, h_b = normal(*shape) + 0.2, normal(*shape, seed=1)
    weight, bias = normal(6, shape[1], seed=2), normal(6, seed=3)
    inputs = [x.requires_grad_() for x in (h_a, h_b, weight, bias)]

    def plain() -> moments.Moments:
        kernel = weight[:, :, None, None, None]
        return moments.moments(F.conv3d(h_a, kernel, bias), F.conv3d(h_b, kernel, bias))

    folded = moments.folded_moments(h_a, h_b, weight, bias)
    for mine, theirs in zip(folded, plain(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    for center in (False, True):
        bracket = [losses.decorrelation(moments.correlation_from_moments(m, center=center)) for m in (folded, plain())]
        gradients = [torch.autograd.grad(x, inputs, retain_graph=True) for x in bracket]
        for mine, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


def test_folded_moments_in_float32_are_as_exact_as_plain_ones(record_property: Callable[[str, object], None]) -> None:
    h_a, h_b = normal(1, 16, 32, 32, 32) + 0.5, normal(1, 16, 32, 32, 32, seed=1) + 0.5
    weight, bias = normal(32, 16, seed=2), normal(32, seed=3)
    exact = moments.correlation_from_moments(moments.folded_moments(h_a, h_b, weight, bias))
    a, b, w, v = (x.float() for x in (h_a, h_b, weight, bias))
    kernel = w[:, :, None, None, None]
    plain = losses.cross_correlation(F.conv3d(a, kernel, v), F.conv3d(b, kernel, v))
    folded = moments.correlation_from_moments(moments.folded_moments(a, b, w, v))
    errors = {"folded": (folded - exact).abs().max().item(), "plain": (plain - exact).abs().max().item()}
    for name, error in errors.items():
        record_property(f"float32 error, {name}", error)
    assert errors["folded"] < 3e-6


# Eq. 3 and Eq. 2


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("shape", [(1, 1, 2, 3, 2), (3, 1, 4), (2, 2, 3, 3), (2, 5)])
def test_reconstruction_is_eq_3(shape: tuple[int, ...], reduction: str) -> None:
    assert_agrees(
        lambda x, y: losses.reconstruction_consistency(x, y, reduction=reduction),
        lambda x, y: reference.reconstruction(x, y, reduction),
        [normal(*shape), normal(*shape, seed=1)],
    )


def test_reconstruction_sums_over_voxels_and_averages_over_the_batch() -> None:
    # 3 samples that are off by 2 in each of 4 voxels: 4 voxels x 2^2 = 16 a sample.
    patch = torch.zeros(3, 1, 2, 2)
    assert losses.reconstruction_consistency(patch + 2, patch).item() == 16
    assert losses.reconstruction_consistency(patch + 2, patch, reduction="mean").item() == 4
    half = losses.reconstruction_consistency(patch.half() + 200, patch.half())  # 160000 has no float16
    assert half.item() == 160000
    assert half.dtype == torch.float32


def test_reconstruction_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 3\) and patch \(2, 1, 4\)"):
        losses.reconstruction_consistency(torch.zeros(2, 1, 3), torch.zeros(2, 1, 4))
    with pytest.raises(ValueError, match="choose one of sum, mean"):
        losses.reconstruction_consistency(torch.zeros(1, 1), torch.zeros(1, 1), reduction="max")


def test_mixcl_loss_is_eq_2() -> None:
    terms = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (3.0, 5.0, 7.0)]
    assert losses.mixcl_loss(*terms).item() == pytest.approx(3 + 0.01 * 5 + 0.01 * 7)
    losses.mixcl_loss(*terms, alpha=0.2, beta=0.3, gamma=0.0).backward()
    assert [t.grad.item() for t in terms if t.grad is not None] == [0.0, 0.2, 0.3]


# Eq. 6


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("labels", CASES.values(), ids=CASES)
def test_label_relation_is_fig_2d(labels: tuple[list[int], list[int]], background: str, dtype: torch.dtype) -> None:
    tensors = [torch.tensor(x, dtype=dtype) for x in labels]
    relation = losses.label_relation(*tensors, background=background)
    assert relation.dtype == torch.int8
    np.testing.assert_array_equal(relation, reference.relation(*labels, background))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("labels", CASES.values(), ids=CASES)
def test_label_consistency_is_eq_6(labels: tuple[list[int], list[int]], background: str, reduction: str) -> None:
    dtype = torch.uint8 if reduction == "supcon" else torch.int64
    tensors = [torch.tensor(x, dtype=dtype) for x in labels]
    options = {"temperature": 0.1, "reduction": reduction, "background": background}
    assert_agrees(
        lambda x, y: losses.label_consistency(x, y, *tensors, **options),
        lambda x, y: reference.label(x, y, *labels, **options),
        embeddings(*map(len, labels)),
    )


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 4), max_size=8),
    st.lists(st.integers(0, 4), max_size=8),
    st.integers(1, 5),
    st.sampled_from(REDUCTIONS),
    st.sampled_from(BACKGROUNDS),
    st.sampled_from([0.05, 0.1, 1.0, 20.0]),
    st.integers(0, 1000),
)
def test_label_consistency_of_any_labels(
    labels_a: list[int], labels_b: list[int], channels: int, reduction: str, background: str, tau: float, seed: int
) -> None:
    a, b = embeddings(len(labels_a), len(labels_b), channels, seed)
    loss = losses.label_consistency(
        a, b, torch.tensor(labels_a, dtype=torch.int64), torch.tensor(labels_b, dtype=torch.int64),
        temperature=tau, reduction=reduction, background=background,
    )  # fmt: skip
    expected = reference.label(a.numpy(), b.numpy(), labels_a, labels_b, tau, reduction, background)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert loss >= 0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_label_consistency_gradcheck(reduction: str) -> None:
    labels = torch.tensor([0, 1, 2, 1]), torch.tensor([1, 0, 3])
    inputs = tuple(x.requires_grad_() for x in embeddings(4, 3))
    assert torch.autograd.gradcheck(lambda x, y: losses.label_consistency(x, y, *labels, reduction=reduction), inputs)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_label_consistency_is_invariant_to_any_positive_scale(channels: int) -> None:
    labels = torch.tensor([0, 1, 1, 2, 3, 0]), torch.tensor([1, 2, 2, 0])
    a, b = embeddings(6, 4, channels)
    for reduction in REDUCTIONS:
        loss = losses.label_consistency(a, b, *labels, reduction=reduction)
        rows = 10 ** (30 * torch.rand(6, 1, dtype=torch.float64, generator=generator()) - 15)
        scaled = losses.label_consistency(a * rows, 1e200 * b, *labels, reduction=reduction)
        torch.testing.assert_close(scaled, loss)
        for factor in (1e-20, 1e20):
            x = (a.float() * factor).requires_grad_()
            single = losses.label_consistency(x, b.float() / factor, *labels, reduction=reduction)
            torch.testing.assert_close(single.double(), loss, rtol=1e-5, atol=1e-6)
            single.backward()
            assert x.grad is not None
            assert torch.isfinite(x.grad).all()


def test_label_consistency_has_known_values() -> None:
    # One positive and one negative pair: a = (1, 0) against b_1 = a (cos 1) and b_2 = (0, 1) (cos 0):
    # -log(exp(1 / tau) / (exp(1 / tau) + 1)) = log(1 + exp(-1 / tau)).
    a, b = torch.tensor([[1.0, 0.0]]), torch.eye(2)
    labels = torch.tensor([1]), torch.tensor([1, 2])
    for tau in (0.1, 0.5, 1.0):
        for reduction in REDUCTIONS:
            loss = losses.label_consistency(a, b, *labels, temperature=tau, reduction=reduction)
            assert loss.item() == pytest.approx(math.log1p(math.exp(-1 / tau)), rel=1e-6)
    # p positive and q negative pairs, all embeddings equal: log((p + q) / p).  Labels 1 1 2 against 1 3: p
    # = 2, q = 4.
    loss = losses.label_consistency(torch.ones(3, 4), torch.ones(2, 4), torch.tensor([1, 1, 2]), torch.tensor([1, 3]))
    assert loss.item() == pytest.approx(math.log(6 / 2), rel=1e-6)


def test_label_consistency_is_0_when_every_pair_is_positive() -> None:
    a, b = (x.requires_grad_() for x in embeddings(3, 4))
    ones = torch.ones(3, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    for reduction in ("ratio", "sum"):
        loss = losses.label_consistency(a, b, *ones, reduction=reduction)
        assert loss.item() == 0
        assert all((g == 0).all() for g in torch.autograd.grad(loss, (a, b)))
    # SupCon takes each positive against all: with equal embeddings that is log m.
    same = losses.label_consistency(torch.ones(3, 2), torch.ones(4, 2), *ones, reduction="supcon")
    assert same.item() == pytest.approx(math.log(4), rel=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("labels", [([1, 2, 0], [3, 0]), ([0, 0], [0, 0, 0]), ([], [1, 0]), ([1], []), ([], [])])
def test_label_consistency_is_0_with_a_graph_without_a_positive_pair(
    labels: tuple[list[int], list[int]], dtype: torch.dtype, reduction: str
) -> None:
    a, b = (x.to(dtype).requires_grad_() for x in embeddings(*map(len, labels)))
    tensors = [torch.tensor(x, dtype=torch.uint8) for x in labels]
    loss = losses.label_consistency(a, b, *tensors, temperature=0.01, reduction=reduction)
    assert loss.item() == 0
    loss.backward()
    for x in (a, b):
        assert x.grad is not None
        assert (x.grad == 0).all()


def clusters(channels: int = 16, spread: float = 0.3) -> tuple[list[Tensor], list[Tensor]]:
    """Embeddings that a trained network might give: one direction a class, the views close to each other."""
    labels = [torch.arange(6).repeat_interleave(8), torch.arange(7).repeat_interleave(5)]
    centres = normal(7, channels)
    return [centres[y] + spread * normal(len(y), channels, seed=i) for i, y in enumerate(labels)], labels


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.3, 3.0])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_label_consistency_in_low_precision_at_temperature_001(
    dtype: torch.dtype, reduction: str, spread: float
) -> None:
    # What differs from float64 on the same, rounded, embeddings is float32 arithmetic on s up to 100 (6e-6
    # each), and for gradients their own rounding to the embeddings' precision.
    embs, labels = clusters(spread=spread)
    low = [x.to(dtype).requires_grad_() for x in embs]
    exact = [x.detach().double().requires_grad_() for x in low]
    options = {"temperature": 0.01, "reduction": reduction}
    loss = losses.label_consistency(*low, *labels, **options)
    expected = losses.label_consistency(*exact, *labels, **options)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=2e-5, atol=2e-5)
    tolerance = max(2e-4, 2 * torch.finfo(dtype).eps)
    for mine, theirs in zip(torch.autograd.grad(loss, low), torch.autograd.grad(expected, exact), strict=True):
        assert torch.isfinite(mine).all()
        torch.testing.assert_close(
            mine.double(), theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item() + 1e-6
        )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_label_consistency_under_autocast(dtype: torch.dtype, reduction: str) -> None:
    embs, labels = clusters(spread=3.0)  # gradients that float16 can hold
    layer = torch.nn.Linear(16, 24)
    a, b = (x.float() for x in embs)
    with torch.autocast("cpu", dtype):
        z_a, z_b = layer(a), layer(b)
        loss = losses.label_consistency(z_a, z_b, *labels, temperature=0.01, reduction=reduction)
        loss.backward()  # inside, where a careless backward pass would be lowered too
    assert z_a.dtype == dtype
    assert loss.dtype == torch.float32
    outside = losses.label_consistency(z_a, z_b, *labels, temperature=0.01, reduction=reduction)
    assert loss.item() == outside.item()
    assert layer.weight.grad is not None
    assert torch.isfinite(layer.weight.grad).all()
    assert layer.weight.grad.abs().max() > 0


def test_label_consistency_near_zero_keeps_its_digits() -> None:
    # Positives at cos 1 and negatives at cos 0 with tau 0.05: log(1 + exp(-20)) is 2.06e-9, which a
    # difference of log-sum-exps in float32 rounds to 0 or 1e-6.
    a = torch.eye(2)
    labels = torch.tensor([1, 2])
    for reduction in REDUCTIONS:
        loss = losses.label_consistency(a, a, labels, labels, temperature=0.05, reduction=reduction)
        rows = 2 if reduction == "sum" else 1
        assert loss.item() == pytest.approx(rows * math.log1p(math.exp(-20)), rel=1e-4)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_label_consistency_keeps_a_byte_a_pair(reduction: str) -> None:
    for n, m, channels in ((300, 500, 8), (600, 500, 8), (600, 500, 32)):
        a, b = (torch.randn(k, channels, generator=generator()).requires_grad_() for k in (n, m))
        labels = torch.arange(n) % 14, torch.arange(m) % 14
        kept = saved_bytes(lambda: losses.label_consistency(a, b, *labels, reduction=reduction))  # noqa: B023
        assert kept <= n * m + 30 * (n + m) * channels


def test_label_consistency_names_what_does_not_fit() -> None:
    a, b = torch.zeros(3, 4), torch.zeros(2, 4)
    three, two = torch.zeros(3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"embeddings have shapes \(3, 4\) and \(2, 5\): give \[n, C\] and \[m, C\]"):
        losses.label_consistency(a, torch.zeros(2, 5), three, two)
    with pytest.raises(ValueError, match=r"labels have shape \(2,\) for 3 embeddings: give one a row"):
        losses.label_consistency(a, b, two, two)
    with pytest.raises(ValueError, match="temperature is 0: it must be above 0"):
        losses.label_consistency(a, b, three, two, temperature=0)
    with pytest.raises(ValueError, match="choose one of ratio, supcon, sum"):
        losses.label_consistency(a, b, three, two, reduction="mean")
    with pytest.raises(ValueError, match="choose one of ignore_pairs, ignore_all"):
        losses.label_consistency(a, b, three, two, background="keep")
    with pytest.raises(ValueError, match=r"labels have shapes \(3, 1\) and \(2,\): give \[n\] and \[m\]"):
        losses.label_relation(three[:, None], two)
