"""What a computation keeps for its gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def saved_bytes(function: Callable[[], Tensor]) -> int:
    """Bytes kept between the forward and the backward pass, each storage once."""
    storages: dict[int, torch.UntypedStorage] = {}  # themselves, lest another one takes an address over

    def pack(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = function()  # its graph owns what is saved
        assert result.requires_grad
        return sum(storage.nbytes() for storage in storages.values())
