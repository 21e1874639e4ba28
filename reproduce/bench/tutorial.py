"""Our pre-training, step and loader, against those of MONAI's tutorial "Self-supervised pre-training" for UNETR.

The tutorial's side is a harness of MONAI's public classes with the tutorial's settings: scans are read and resampled
for every crop, a crop is copied twice, boxes of both copies are emptied and voxels shuffled, an autoencoder over a ViT
(``--network unetr``: a whole UNETR, as ours is) restores both in two passes, and L1 times 1 + contrast is minimised by
Adam in float32.  Both sides have the same scans, patch size, samples a step, device and worker processes.  A sample is
a crop with its views: two of one crop there, three of two crops here.

``step`` is a step on a batch that is there; ``loader`` is samples a second of the loader alone; ``whole`` is a training
of some steps with its loader.  ``ours, their precision`` is ours in float32, whatever --precision says.

    python reproduce/bench/tutorial.py --batch 2 --device cuda --precision bf16 --workers 8 --out tutorial.json
    python reproduce/bench/tutorial.py --profile smoke --steps 2 --batch 2 --out tutorial.json     # small, on a CPU
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import scans
import sides
import torch
import training
from torch import Tensor
from torch.nn import functional as F

from mixcl.config.settings import Experiment
from mixcl.data.registry import collections
from mixcl.model import seeded


def main() -> None:
    """Time loaders, steps and both together, print how many times more samples a second ours takes."""
    parser = sides.arguments(__doc__, repeats=3)
    training.options(parser)
    scans.options(parser, 2, "scans of real size; a profile of phantoms has its own")
    parser.add_argument("--network", choices=("autoencoder", "unetr"), default="autoencoder")
    parser.add_argument("--steps", type=int, default=10, help="steps of a whole training, after two to warm up")
    parser.add_argument("--workers", type=int, default=0)
    args = sides.parsed(parser)
    if args.batch > 1 and args.batch % 2:
        sys.exit("tutorial.py: their loader cuts two crops a scan; give an even --batch, or 1")
    device = torch.device(args.device)
    with scans.folder_of(args) as work:
        config, cases = training.cases(training.experiment(args), work, args.volumes)
        files = _files(config, work)
        found = _measure(args, config, cases, files, device)
    rates = {name: args.batch / median(times) for name, times in found.items()}
    ratios = {
        f"tutorial-{part}": rates[f"ours, {part}"] / rates[f"theirs, {part}"] for part in ("step", "loader", "whole")
    }
    ratios["tutorial-whole-their-precision"] = rates["ours, whole, their precision"] / rates["theirs, whole"]
    for name, rate in rates.items():
        print(f"{name}: {rate:.3g} samples/s")
    sides.report(
        "tutorial", args, ratios, **training.told(args, config), network=args.network, workers=args.workers,
        samples_a_second=rates, seconds=found, scans=len(files), clock=f"{sides.clock.__name__}; loaders: wall",
        draw=partial(sides.bars, values=rates, label="samples a second"),
    )  # fmt: skip


def _measure(
    args: argparse.Namespace, config: Experiment, cases: list[Any], files: list[dict[str, str]], device: torch.device
) -> dict[str, list[float]]:
    """Seconds a step of each part of each side."""
    ours = {p: training.waited(training.Step(config, device, p), device) for p in {args.precision, "no"}}
    tutorial, steps = Tutorial(config, device, args.network), args.steps + 2
    theirs = training.waited(tutorial, device)

    def our_loader() -> Iterator[dict[str, Any]]:
        return training.loader(cases, config, args.batch, steps, args.workers, device)

    def their_loader() -> Iterator[dict[str, Tensor]]:
        return itertools.islice(tutorial.loader(files, args.batch, args.workers, steps), steps)

    raw, batch = training.raw(config, args.batch, device), next(iter(their_loader()))
    found = sides.seconds(
        {"ours, step": partial(ours[args.precision], raw), "theirs, step": partial(theirs, batch)}, args.repeats
    )
    for name, loaded, use in (
        ("ours, loader", our_loader, lambda _: None),
        ("theirs, loader", their_loader, lambda _: None),
        ("ours, whole", our_loader, ours[args.precision]),
        ("theirs, whole", their_loader, theirs),
        ("ours, whole, their precision", our_loader, ours["no"]),
    ):
        found[name] = [training.pace(loaded(), use, device)]
    return found


class Tutorial:
    """The tutorial's training step and loader."""

    def __init__(self, config: Experiment, device: torch.device, network: str) -> None:
        from monai.losses import ContrastiveLoss
        from monai.networks.nets import UNETR, ViTAutoEnc

        size = config.model
        same = {"img_size": (size.patch,) * 3, "hidden_size": size.hidden, "mlp_dim": size.mlp, "num_heads": size.heads}
        with seeded(0):
            if network == "unetr":
                net = UNETR(in_channels=1, out_channels=1, feature_size=size.feature, **same)
            else:
                net = ViTAutoEnc(in_channels=1, patch_size=(16,) * 3, **same)
        self.net, self.config, self.device = net.to(device), config, device
        self.contrast = ContrastiveLoss(temperature=0.05)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-4)

    def __call__(self, batch: dict[str, Tensor]) -> None:
        first, second, target = (batch[key].to(self.device) for key in ("image", "image_2", "gt_image"))
        self.optimizer.zero_grad()
        restored = [self._restored(view) for view in (first, second)]
        recon = F.l1_loss(restored[0], target)
        loss = recon + self.contrast(restored[0].flatten(1), restored[1].flatten(1)) * recon
        loss.backward()
        self.optimizer.step()
        loss.item()  # the tutorial notes it at every step

    def _restored(self, view: Tensor) -> Tensor:
        """The restored crop as a plain tensor; the autoencoder gives its hidden states as well."""
        given = self.net(view.as_tensor() if hasattr(view, "as_tensor") else view)
        result: Tensor = given[0] if isinstance(given, tuple) else given
        return result

    def loader(self, files: list[dict[str, str]], batch: int, workers: int, steps: int) -> Iterator[dict[str, Tensor]]:
        """Batches of ``batch`` samples, two crops a scan as in the tutorial."""
        from monai.data import DataLoader, Dataset

        crops = min(2, batch)
        listed = [files[k % len(files)] for k in range(steps * batch // crops + 1)]
        data = Dataset(listed, self.transforms(crops))
        yield from DataLoader(data, batch_size=batch // crops, num_workers=workers, pin_memory=True)

    def transforms(self, crops: int) -> Callable[[dict[str, str]], Any]:
        """The tutorial's transforms with the profile's spacing and window."""
        from monai import transforms as mt

        edge, data = self.config.model.patch, self.config.data
        return mt.Compose([
            mt.LoadImaged("image"),
            mt.EnsureChannelFirstd("image"),
            mt.Spacingd("image", pixdim=data.spacing, mode="bilinear"),
            mt.ScaleIntensityRanged("image", a_min=data.hu[0], a_max=data.hu[1], b_min=0.0, b_max=1.0, clip=True),
            mt.CropForegroundd("image", source_key="image", allow_smaller=True),
            mt.SpatialPadd("image", spatial_size=(edge,) * 3),
            mt.RandSpatialCropSamplesd("image", roi_size=(edge,) * 3, random_size=False, num_samples=crops),
            mt.CopyItemsd("image", times=2, names=["gt_image", "image_2"]),
            *(step for key in ("image", "image_2") for step in _spoil(key, edge)),
        ])  # fmt: skip


def _spoil(key: str, edge: int) -> list[Any]:
    """Boxes emptied, or all but boxes, then voxels shuffled in others; sizes are the tutorial's at 96 voxels."""
    from monai import transforms as mt

    five, eight, twenty, half, most = (max(1, edge * n // 96) for n in (5, 8, 20, 32, 64))
    boxes: dict[str, Any] = {"keys": key, "holes": 6, "prob": 1.0}
    return [
        mt.OneOf([
            mt.RandCoarseDropoutd(spatial_size=five, dropout_holes=True, max_spatial_size=half, **boxes),
            mt.RandCoarseDropoutd(spatial_size=twenty, dropout_holes=False, max_spatial_size=most, **boxes),
        ]),
        mt.RandCoarseShuffled(key, holes=10, spatial_size=eight, prob=0.8),
    ]  # fmt: skip


def _files(config: Experiment, work: Path) -> list[dict[str, str]]:
    """The images of the pre-training collections, as the tutorial lists them."""
    root, sets = config.data.raw_dir(work), collections(config.data)
    images = [
        path for name in config.data.pretrain for path in sorted((root / sets[name].root).rglob("imagesTr/*.nii*"))
    ]
    return [{"image": str(path)} for path in images if not path.name.startswith(".")]


if __name__ == "__main__":
    main()
