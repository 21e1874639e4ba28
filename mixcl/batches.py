"""From the store to what a training step needs: patches without an end, and their distortion on the model's device.

Sample k of a data set depends on the seed and on k alone, so that all of them are the same for any number of workers
and ranks and can be taken up again at any step.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from mixcl import augment, sampler
from mixcl.config.settings import Experiment, FinetuneAugment
from mixcl.data import arrays
from mixcl.data.patches import read_patch
from mixcl.data.store import Case
from mixcl.errors import InputError
from mixcl.metrics import class_indices
from mixcl.model import LABEL_LEVEL, level_edges
from mixcl.run import signals


class Batch(NamedTuple):
    """What a pre-training step needs, on the model's device."""

    views: Tensor  # [3B, 1, E, E, E], all V_1, all V'_1, all V_2
    patches: Tensor  # [3B, 1, E, E, E], undistorted, that they should be restored to
    pixels: Sequence[tuple[Tensor, Tensor]]  # [B], flat indices int64 [n] into the label level's grid, in P_1 and P_2
    labels: Sequence[tuple[Tensor, Tensor]]  # [B], of these pixels
    maps: Tensor  # uint8 [2B, E, E, E], labels of all P_1, then of all P_2
    samples: Sequence[int]  # [B], number in the stream
    collections: Sequence[int]  # [B], number among the profile's


