"""Write the small table of README.md's "Does it work?" from the effects in figures/epochs, while there are any.

    python reproduce/fill_readme.py            # figures/update.sh calls it
    python reproduce/fill_readme.py --check    # exit code 1 when README.md is not up to date

It shows MixCL against training from scratch for every share of the labels.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README, EFFECTS = ROOT / "README.md", ROOT / "figures" / "epochs" / "effects.csv"
BEGIN, END = "<!-- does-it-work:begin -->", "<!-- does-it-work:end -->"
TASKS = {"msd_spleen": "Spleen", "btcv": "BTCV"}
HEADER = ("| phantoms | pairs | scratch, Dice | MixCL, Dice | points | 95 % interval |", "|---|---|---|---|---|---|")


def main(arguments: list[str]) -> int:
    """Fill the table, or say whether it is filled."""
    before = README.read_text(encoding="utf-8")
    table = "\n".join([BEGIN, *(rows() if EFFECTS.is_file() else ()), END])
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
    """The lines of the table, one a task and share."""
    with EFFECTS.open(encoding="utf-8", newline="") as file:
        effects = [row for row in csv.DictReader(file) if (row["arm"], row["against"]) == ("mixcl", "scratch")]
    yield from HEADER
    for row in sorted(effects, key=lambda row: (list(TASKS).index(row["task"]), float(row["percent"]))):
        points = {name: f"{100 * float(row[name]):+z.1f}" for name in ("difference", "low", "high")}
        yield (
            f"| {TASKS[row['task']]}, {float(row['percent']):g} % | {row['n']} | {float(row['reference']):.3f} "
            f"| {float(row['mean']):.3f} | {points['difference']} | {points['low']} to {points['high']} |"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
