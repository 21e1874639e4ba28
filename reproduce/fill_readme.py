"""Write the numbers of README.md's "Does it work?" from figures/map and figures/epochs, as far as these are there.

    python reproduce/fill_readme.py            # figures/update.sh calls it
    python reproduce/fill_readme.py --check    # exit code 1 when README.md is not up to date

What the map says in words, and a table of MixCL against training from scratch with the fewest labels and with all.
"""

from __future__ import annotations

import math
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mixcl.results import claims, gains
from mixcl.results.paper import TITLES
from mixcl.results.runs import rank
from mixcl.results.wording import alone, title
from mixcl.spreadsheet import read_csv

ROOT = Path(__file__).resolve().parents[1]
README, MAP, EFFECTS = ROOT / "README.md", ROOT / "figures/map/map.csv", ROOT / "figures/epochs/effects.csv"
BEGIN, END = "<!-- does-it-work:begin -->", "<!-- does-it-work:end -->"
HEADER = "| [Table 1 by epochs](figures/epochs) | pairs | scratch | MixCL | points | 95 % | Holm | claim |"


def main(arguments: list[str]) -> int:
    """Fill the table, or say whether it is filled."""
    before = README.read_text(encoding="utf-8")
    table = "\n".join([BEGIN, *words(), *rows(), END])
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
    if MAP.is_file():
        for line in gains.sentences(read_csv(MAP)):
            yield from textwrap.wrap(line, 100, break_on_hyphens=False)
        yield ""


def rows() -> Iterator[str]:
    """The lines of the table: of each task the smallest share and the largest."""
    if not EFFECTS.is_file():
        return
    yield from (HEADER, re.sub("[^|]+", "---", HEADER))
    found = read_csv(EFFECTS, ("seeds",)).query("arm == 'mixcl' and against == 'scratch'")
    ends = found.groupby("task")["percent"].transform
    shown = found[(found["percent"] == ends("min")) | (found["percent"] == ends("max"))].to_dict("records")
    for row in sorted(shown, key=lambda row: (rank(row["task"], TITLES), row["percent"])):
        points, low, high = (f"{100 * row[name]:+z.1f}" for name in ("difference", "low", "high"))
        yield (
            f"| {title(row['task'])}, {row['percent']:g} % | {row['n']}{alone(row['folds'], row['n_seeds'])} "
            f"| {row['reference']:.3f} | {row['mean']:.3f} | {points} | {low} to {high} | {row['verdict']} "
            f"| {_claim(row)} |"
        )


def _claim(row: Mapping[Any, Any]) -> str:
    """What is claimed of the gain, and what its interval says of that."""
    least = claims.least(row["task"], row["percent"])
    told = claims.verdict(row["low"], row["high"], least)
    return "none" if math.isnan(least) else f"≥ {100 * least:+.1f}: {told}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
