"""Write the numbers of README.md's "Does it work?" from figures/map and figures/epochs, as far as these are there.

    python reproduce/fill_readme.py            # figures/update.sh calls it
    python reproduce/fill_readme.py --check    # exit code 1 when README.md is not up to date

What the map says in words, and a table of MixCL against training from scratch with the fewest labels and with all.
"""

from __future__ import annotations

import csv
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from mixcl.results import gains
from mixcl.spreadsheet import read_csv

ROOT = Path(__file__).resolve().parents[1]
README, EFFECTS = ROOT / "README.md", ROOT / "figures" / "epochs" / "effects.csv"
MAP = ROOT / "figures" / "map"
BEGIN, END = "<!-- does-it-work:begin -->", "<!-- does-it-work:end -->"
TASKS = {"msd_spleen": "Spleen", "btcv": "BTCV"}
HEADER = ("| phantoms | pairs | scratch, Dice | MixCL, Dice | points | 95 % interval |", "|---|---|---|---|---|---|")


def main(arguments: list[str]) -> int:
    """Fill the table, or say whether it is filled."""
    before = README.read_text(encoding="utf-8")
    table = "\n".join([BEGIN, *(words() if MAP.is_dir() else ()), *(rows() if EFFECTS.is_file() else ()), END])
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


def words() -> Iterator[str]:
    """What the map says of MixCL."""
    for line in gains.sentences(read_csv(MAP / "map.csv")):
        yield from textwrap.wrap(line, 100, break_on_hyphens=False)
    yield ""


def rows() -> Iterator[str]:
    """The lines of the table: of each task the smallest share and the largest."""
    with EFFECTS.open(encoding="utf-8", newline="") as file:
        effects = [row for row in csv.DictReader(file) if (row["arm"], row["against"]) == ("mixcl", "scratch")]
    ordered = sorted(effects, key=lambda row: (list(TASKS).index(row["task"]), float(row["percent"])))
    shares = {task: [row for row in ordered if row["task"] == task] for task in TASKS}
    yield from HEADER
    for row in (row for rows in shares.values() for row in rows if row in (rows[0], rows[-1])):
        points = {name: f"{100 * float(row[name]):+z.1f}" for name in ("difference", "low", "high")}
        yield (
            f"| {TASKS[row['task']]}, {float(row['percent']):g} % | {row['n']} | {float(row['reference']):.3f} "
            f"| {float(row['mean']):.3f} | {points['difference']} | {points['low']} to {points['high']} |"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
