"""Write the small table of README.md's "Does it work?" from the committed effects of the fair test.

    python reproduce/fill_readme.py            # figures/update.sh calls it
    python reproduce/fill_readme.py --check    # exit code 1 when README.md is not up to date

Of each benchmark it shows MixCL against training from scratch with the smallest share of the labels.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- does-it-work:begin -->", "<!-- does-it-work:end -->"
BENCHMARKS = {"fair-fine": "6 mm voxels", "fair": "9 mm voxels", "fair-hard": "harder phantoms"}  # folder of figures/
TASKS = {"msd_spleen": "Spleen", "btcv": "BTCV"}
HEADER = (
    "| phantoms | labels | pairs | scratch, Dice | MixCL, Dice | points | 95 % interval |",
    "|---|---|---|---|---|---|---|",
)


def main(arguments: list[str]) -> int:
    """Fill the table, or say whether it is filled."""
    before = README.read_text(encoding="utf-8")
    table = "\n".join([BEGIN, *HEADER, *rows(), END])
    after, places = re.subn(f"{BEGIN}.*{END}", lambda _: table, before, flags=re.DOTALL)
    if places != 1:
        print(f"{README}: needs the line {BEGIN} and below it {END}, once")
        return 2
    if "--check" not in arguments:
        README.write_text(after, encoding="utf-8")
        return 0
    if after != before:
        print(f"{README}: the table is not that of figures/; run python reproduce/fill_readme.py")
    return int(after != before)


def rows() -> Iterator[str]:
    """One line of the table a benchmark and task."""
    for folder, phantoms in BENCHMARKS.items():
        with (ROOT / "figures" / folder / "effects.csv").open(encoding="utf-8", newline="") as file:
            effects = [row for row in csv.DictReader(file) if (row["arm"], row["against"]) == ("mixcl", "scratch")]
        for task, title in TASKS.items():
            own = [row for row in effects if row["task"] == task]
            if own:
                row = min(own, key=lambda row: float(row["percent"]))
                points = {name: f"{100 * float(row[name]):+z.1f}" for name in ("difference", "low", "high")}
                yield (
                    f"| {phantoms} | {title}, {row['percent']} % | {row['n']} | {float(row['reference']):.3f} "
                    f"| {float(row['mean']):.3f} | {points['difference']} | {points['low']} to {points['high']} |"
                )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
