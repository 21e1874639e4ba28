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

from mixcl.results import gains, paper
from mixcl.results.runs import rank
from mixcl.results.wording import alone, extent, interval, title
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
    """What the map says of MixCL: at how many of its points the gain is told from 0, and where it is least and most."""
    if not MAP.is_file():
        return
    table = read_csv(MAP).query("start == 'mixcl'")
    (arm,) = gains.summary(table).to_dict("records")
    ends = [
        f"{100 * row['difference']:+.1f} points {interval(100 * row['low'], 100 * row['high'], 1)} at {row['steps']} "
        f"steps and a rate of {row['rate']:g} (Dice from scratch {row['scratch']:.3f})"
        for row in gains.extremes(table).to_dict("records")
    ]
    adjusted = f"{arm['ahead_holm']} and {arm['behind_holm']} after Holm's adjustment"
    text = (
        f"{title(arm['task'])} with {arm['percent']:g} % of the labels, MixCL, {arm['points']} lengths and rates, "
        f"{extent(table['n'])} pairs each ({arm['n_seeds']} pre-trainings): ahead of training from scratch by its 95 % "
        f"interval at {arm['ahead']}, behind at {arm['behind']} "
        f"({adjusted if arm['tested'] else 'too few pairs for a test'}); from {ends[0]} to {ends[-1]}."
    )
    yield from (*textwrap.wrap(text, 100, break_on_hyphens=False), "")


def rows() -> Iterator[str]:
    """The lines of the table: of each task the smallest share, the same on other phantoms, and the largest."""
    if not EFFECTS.is_file():
        return
    shown = [(row, "") for row in measured(EFFECTS)]
    shown += [(row, ", [again]") for row in measured(AGAIN)] if AGAIN.is_file() else []
    apart = sum(row["verdict"] in ("better", "worse") for row, _ in shown)
    yield from (HEADER.format(f"{apart} apart"), re.sub("[^|]+", "---", HEADER))
    for row, which in sorted(shown, key=lambda item: (rank(item[0]["task"], paper.TITLES), item[0]["percent"])):
        points, low, high = (f"{100 * row[name]:+z.1f}" for name in ("difference", "low", "high"))
        yield (
            f"| {title(row['task'])}, {row['percent']:g} %{which} | {row['n']}{alone(row['folds'], row['n_seeds'])} "
            f"| {row['reference']:.3f} | {row['mean']:.3f} | {points} | {low} to {high} "
            f"| {_claim(row)} |"
        )


def measured(effects: Path) -> list[dict[Any, Any]]:
    """The rows of MixCL against training from scratch with each task's smallest share and its largest."""
    ours = read_csv(effects, ("seeds",)).query("arm == 'mixcl' and against == 'scratch'")
    ends = ours.groupby("task")["percent"].transform
    return ours[(ours["percent"] == ends("min")) | (ours["percent"] == ends("max"))].to_dict("records")


def _claim(row: Mapping[Any, Any]) -> str:
    """What is claimed of the gain, and what its interval says of that."""
    least = paper.claimed_gain(row["task"], row["percent"])
    verdict = paper.claim_verdict(row["low"], row["high"], least)
    return "none" if math.isnan(least) else f"≥ {100 * least:+.1f}: {verdict}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
