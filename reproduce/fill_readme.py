"""Write the numbers of README.md's "Does it work?" from figures/map and figures/epochs, as far as these are there.

    python reproduce/fill_readme.py            # figures/update.sh calls it
    python reproduce/fill_readme.py --check    # exit code 1 when README.md is not up to date

What the map says in words, and a table of MixCL against training from scratch with the fewest labels and with all, and
with the fewest on phantoms of another seed.
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
AGAIN = ROOT / "figures/replication/effects.csv"
BEGIN, END = "<!-- does-it-work:begin -->", "<!-- does-it-work:end -->"
HEADER = "| [Table 1](figures/epochs) | pairs | scratch | MixCL | points | 95 % | claim; Holm: {} |"


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
    """The lines of the table: of each task the smallest share, the same on other phantoms, and the largest."""
    if not EFFECTS.is_file():
        return
    shown = [(row, "") for row in measured(EFFECTS)]
    shown += [(row, ", [again]") for row in measured(AGAIN)] if AGAIN.is_file() else []
    apart = sum(row["verdict"] in ("better", "worse") for row, _ in shown)
    yield from (HEADER.format(f"{apart} apart"), re.sub("[^|]+", "---", HEADER))
    for row, which in sorted(shown, key=lambda item: (rank(item[0]["task"], TITLES), item[0]["percent"])):
        points, low, high = (f"{100 * row[name]:+z.1f}" for name in ("difference", "low", "high"))
        yield (
            f"| {title(row['task'])}, {row['percent']:g} %{which} | {row['n']}{alone(row['folds'], row['n_seeds'])} "
            f"| {row['reference']:.3f} | {row['mean']:.3f} | {points} | {low} to {high} "
            f"| {_claim(row)} |"
        )


def measured(effects: Path) -> list[dict[Any, Any]]:
    """The rows of MixCL against training from scratch with each task's smallest share and its largest."""
    found = read_csv(effects, ("seeds",)).query("arm == 'mixcl' and against == 'scratch'")
    ends = found.groupby("task")["percent"].transform
    return found[(found["percent"] == ends("min")) | (found["percent"] == ends("max"))].to_dict("records")


def _claim(row: Mapping[Any, Any]) -> str:
    """What is claimed of the gain, and what its interval says of that."""
    least = claims.least(row["task"], row["percent"])
    told = claims.verdict(row["low"], row["high"], least)
    return "none" if math.isnan(least) else f"≥ {100 * least:+.1f}: {told}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
