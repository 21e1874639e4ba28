"""The objective of MixCL, Eq. 2 to 6 of the paper, one function an equation.

Pure functions of tensors and numbers, on any device.  Arithmetic, and what comes back, is float32 outside autocast
(float64 stays float64), whatever the precision of what comes in.  R-numbers refer to reproduce/READINGS.md.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mixcl.labels import UNKNOWN
from mixcl.moments import Moments, as_float, correlation_from_moments, full_precision, moments

MASKED = -1e30  # log-weight of a pair that takes no part; finite, so that gradients stay finite


def mixcl_loss(
    identity: Tensor, label: Tensor, recon: Tensor, *, alpha: float = 0.01, beta: float = 0.01, gamma: float = 1.0
) -> Tensor:
    """Eq. 2: ``gamma L_id + alpha L_label + beta L_recon``; gamma is 1 but in an ablation without L_id.

    >>> mixcl_loss(torch.tensor(2.0), torch.tensor(10.0), torch.tensor(100.0)).item()
    3.0999999046325684
    """
    return gamma * identity + alpha * label + beta * recon


def reconstruction_consistency(restored: Tensor, patch: Tensor, *, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """Eq. 3: ``||P - P~||^2``, averaged over the batch (R25); a scalar.

    Parameters
    ----------
    restored, patch
        [B, channels, \\*spatial], the decoder's output and the undistorted patch, intensities in [0, 1].  ValueError
        where they differ in shape or are empty.
    reduction
        ``sum`` over the voxels of a patch is the literal squared norm; ``mean`` divides it by their number.
    """
    _one_of("reduction", reduction, ("sum", "mean"))
    if restored.shape != patch.shape or restored.numel() == 0:
        raise ValueError(
            f"restored has shape {tuple(restored.shape)} and patch {tuple(patch.shape)}: "
            "both must be [B, channels, *spatial] and equal"
        )
    with full_precision(restored):
        squares = (as_float(restored) - as_float(patch)).square().flatten(1)  # [B, voxels]
        return (squares.sum(1) if reduction == "sum" else squares.mean(1)).mean()


def identity_consistency(
    levels_a: Sequence[Tensor],
    levels_b: Sequence[Tensor],
    *,
    lam: float = 0.0051,
    center: bool = False,
    level_weights: Sequence[float] | None = None,
) -> Tensor:
    """Eq. 4: sum over levels of ``sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2`` (R2, R5, R6).

    A scalar >= 0; 0 where every channel is equal in both views and orthogonal to every other.

    Parameters
    ----------
    levels_a, levels_b
        Projected levels of the two views, each [B, C_l, \\*spatial_l], voxel-aligned; ValueError where they do not fit.
    lam
        Weight of the off-diagonal term; the paper does not give it, 0.0051 is Barlow Twins' (R5).
    center
        R4, see :func:`cross_correlation`.
    level_weights
        One factor a level, or ValueError; None is the paper's plain sum.
    """
    if len(levels_a) != len(levels_b) or not levels_a:
        raise ValueError(
            f"{len(levels_a)} levels in one view and {len(levels_b)} in the other: give equally many, at least one"
        )
    sums = [_sums(a, b) for a, b in zip(levels_a, levels_b, strict=True)]
    return identity_levels(sums, lam=lam, center=center, level_weights=level_weights).sum()


def identity_levels(
    levels: Sequence[Moments],
    *,
    lam: float = 0.0051,
    center: bool = False,
    level_weights: Sequence[float] | None = None,
) -> Tensor:
    """Eq. 4's weighted brackets [L] from the levels' sums of Eq. 5: what a step and :func:`identity_consistency` share.

    The sums may be of maps or folded, of one rank or over all; the rest is as in :func:`identity_consistency`.  Raises
    ValueError unless there is one weight a level.
    """
    factors = [1.0] * len(levels) if level_weights is None else level_weights
    if not levels or len(factors) != len(levels):
        raise ValueError(f"{len(factors)} level weights for {len(levels)} levels: give one a level, or None")
    brackets = []
    for factor, sums in zip(factors, levels, strict=True):
        with full_precision(sums.product):
            brackets.append(factor * decorrelation(correlation_from_moments(sums, center=center), lam=lam))
    return torch.stack(brackets)


def decorrelation(correlation: Tensor, *, lam: float = 0.0051) -> Tensor:
    """The bracket of Eq. 4 for one level: ``sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2``.

    >>> decorrelation(torch.eye(3)).item()
    0.0
    >>> round(decorrelation(torch.ones(3, 3), lam=0.5).item(), 6)
    3.0
    """
    diagonal = correlation.diagonal()
    off_diagonal = correlation - torch.diag(diagonal)
    return (1 - diagonal).square().sum() + lam * off_diagonal.square().sum()


def identity_floor(channels: int, positions: int, *, lam: float = 0.0051) -> float:
    """The least that the bracket of Eq. 4 can be for one level with c = ``channels`` and M = ``positions``.

    Above 0 where c > M: the literal C has rank M at most (R28), so ``|C|_F^2 >= (tr C)^2 / M``.  For lambda <= 1 the
    bracket is then at least ``c k / (1 + k)`` with ``k = lambda (c / M - 1)``, which equal diagonal entries reach.
    Centring (R4) takes one more from the rank: give M - 1.

    >>> round(identity_floor(1536, 216), 2)
    46.43
    """
    k = min(lam, 1.0) * max(channels / positions - 1, 0.0)
    return channels * k / (1 + k)


def cross_correlation(z_a: Tensor, z_b: Tensor, *, center: bool = False) -> Tensor:
    """Eq. 5: ``C_ij = sum_M Z_Mi Z'_Mj / (|Z_i| |Z'_j|)`` over M = B x H x W x D positions of a level (R3).

    [C, C] in [-1, 1].  A channel that is 0 everywhere correlates with nothing: its row and column are 0, and so is its
    gradient.  Squares are summed: in float32, keep values between 1e-15 and 1e15; with ``center`` the mean is taken off
    these sums, which costs about 1e-7 (mean / deviation)^2 of C, as in training.

    Parameters
    ----------
    z_a, z_b
        [B, C, \\*spatial], the projected level of the two views; ValueError where they differ in shape or are empty.
    center
        False is the paper's literal formula; True subtracts each channel's mean over M first (R4).

    >>> z = torch.tensor([[[1.0, -1.0], [2.0, 2.0]]])  # one sample, two orthogonal channels, two positions
    >>> cross_correlation(z, z)
    tensor([[1., 0.],
            [0., 1.]])
    """
    with full_precision(z_a):
        return correlation_from_moments(_sums(z_a, z_b), center=center)


def label_relation(
    labels_a: Tensor, labels_b: Tensor, *, background: Literal["ignore_pairs", "ignore_all"] = "ignore_pairs"
) -> Tensor:
    """The label relation matrix A, int8 [n, m] (Fig. 2d): 1 positive, 0 negative, -1 takes no part (R9, R33).

    Parameters
    ----------
    labels_a, labels_b
        Integer [n] and [m]; 0 is the background, UNKNOWN (255) neither that nor an organ: its pairs take no part.
    background
        ``ignore_pairs`` leaves out (background, background) alone, so that (organ, background) is negative;
        ``ignore_all`` leaves out every pair that touches the background.

    Raises ValueError for labels of more than one dimension.

    >>> label_relation(torch.tensor([0, 1, 2]), torch.tensor([0, 1]))
    tensor([[-1,  0],
            [ 0,  1],
            [ 0,  0]], dtype=torch.int8)
    """
    _one_of("background", background, ("ignore_pairs", "ignore_all"))
    if labels_a.ndim != 1 or labels_b.ndim != 1:
        raise ValueError(f"labels have shapes {tuple(labels_a.shape)} and {tuple(labels_b.shape)}: give [n] and [m]")
    a, b = labels_a[:, None], labels_b[None, :]
    zero_a, zero_b = a == 0, b == 0
    ignored = (zero_a & zero_b if background == "ignore_pairs" else zero_a | zero_b) | (a == UNKNOWN) | (b == UNKNOWN)
    return (a == b).to(torch.int8).masked_fill_(ignored, -1)


def label_consistency(
    emb_a: Tensor,
    emb_b: Tensor,
    labels_a: Tensor,
    labels_b: Tensor,
    *,
    temperature: float = 0.1,
    reduction: Literal["ratio", "supcon", "sum"] = "ratio",
    background: Literal["ignore_pairs", "ignore_all"] = "ignore_pairs",
) -> Tensor:
    """Eq. 6: the contrast of labelled pixels of P_1 (rows i) with those of P_2 (columns j, k) (R7, R8, R9).

    With ``s_ij = cos(z_i, z_j) / tau`` and A of :func:`label_relation`, ``ratio`` is the paper's one logarithm,
    ``-log(sum_{A=1} exp s / sum_{A=0,1} exp s)``, computed as ``softplus(lse_{A=0} s - lse_{A=1} s)``.  ``sum`` takes
    one such logarithm for each row that has a positive and adds them up (R26).  ``supcon`` is the "out" form of
    supervised contrastive learning: ``-log(exp s_ij / sum_k exp s_ik)``, k over the row's pairs that take part,
    averaged over the positives j of a row, then over the rows with one.

    A scalar >= 0; exactly 0, with a graph, where no pair is positive (R14) and, but for ``supcon``, where every pair
    is.  What is kept for the backward pass is one byte a pair, n m.

    Parameters
    ----------
    emb_a, emb_b
        [n, C] and [m, C], any positive scale and any precision.
    labels_a, labels_b
        Integer [n] and [m] of one collection (R29), as in :func:`label_relation`; ValueError where shapes do not fit.
    temperature
        tau > 0, or ValueError.
    """
    _one_of("reduction", reduction, ("ratio", "supcon", "sum"))
    _check_embeddings(emb_a, emb_b, labels_a, labels_b, temperature)
    relation = label_relation(labels_a, labels_b, background=background)
    with full_precision(emb_a):
        unit_a, unit_b = _unit(as_float(emb_a)), _unit(as_float(emb_b))  # [n, C], [m, C]
        no_loss = 0.0 * (unit_a.sum() + unit_b.sum())  # keeps the graph where no pair is positive
        if relation.numel() == 0:
            return no_loss
        # what the backward pass needs of all pairs is computed again then, not kept
        lse_pos, lse_neg, sum_pos = checkpoint(
            _row_sums, unit_a / temperature, unit_b, relation, use_reentrant=False, preserve_rng_state=False
        )
        anchors = lse_pos > MASKED / 2  # [n], rows that have a positive
        rows = F.softplus(lse_neg - lse_pos)  # [n]
        if reduction == "ratio":
            total = F.softplus(lse_neg.logsumexp(0) - lse_pos.logsumexp(0))
        elif reduction == "sum":
            total = torch.where(anchors, rows, 0.0).sum()
        else:
            rows = rows + (lse_pos - sum_pos / (relation == 1).sum(1).clamp_min(1))  # plus 0 for one positive
            total = torch.where(anchors, rows, 0.0).sum() / anchors.sum().clamp_min(1)
        return torch.where(anchors.any(), total, no_loss)


def _row_sums(a: Tensor, b: Tensor, relation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each row of ``s_ij = a_i . b_j``: log sum exp over A = 1, over A = 0 (MASKED of no pair), sum over A = 1."""
    s = a @ b.T  # [n, m]
    positive, negative = s.masked_fill(relation != 1, MASKED), s.masked_fill(relation != 0, MASKED)
    return positive.logsumexp(1), negative.logsumexp(1), s.masked_fill(relation != 1, 0.0).sum(1)


