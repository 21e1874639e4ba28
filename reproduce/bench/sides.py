"""What benchmarks share: sides timed in turn, what autograd keeps, what machine it was, one report."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixcl.run.record import commit

clock = time.perf_counter


def arguments(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """The options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help="timings of each side, taken in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--processor", action="store_true", help="processor seconds of sides timed in turn, for a busy machine"
    )
    parser.add_argument("--out", help="JSON file to write")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options given, with so many threads and the clock set."""
    global clock
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.processor else time.perf_counter
    return args


def seconds(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time every side ``repeats`` times, in turn, after one call to warm up."""
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


def medians(times: Mapping[str, Sequence[float]]) -> str:
    """The median of each side in words."""
    return ", ".join(f"{name} {1e3 * statistics.median(spent):.2f} ms" for name, spent in times.items())


def saved_bytes(forward: Callable[[], Tensor], own: Iterable[Tensor] = ()) -> int:
    """Bytes that autograd keeps between forward and backward pass, each storage once, ``own`` left out."""
    mine = {tensor.untyped_storage()._cdata for tensor in own}  # a fake tensor has no address
    kept: dict[int, torch.UntypedStorage] = {}  # itself, lest another one takes its number

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in mine:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    total = sum(storage.nbytes() for storage in kept.values())
    result.backward()
    return total


def report(
    benchmark: str, args: argparse.Namespace, ratios: Mapping[str, float], *,
    draw: Callable[[Any], None] | None = None, **found: object,
) -> None:  # fmt: skip
    """Print one ``ratio NAME VALUE`` a comparison; when asked, write everything as JSON and a plot beside it.

    ``draw`` fills the plot's axes; without it the ratios are drawn as bars.
    """
    everything = {
        "benchmark": benchmark,
        "machine": machine(args.threads),
        "repeats": args.repeats,
        "clock": clock.__name__,
        **found,
    }
    if args.out:
        text = json.dumps({**everything, "ratio": dict(ratios)}, indent=1)
        Path(args.out).write_text(text + "\n", encoding="utf-8")
        where = found.get("device", "CPU")
        title = f"{benchmark}, {_processor() if where == 'CPU' else where}"
        plot(Path(args.out).with_suffix(".png"), title, ratios, draw)
    for name, value in ratios.items():
        print(f"ratio {name} {value:.4g}")


def plot(path: Path, title: str, ratios: Mapping[str, float], draw: Callable[[Any], None] | None) -> None:
    """Write a plot of what ``draw`` draws, or of the ratios as bars."""
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context("default"):  # not as a user's matplotlibrc has it
        figure = Figure(figsize=(6, 4 if draw else max(4, 1 + 0.3 * len(ratios))), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, fontsize=9)
        if draw:
            draw(axes)
        else:
            bars(axes, ratios, "ratio of the two sides")
            axes.axvline(1, color="black", linewidth=0.8)
        figure.savefig(path, dpi=120)


def bars(axes: Any, values: Mapping[str, float], label: str) -> None:
    """A bar for each value with its number, on a logarithmic axis."""
    axes.bar_label(axes.barh(list(values), list(values.values())), fmt="%.3g")
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.invert_yaxis()


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
