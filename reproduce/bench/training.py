"""Our pre-training step as benchmarks run it, random patches to feed it, and scans to cut patches from."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import scans
import torch
from torch import Tensor, nn

from mixcl import batches
from mixcl.config import load_profile, overlaid
from mixcl.config.settings import Experiment
from mixcl.data.prepare.run import prepare
from mixcl.data.store import Case, Store
from mixcl.model import MixCL, seeded
from mixcl.objective import Objective
from mixcl.run.device import faster, keep_memory


def options(parser: argparse.ArgumentParser, profile: str = "paper") -> None:
    """What decides a step: profile, settings, batch, device and precision."""
    parser.add_argument("--profile", default=profile, help="model and losses; paper is UNETR at 96^3")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--batch", type=int, default=1, help="samples a step, three views each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")


def experiment(args: argparse.Namespace, *more: str) -> Experiment:
    """The profile with the settings given, and ``more`` after them."""
    return load_profile(args.profile, overlaid(args.set, more))


class Step:
    """Distort, Eq. 2, backward, AdamW: what the training loop does with a batch that has been read."""

    def __init__(self, config: Experiment, device: torch.device, precision: str) -> None:
        if device.type == "cpu":
            keep_memory()
        with seeded(0):
            self.objective = Objective(MixCL(config), config.loss).to(device)
        faster(self.objective, config.run)
        self.config, self.device, self.precision = config, device, precision
        self.optimizer = optimizer(self.objective)

    def forward(self, raw: dict[str, Any]) -> Tensor:
        """The loss of a batch as it comes from the loader."""
        batch = batches.pretraining_batch(raw, self.config, self.device)
        with autocast(self.device, self.precision):
            total: Tensor = self.objective(batch).total
        return total

    def __call__(self, raw: dict[str, Any]) -> None:
        self.forward(raw).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 where it is asked for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def optimizer(module: nn.Module) -> torch.optim.Optimizer:
    """AdamW as the training loop has it."""
    return torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4, fused=True)


def raw(config: Experiment, batch: int, device: torch.device, classes: int = 13) -> dict[str, Any]:
    """Smooth random patches whose label maps hold the background and ``classes`` blobs.

    For a GPU all is pinned, as worker processes do it.
    """
    generator, edge = torch.Generator().manual_seed(0), config.model.patch
    control = torch.randn(2 * batch, classes + 1, 6, 6, 6, generator=generator)
    fields = nn.functional.interpolate(control, size=(edge,) * 3, mode="trilinear")
    label = fields.argmax(1).to(torch.uint8).unflatten(0, (batch, 2))
    image = fields[:, :1].sigmoid().unflatten(0, (batch, 2)).contiguous()
    made = {"image": image, "label": label, "sample": torch.arange(batch), "collection": torch.zeros(batch)}
    pixels = [batches.draw_pixels(pair, sample, config) for sample, pair in enumerate(label)]
    if device.type == "cuda":
        made = {key: value.pin_memory() for key, value in made.items()}
        pixels = [[tuple(part.pin_memory() for part in patch) for patch in pair] for pair in pixels]
    return made | {"pixels": pixels}


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def waited(run: Callable[..., object], device: torch.device) -> Callable[..., None]:
    """The same, waited for."""

    def whole(*given: Any) -> None:
        run(*given)
        wait(device)

    return whole


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Bytes that a GPU held at most; 0 on a CPU, which does not tell."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    waited(run, device)()
    return torch.cuda.max_memory_allocated(device)


def loader(
    cases: list[Case], config: Experiment, batch: int, steps: int, workers: int, device: torch.device
) -> Iterator[dict[str, Any]]:
    """Batches as a training reads them, on the device."""
    pairs = batches.PairDataset(cases, config, 1 << 20)
    cut = batches.batches(pairs, batch, start=0, steps=steps, workers=workers, pin=device.type == "cuda")
    return batches.prefetch(cut, device)


def pace(loaded: Iterable[Any], use: Callable[[Any], object], device: torch.device) -> float:
    """Mean seconds by the wall from one batch to the next, the first two left out."""
    started, count = 0.0, 0
    for count, batch in enumerate(loaded, start=1):
        use(batch)
        if count == 2:
            wait(device)
            started = time.perf_counter()
    wait(device)
    return (time.perf_counter() - started) / (count - 2)


def told(args: argparse.Namespace, config: Experiment) -> Mapping[str, object]:
    """What a report says about a step."""
    device = torch.device(args.device)
    return {
        "profile": args.profile, "set": args.set, "patch": config.model.patch, "batch": args.batch,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU", "precision": args.precision,
        "channels_last": config.run.channels_last, "compile": config.run.compile,
    }  # fmt: skip


def cases(config: Experiment, work: Path, volumes: int) -> tuple[Experiment, list[Case]]:
    """Prepared scans: the profile's phantoms, or ``volumes`` of real size where it reads files."""
    if config.data.source != "phantom":
        config = config.model_copy(update={"data": scans.write(work / "raw", volumes)})
    config = config.model_copy(update={"data": config.data.model_copy(update={"store": str(work / "store")})})
    prepare(config, work, progress=False)
    store = Store(config.data.store_dir(work))
    return config, [case for name in config.data.pretrain for case in store.cases(name)]
