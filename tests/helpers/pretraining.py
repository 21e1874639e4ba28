"""A batch of random views, pixels and labels for a small network, and what single samples of it are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mixcl.batches import Batch
from mixcl.config.settings import ModelConfig
from mixcl.model import LABEL_LEVEL, level_edges

SMALL = ModelConfig(patch=32, feature=4, hidden=24, mlp=48, heads=2)


def make_batch(config: ModelConfig, samples: int, pixels: int = 60, classes: int = 3) -> Batch:
    g = torch.Generator().manual_seed(3)
    views, patches = torch.rand(2, 3 * samples, 1, 32, 32, 32, generator=g)
    grid = level_edges(config)[LABEL_LEVEL] ** 3
    n = min(pixels, grid)
    drawn = [tuple(torch.randperm(grid, generator=g)[:n] for _ in (0, 1)) for _ in range(samples)]
    labels = [tuple(torch.randint(classes, (n,), generator=g) for _ in (0, 1)) for _ in range(samples)]
    maps = torch.zeros(2 * samples, 32, 32, 32, dtype=torch.uint8)
    return Batch(views, patches, drawn, labels, maps, range(samples), [0] * samples)  # type: ignore[arg-type]


def part(batch: Batch, own: Sequence[int]) -> Batch:
    """Some of the samples of a batch, as one of several processes has them."""
    three, two = ([view * len(batch.samples) + k for view in range(n) for k in own] for n in (3, 2))
    listed = ([values[k] for k in own] for values in (batch.pixels, batch.labels))
    collections = [batch.collections[k] for k in own]
    return Batch(batch.views[three], batch.patches[three], *listed, batch.maps[two], list(own), collections)
