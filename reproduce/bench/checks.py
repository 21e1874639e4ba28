"""What it costs to believe nothing: a patch and a pre-training step with and without their checks, and the checksums.

Each patch, 96^3 out of a scan of real size, looks at the sizes of its files, each step keeps the norm of its gradient
and each record of a training looks whether all is finite.  A scan is compared with its checksum once a run, and a
checkpoint is written with checksums.  Sides in turn in one process; give it ``--processor``, since these are small.

    python reproduce/bench/checks.py --processor --out checks.json
"""

from __future__ import annotations

import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest import mock

import sides
import torch
import training

from mixcl.batches import SegmentationDataset
from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.data import arrays
from mixcl.data.store import Case, verify
from mixcl.run import checkpoint
from mixcl.run.log import Steps, gradient_norm

PATCHES = 20  # a timing


def main() -> None:
    """Time all sides and report."""
    parser = sides.arguments(__doc__, repeats=60)
    training.options(parser, "phantom")
    args = sides.parsed(parser)
    with tempfile.TemporaryDirectory() as new:
        config, (whole, cases) = training.experiment(args), training.cases(load_profile("paper"), Path(new), 1)
        times: dict[str, list[float]] = {}
        for pair in (_patches(whole, cases), _steps(config, args.batch), _checkpoints(config, Path(new))):
            # a pair by itself: after a step, patches come from colder memory, and the first side would pay for it
            times |= sides.seconds(pair, args.repeats)
        megabytes, once = _verified(cases)
    ratios = {
        f"checks-{name}": sides.times_faster(times[f"{name}, checked"], times[f"{name}, bare"])
        for name in ("patch", "step", "checkpoint")
    }
    print(sides.medians(times))
    print(f"a scan's checksums: {1e3 * once:.2f} ms a MB, once a run")
    sides.report("checks", args, ratios, **training.told(args, config), seconds=times, megabytes=megabytes)


def _patches(config: Experiment, cases: list[Case]) -> dict[str, partial[None]]:
    """Patches as they are cut, and from maps that nobody looks at."""

    def several(bare: bool) -> None:
        stream = SegmentationDataset(cases, config, 0, PATCHES)
        with mock.patch.object(arrays, "array", arrays._map) if bare else nullcontext():
            for index in range(PATCHES):
                stream[index]

    return {"patch, checked": partial(several, False), "patch, bare": partial(several, True)}


def _steps(config: Experiment, batch: int) -> dict[str, partial[None]]:
    """A training step, and one that keeps nothing of itself."""
    step, raw = training.Step(config, torch.device("cpu"), "no"), training.raw(config, batch, torch.device("cpu"))
    steps = [Steps()]

    def one(checked: bool) -> None:
        loss = step.forward(raw)
        loss.backward()
        if checked:
            steps[0].add(1, [0], {"total": loss}, gradient_norm(step.optimizer, None))
            if len(steps[0].entries) == config.pretrain.log_every:
                steps[0].check("bench", str)
                steps[0] = Steps()
        step.optimizer.step()
        step.optimizer.zero_grad(set_to_none=True)

    return {"step, checked": partial(one, True), "step, bare": partial(one, False)}


def _checkpoints(config: Experiment, work: Path) -> dict[str, partial[None]]:
    """A checkpoint, and one without checksums and without waiting for the disk."""
    step = training.Step(config, torch.device("cpu"), "no")
    step(training.raw(config, 1, torch.device("cpu")))
    numbers = iter(range(10**6))

    def save(checked: bool) -> None:
        with mock.patch.object(checkpoint, "sha256", checkpoint.sha256 if checked else str):
            checkpoint.save(work, next(numbers), step.objective, step.optimizer, {})

    return {"checkpoint, checked": partial(save, True), "checkpoint, bare": partial(save, False)}


def _verified(cases: list[Case]) -> tuple[float, float]:
    """MB of all scans, and seconds of processor that comparing one MB takes."""
    arrays._VERIFIED.clear()
    megabytes = sum((case.path / f"{kind}.npy").stat().st_size for case in cases for kind in ("image", "label")) / 1e6
    start = time.process_time()
    verify(cases)
    return megabytes, (time.process_time() - start) / megabytes


if __name__ == "__main__":
    main()
