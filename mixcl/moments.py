"""The sums behind Eq. 5: of maps, folded through a convolution, and over ranks."""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce


class Moments(NamedTuple):
    """Sums over the M positions of Eq. 5, from which the cross-correlation follows."""

    product: Tensor  # [C, C], sum_M z_a z_b^T
    square_a: Tensor  # [C], sum_M z_a^2
    square_b: Tensor
    sum_a: Tensor  # [C], sum_M z_a
    sum_b: Tensor
    positions: Tensor  # [], M


def moments(z_a: Tensor, z_b: Tensor) -> Moments:
    """The sums over positions that Eq. 5 needs, of maps [B, C, \\*spatial]."""
    a, b = _flat(z_a), _flat(z_b)  # [B, C, M / B]
    product = _pairwise(a, b)
    square_a, square_b = a.square().sum((0, 2)), b.square().sum((0, 2))
    return Moments(product, square_a, square_b, a.sum((0, 2)), b.sum((0, 2)), a.new_full((), a.shape[0] * a.shape[2]))


def folded_moments(h_a: Tensor, h_b: Tensor, weight: Tensor, bias: Tensor) -> Moments:
    """The moments of ``z = W h + b`` from those of ``h``, so that the wide map z is never made.

    Follows from ``sum_M z z'^T = W (sum_M h h'^T) W^T + W (sum_M h) b^T + b (sum_M h')^T W^T + M b b^T``.  ``h`` [B, K,
    \\*spatial] is what the projector's last 1x1x1 convolution reads, ``weight`` [C, K] and ``bias`` [C] are the
    convolution.  Worth it where M is much larger than K.
    """
    a, b = _flat(h_a), _flat(h_b)  # [B, K, M / B]
    w, v = as_float(weight), as_float(bias)  # [C, K], [C]
    count = a.new_full((), a.shape[0] * a.shape[2])
    sum_a, sum_b = a.sum((0, 2)), b.sum((0, 2))  # [K]
    product = _fold(_pairwise(a, b), sum_a, sum_b, count, w, v)  # [C, C]
    square_a = _fold(_pairwise(a, a), sum_a, sum_a, count, w, v).diagonal()
    square_b = _fold(_pairwise(b, b), sum_b, sum_b, count, w, v).diagonal()
    return Moments(product, square_a, square_b, w @ sum_a + count * v, w @ sum_b + count * v, count)


def correlation_from_moments(m: Moments, *, center: bool = False) -> Tensor:
    """Eq. 5 from its sums; with ``center``, of the channels less their means (R4)."""
    product, square_a, square_b = m.product, m.square_a, m.square_b
    least_a = least_b = product.new_full((), torch.finfo(product.dtype).tiny)
    if center:
        noise = 16 * torch.finfo(product.dtype).eps  # what rounding leaves of a constant channel
        least_a, least_b = noise * square_a, noise * square_b
        product = product - torch.outer(m.sum_a, m.sum_b) / m.positions
        square_a = square_a - m.sum_a.square() / m.positions
        square_b = square_b - m.sum_b.square() / m.positions
    return product / _norms(square_a, least_a)[:, None] / _norms(square_b, least_b)[None, :]


def sum_over_ranks(m: Moments) -> Moments:
    """R19: the sums of Eq. 5 over the positions of every rank, so that 6 ranks x 1 equal 1 rank x 6.

    The gradient is summed over the ranks too; together with the averaging of data-parallel training this is
    the gradient of the loss of the whole batch.  Without several ranks the moments come back as they are.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return m
    flat: Tensor = all_reduce(torch.cat([part.reshape(-1) for part in m]))  # differentiable, as in-place ones are not
    parts = flat.split([part.numel() for part in m])
    return Moments(*(new.reshape(old.shape) for new, old in zip(parts, m, strict=True)))


def _flat(z: Tensor) -> Tensor:
    """[B, C, *spatial] -> [B, C, positions], at least float32."""
    return as_float(z).reshape(z.shape[0], z.shape[1], -1)


def _pairwise(a: Tensor, b: Tensor) -> Tensor:
    """Sum over samples and positions of the outer products: [B, C, N], [B, K, N] -> [C, K]."""
    # sample by sample, because the gradient of bmm in b comes transposed in memory, and all that follows crawls
    return torch.stack([x @ y.T for x, y in zip(a, b, strict=True)]).sum(0)


def _norms(squares: Tensor, least: Tensor) -> Tensor:
    """Square roots; infinite, without a gradient, where the square is not above the least that counts.

    x * rsqrt(x), because torch's sqrt is MKL's on a CPU, whose last bit depends on the processor.
    """
    alive = squares > least
    safe = torch.where(alive, squares, 1.0)
    return torch.where(alive, safe * safe.rsqrt(), torch.inf)


def _fold(product: Tensor, sum_a: Tensor, sum_b: Tensor, count: Tensor, w: Tensor, v: Tensor) -> Tensor:
    return w @ product @ w.T + torch.outer(w @ sum_a, v) + torch.outer(v, w @ sum_b) + count * torch.outer(v, v)


def as_float(x: Tensor) -> Tensor:
    """float32 for half precision; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def full_precision(like: Tensor) -> torch.autocast:
    """A context in which autocast does not lower the precision of what is computed."""
    return torch.autocast(like.device.type, enabled=False)
