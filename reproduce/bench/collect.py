"""What the benchmarks of one machine found, in one JSON file and one plot named after the machine.

python reproduce/bench/collect.py results/bench-gpu/parts --out reproduce/bench/results
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from sides import plot


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
    ratios = {f"{part}: {key}": value for part, report in parts.items() for key, value in report["ratio"].items()}
    plot(args.out / f"{stem}.png", name, ratios, None)
    print(f"collect.py: {args.out / stem}.json holds {', '.join(parts)}")


def machine_of(part: dict[str, Any]) -> str:
    """The GPU's name, or the processor's."""
    return str(part["machine"]["cpu"] if part["device"] == "CPU" else part["device"])


if __name__ == "__main__":
    main()
