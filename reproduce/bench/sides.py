"""What benchmarks share: sides timed in turn, what autograd keeps, what machine it was, one report."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixcl.run.record import commit


def arguments(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """The options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help="timings of each side, taken in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", help="JSON file to write")
    return parser


def seconds(
    sides: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Time every side ``repeats`` times by ``clock``, in turn, after one call to warm up."""
    for side in sides.values():
        side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            start = clock()
            side()
            times[name].append(clock() - start)
    return times


def times_faster(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over the turns of how many times longer ``slow`` took."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def saved_bytes(forward: Callable[[], Tensor], own: Sequence[Tensor] = ()) -> int:
    """Bytes that autograd keeps between forward and backward pass, each storage once, ``own`` left out."""
    mine = {tensor.untyped_storage().data_ptr() for tensor in own}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in mine:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    total = sum(kept.values())
    result.backward()
    return total


def report(
    benchmark: str, args: argparse.Namespace, ratios: Mapping[str, float], *,
    draw: Callable[[Any], None] | None = None, **found: object,
) -> None:  # fmt: skip
    """Print one ``ratio NAME VALUE`` a comparison; when asked, write everything as JSON and a plot beside it.

    ``draw`` fills the plot's axes; without it the ratios are drawn as bars.
    """
    everything = {"benchmark": benchmark, "machine": machine(args.threads), "repeats": args.repeats, **found}
    if args.out:
        text = json.dumps({**everything, "ratio": dict(ratios)}, indent=1)
        Path(args.out).write_text(text + "\n", encoding="utf-8")
        where = found.get("device", "CPU")
        plot(
            Path(args.out).with_suffix(".png"),
            f"{benchmark}, {_processor() if where == 'CPU' else where}",
            ratios,
            draw,
        )
    for name, value in ratios.items():
        print(f"ratio {name} {value:.4g}")


def plot(path: Path, title: str, ratios: Mapping[str, float], draw: Callable[[Any], None] | None) -> None:
    """Write a plot of what ``draw`` draws, or of the ratios."""
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context("default"):  # not as a user's matplotlibrc has it
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, fontsize=9)
        if draw:
            draw(axes)
        else:
            bars = axes.barh(list(ratios), list(ratios.values()))
            axes.bar_label(bars, fmt="%.3g")
            axes.axvline(1, color="black", linewidth=0.8)
            axes.set_xlabel("ratio of the two sides")
            axes.invert_yaxis()
        figure.savefig(path, dpi=120)


def machine(threads: int) -> dict[str, object]:
    """Name, processor, threads, versions and commit."""
    return {
        "name": platform.node(),
        "cpu": _processor(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit(),
    }


def _processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