def _unit(x: Tensor) -> Tensor:
    """Rows at length 1; divided by their largest entry first, so that tiny and huge rows stay exact."""
    largest = x.detach().abs().amax(1, keepdim=True) if x.shape[1] else x.new_zeros(len(x), 1)
    unit = F.normalize(x / torch.where(largest > 0, largest, 1.0), dim=1)
    return unit * (largest > 0)  # a row of 0 has no gradient


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ValueError(f"{name} is {value!r}: choose one of {', '.join(valid)}")


def _sums(z_a: Tensor, z_b: Tensor) -> Moments:
    """The sums of Eq. 5 over a level of two views that fit."""
    if z_a.shape != z_b.shape or z_a.ndim < 2 or z_a.numel() == 0:
        raise ValueError(
            f"the two views have shapes {tuple(z_a.shape)} and {tuple(z_b.shape)}: "
            "both must be [B, C, *spatial] and equal"
        )
    with full_precision(z_a):
        return moments(z_a, z_b)


def _check_embeddings(emb_a: Tensor, emb_b: Tensor, labels_a: Tensor, labels_b: Tensor, temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}: it must be above 0")
    if emb_a.ndim != 2 or emb_b.ndim != 2 or emb_a.shape[1] != emb_b.shape[1]:
        raise ValueError(
            f"embeddings have shapes {tuple(emb_a.shape)} and {tuple(emb_b.shape)}: give [n, C] and [m, C]"
        )
    for emb, labels in ((emb_a, labels_a), (emb_b, labels_b)):
        if labels.shape != emb.shape[:1]:
            raise ValueError(f"labels have shape {tuple(labels.shape)} for {len(emb)} embeddings: give one a row")
