"""Write the numbers of README.md's "Does it work?" from figures/map, epochs and shares, as far as these are there.

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
README, MAP = ROOT / "README.md", ROOT / "figures" / "map"
EFFECTS = [ROOT / "figures" / name / "effects.csv" for name in ("epochs", "shares")]
BEGIN, END = "<!-- does-it-work:begin -->", "<!-- does-it-work:end -->"
TASKS = {"msd_spleen": "Spleen", "btcv": "BTCV"}
HEADER = ("| phantoms | pairs | scratch, Dice | MixCL, Dice | points | 95 % interval |", "|---|---|---|---|---|---|")


def main(arguments: list[str]) -> int:
    """Fill the table, or say whether it is filled."""
    before = README.read_text(encoding="utf-8")
    table = "\n".join([BEGIN, *(words() if MAP.is_dir() else ()), *rows(), END])
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
    """The lines of the table: of each task the smallest share and the largest, where it has most pairs."""
    found: dict[tuple[int, float], dict[str, str]] = {}
    for path in filter(Path.is_file, EFFECTS):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                cell = list(TASKS).index(row["task"]), float(row["percent"])
                if (row["arm"], row["against"]) == ("mixcl", "scratch"):
                    found[cell] = max(found.get(cell, row), row, key=lambda one: int(one["n"]))
    ends = [
        cells[at] for task in range(len(TASKS)) if (cells := sorted(c for c in found if c[0] == task)) for at in (0, -1)
    ]
    yield from HEADER if found else ()
    for row in (found[cell] for cell in dict.fromkeys(ends)):
        points = {name: f"{100 * float(row[name]):+z.1f}" for name in ("difference", "low", "high")}
        yield (
            f"| {TASKS[row['task']]}, {float(row['percent']):g} % | {row['n']} | {float(row['reference']):.3f} "
            f"| {float(row['mean']):.3f} | {points['difference']} | {points['low']} to {points['high']} |"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
