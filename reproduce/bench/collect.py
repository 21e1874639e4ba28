"""What the benchmarks of one machine found, in one JSON file and one plot named after the machine.

python reproduce/bench/collect.py results/bench-gpu/parts --out reproduce/bench/results
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure


def main() -> None:
    """Read every report, write <machine>.json and <machine>.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path, help="folder of reports, NAME.json each")
    parser.add_argument("--out", type=Path, required=True, help="folder of machines")
    args = parser.parse_args()
    parts = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(args.parts.glob("[!.]*.json"))}
    if not parts:
        raise SystemExit(f"collect.py: {args.parts} holds no report; run reproduce/bench/gpu.sh first")
    machines = {machine_of(part) for part in parts.values()}
    if len(machines) > 1:
        raise SystemExit(f"collect.py: {args.parts} mixes machines ({', '.join(sorted(machines))}); use a folder each")
    (name,) = machines
    args.out.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    text = json.dumps({"machine": name, "parts": parts}, indent=1)
    (args.out / f"{stem}.json").write_text(text + "\n", encoding="utf-8")
    with matplotlib.style.context("default"):  # not as a user's matplotlibrc has it
        draw(name, parts).savefig(args.out / f"{stem}.png", dpi=120)
    print(f"collect.py: {args.out / stem}.json holds {', '.join(parts)}")


def machine_of(part: dict[str, Any]) -> str:
    """The GPU's name, or the processor's."""
    return str(part["machine"]["cpu"] if part["device"] == "CPU" else part["device"])


def draw(name: str, parts: dict[str, Any]) -> Figure:
    """All ratios of all parts as bars."""
    rows = {f"{part}: {key}": value for part, one in parts.items() for key, value in one["ratio"].items()}
    figure = Figure(figsize=(8, 1 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(list(rows), list(rows.values()))
    axes.bar_label(bars, fmt="%.3g")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("ratio of the two sides")
    axes.set_title(name)
    axes.invert_yaxis()
    return figure


if __name__ == "__main__":
    main()
