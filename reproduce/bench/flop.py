"""FLOP and memory of a profile's steps, counted without computing them.

FLOP are those of matrix products and convolutions: of a sample of a pre-training step and of a fine-tuning step,
forward and backward, and of the forward pass of one window of a test case.

    python reproduce/bench/flop.py --profile paper --out reproduce/expected/flop-paper.json
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from sides import saved_bytes
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mixcl.batches import Batch
from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.model import LABEL_LEVEL, MixCL, level_edges, segmentation_model
from mixcl.objective import Objective

CLASSES = 13  # BTCV's organs; the output layer is a trifle


def main() -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    config = load_profile(args.profile, args.set)
    counted = {"model": config.model.model_dump(mode="json"), **count(config)}
    text = json.dumps(counted, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


def count(config: Experiment) -> dict[str, int]:
    """FLOP of ``pretrain_sample``, ``finetune_sample`` and ``window``; ``weights`` of the model that is pre-trained.

    ``saved_bytes`` is what autograd keeps of one sample of pre-training, in float32.
    """
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        objective, net = Objective(MixCL(config), config.loss), segmentation_model(config.model, CLASSES)
        patch = torch.empty(1, 1, *(config.model.patch,) * 3)
        batch = _batch(config, patch)

        def predict() -> None:
            with torch.no_grad():
                net(patch)

        return {
            "pretrain_sample": _flop(lambda: objective(batch).total.backward()),
            "finetune_sample": _flop(lambda: net(patch).sum().backward()),
            "window": _flop(predict),
            "saved_bytes": saved_bytes(lambda: objective(batch).total, objective.parameters()),
            "weights": sum(p.numel() for p in objective.parameters()),
        }


def _batch(config: Experiment, patch: Tensor) -> Batch:
    """One sample, with the budget of pixels of every class."""
    pixels = config.sampler.budget * (CLASSES + 1)
    grid = level_edges(config.model)[LABEL_LEVEL] ** 3
    indices = torch.empty(min(pixels, grid), dtype=torch.long)
    views = torch.cat([patch] * 3)
    return Batch(views, views, [(indices, indices)], [(indices, indices)], torch.empty(0), [0], [0])


def _flop(run: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counted:
        run()
    return int(counted.get_total_flops())


if __name__ == "__main__":
    main()