def generator(*key: int) -> torch.Generator:
    """A CPU generator that depends on ``key`` alone, such as (seed, sample, purpose)."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


class PatchDataset(Dataset[dict[str, Any]], ABC):
    """Samples: ``image`` float32 [n, 1, E, E, E] in [0, 1], ``label`` uint8 [n, E, E, E], ``sample``, its number, and
    ``collection``, the place of its collection in ``config.data.pretrain``, or -1; both int."""

    def __init__(self, cases: Sequence[Case], config: Experiment, seed: int, length: int) -> None:
        self.cases, self.config, self.seed, self.length = tuple(cases), config, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        places, edge = self.places(index), self.config.model.patch
        image = np.empty((len(places), edge, edge, edge), np.float32)
        label = np.empty(image.shape, np.uint8)
        for row, (case, origin) in enumerate(places):  # each cut straight into its row
            read_patch(case, origin, edge, self.config.data.hu, out=(image[row], label[row]))
        names, name = self.config.data.pretrain, places[0][0].collection
        numbers = {"sample": index, "collection": names.index(name) if name in names else -1}
        return {"image": torch.from_numpy(image)[:, None], "label": torch.from_numpy(label), **numbers}

    @abstractmethod
    def places(self, index: int) -> list[tuple[Case, Sequence[int]]]:
        """The scan and the first voxel [x, y, z] of each patch of a sample."""

    def _origin(self, case: Case, prob: float, g: torch.Generator) -> tuple[Case, Sequence[int]]:
        edge = self.config.model.patch
        return case, sampler.choose_origin(case.foreground(), case.shape, edge, foreground_prob=prob, generator=g)


class PairDataset(PatchDataset):
    """P_1 and P_2 (Sec. 2.3, R10, R14, R29), and ``pixels`` as :func:`draw_pixels` gives them."""

    def __init__(self, cases: Sequence[Case], config: Experiment, length: int) -> None:
        super().__init__(cases, config, config.pretrain.seed, length)
        self.collections = [case.collection for case in self.cases]

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        return item | {"pixels": draw_pixels(item["label"], index, self.config)}

    def places(self, index: int) -> list[tuple[Case, Sequence[int]]]:
        settings, g = self.config.sampler, generator(self.seed, index, 0)
        pair = sampler.choose_pair(self.collections, same_image_prob=settings.aux_same_image_prob, generator=g)
        return [self._origin(self.cases[i], settings.foreground_prob, g) for i in pair]


class SegmentationDataset(PatchDataset):
    """Single patches for fine-tuning."""

    def places(self, index: int) -> list[tuple[Case, Sequence[int]]]:
        g = generator(self.seed, index, 1)
        case = self.cases[int(torch.randint(len(self.cases), (), generator=g))]
        return [self._origin(case, self.config.finetune.foreground_prob, g)]


def scans(dataset: PatchDataset, samples: Iterable[int]) -> str:
    """The scans that samples of a data set are cut from, in words."""
    listed = list(dict.fromkeys(f"{c.collection}/{c.id}" for sample in samples for c, _ in dataset.places(sample)))
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "")


def batches(
    dataset: Dataset[dict[str, Any]], batch: int, *, start: int, steps: int, rank: int = 0, ranks: int = 1,
    workers: int = 0, pin: bool = False,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """This rank's share of the batches of steps ``start`` to ``steps`` - 1; ``batch`` counts samples over all ranks,
    which share it equally, or InputError.

    ``workers`` processes cut them ahead of time, and one that ended is told; ``pin`` puts them where a GPU can fetch
    them without waiting.
    """
    own = share(batch, ranks)
    first = (range(step * batch + rank * own, step * batch + (rank + 1) * own) for step in range(start, steps))
    loader: DataLoader[dict[str, Any]] = DataLoader(
        dataset, batch_sampler=[list(indices) for indices in first], num_workers=workers, pin_memory=pin,
        collate_fn=collate, worker_init_fn=signals.in_worker,
    )  # fmt: skip
    try:
        yield from loader
    except InputError as error:  # with what torch adds to that of another process
        raise InputError(str(error).rpartition("InputError: ")[2].strip(), error.kind) from None
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        lost = "a process that cuts patches was ended, most likely by the system for want of memory; lower run.workers"
        raise InputError(arrays.cut() or lost, "machine") from None


def share(batch: int, ranks: int) -> int:
    """The samples of a batch that each rank has; InputError where they are not equally many."""
    if batch % ranks:
        raise InputError(f"a batch of {batch} cannot be shared by {ranks} processes; make it a multiple of {ranks}")
    return batch // ranks


def prefetch(loader: Iterator[dict[str, Any]], device: torch.device) -> Iterator[dict[str, Any]]:
    """The same batches with their patches on the device; a GPU fetches the next one while it works on this one."""
    if device.type != "cuda":
        yield from loader
        return
    side, now = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    waiting: dict[str, Any] | None = None
    for raw in itertools.chain(loader, [None]):
        if waiting is not None:
            now.wait_stream(side)
        ready = waiting
        if raw is not None:
            with torch.cuda.stream(side):
                waiting = raw | {key: raw[key].to(device, non_blocking=True) for key in ("image", "label")}
        if ready is not None:
            for key in ("image", "label"):
                ready[key].record_stream(now)
            yield ready


def draw_pixels(label: Tensor, sample: int, config: Experiment) -> list[tuple[Tensor, Tensor]]:
    """The pixels of P_1 and P_2 that Eq. 6 compares, drawn on the label level's grid after the spatial step (R12, R13).

    For each of the label maps as cut, uint8 [2, E, E, E], flat indices into the grid and their labels, int64 [n].  The
    sample's number in the stream and ``config.pretrain.seed`` decide the draw, on a processor, whatever the model's
    device, so that a sample has the same pixels everywhere.
    """
    seed, settings, drawn = config.pretrain.seed, config.sampler, []
    at = _at(label.shape[-1], level_edges(config.model)[LABEL_LEVEL])
    for which, patch in enumerate(label):
        grid = augment.spatial_labels(patch, at, config.views, generator(seed, sample, 2 + which))  # [e, e, e]
        indices = sampler.sample_pixels(
            grid, settings.budget, mu=settings.mu, eps=settings.eps, generator=generator(seed, sample, 7 + which)
        )
        drawn.append((indices, grid.flatten()[indices].long()))
    return drawn


def pretraining_batch(raw: dict[str, Any], config: Experiment, device: torch.device) -> Batch:
    """Distort P_1 and P_2 of a collated batch of :class:`PairDataset` on the device, in the order of R11."""
    seed, samples = config.pretrain.seed, raw["sample"].tolist()
    image = raw["image"].to(device, non_blocking=True).transpose(0, 1).flatten(0, 1)  # all P_1, then all P_2
    label = raw["label"].to(device, non_blocking=True).transpose(0, 1).flatten(0, 1)
    image, label = augment.spatial(
        image, label, config.views, [generator(seed, k, 2 + which) for which in (0, 1) for k in samples]
    )
    first, second = image.split(len(samples))
    patches = torch.cat([first, first, second])  # [3B, 1, E, E, E]
    views = augment.views(
        patches, config.views, [generator(seed, k, 4 + which) for which in (0, 1, 2) for k in samples]
    )
    moved = [[[part.to(device, non_blocking=True) for part in patch] for patch in sample] for sample in raw["pixels"]]
    pixels, labels = ([(first[part], second[part]) for first, second in moved] for part in (0, 1))
    return Batch(views, patches, pixels, labels, label, samples, raw["collection"].tolist())


def finetuning_batch(
    raw: dict[str, Tensor], settings: FinetuneAugment, seed: int, values: Iterable[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Distort a collated batch of :class:`SegmentationDataset`: image and class index, both [B, 1, E, E, E].

    ``values`` are the label values of the task; class k is the k-th smallest of them, 0 the background; UNKNOWN stays.
    """
    image = raw["image"].to(device, non_blocking=True).flatten(0, 1)  # [B, 1, E, E, E]
    label = raw["label"].to(device, non_blocking=True).flatten(0, 1)  # [B, E, E, E]
    generators = [generator(seed, k, 9) for k in raw["sample"].tolist()]
    image, label = augment.finetune(image, label, settings, generators)
    return image, class_indices(label, values)[:, None]


def coarse(labels: Tensor, edge: int) -> Tensor:
    """Labels [B, E, E, E] on a coarser grid [B, edge, edge, edge] by the nearest voxel, no mixing (R12)."""
    at = _at(labels.shape[-1], edge)
    return labels[:, at, at, at]


def _at(patch: int, edge: int) -> slice:
    """The voxels of an axis that stand for the coarser grid's."""
    stride = patch // edge
    return slice(stride // 2, None, stride)


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Items in one batch; pixels, of which each sample has its own number, stay in a list."""
    stacked: dict[str, Any] = default_collate([{k: v for k, v in item.items() if k != "pixels"} for item in items])
    return stacked | ({"pixels": [item["pixels"] for item in items]} if "pixels" in items[0] else {})
