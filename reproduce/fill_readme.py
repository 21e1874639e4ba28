"""Write the numbers of the pages: "Does it work?" from figures/, what was measured from reproduce/bench and expected.

    python reproduce/fill_readme.py            # figures/update.sh calls it
    python reproduce/fill_readme.py --check    # exit code 1 when a page is not up to date

"Does it work?" is what the map says in words, and a table of MixCL against training from scratch with the fewest labels
and with all, and with the fewest on phantoms of another seed, as far as these are there; the others are in measured.py.
"""

from __future__ import annotations

import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from measured import data, main_job_step, paper_plan, plans, steps

from mixcl.results import gains, paper
from mixcl.results.runs import rank
from mixcl.results.wording import alone, count, extent, interval, title
from mixcl.spreadsheet import read_csv

ROOT = Path(__file__).resolve().parents[1]
README, MAP, EFFECTS = ROOT / "README.md", ROOT / "figures/map/map.csv", ROOT / "figures/epochs/effects.csv"
AGAIN = ROOT / "figures/replication/effects.csv"
HEADER = "| [Table 1](figures/epochs) | pairs | scratch | MixCL | points | 95 % | claim; Holm: {} |"


def main(arguments: list[str]) -> int:
    """Fill the pages, or say which is not up to date."""
    old = 0
    for name, (page, lines) in BLOCKS.items():
        before = page.read_text(encoding="utf-8")
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        block = "\n".join([begin, *lines(), end])
        after, places = re.subn(f"{begin}.*{end}", lambda _, block=block: block, before, flags=re.DOTALL)
        if places != 1:
            print(f"{page}: needs the line {begin} and below it {end}, once")
            return 2
        if "--check" not in arguments:
            page.write_text(after, encoding="utf-8")
        elif after != before:
            old = 1
            print(f"{page}: {name} is not that of the committed files; run python reproduce/fill_readme.py")
    return old


def does_it_work() -> Iterator[str]:
    """What the map says of MixCL, and the table."""
    yield from words()
    yield from rows()


def words() -> Iterator[str]:
    """What the map says of MixCL: at how many of its points the gain is told from 0, and where it is least and most."""
    if not MAP.is_file():
        return
    whole = read_csv(MAP)
    table = whole.query("start == 'mixcl'")
    if table.empty:
        return
    (arm,) = gains.summary(whole).query("start == 'mixcl'").to_dict("records")
    ends = [
        f"{100 * row['difference']:+.1f} points {interval(100 * row['low'], 100 * row['high'], 1)} at {row['steps']} "
        f"steps and a rate of {row['rate']:g} (Dice from scratch {row['scratch']:.3f})"
        for row in gains.extremes(table).to_dict("records")
    ]
    where = "one length and rate" if arm["points"] == 1 else f"{arm['points']} lengths and rates"
    adjusted = f"{arm['ahead_holm']} and {arm['behind_holm']} after Holm's adjustment"
    text = (
        f"{title(arm['task'])} with {arm['percent']:g} % of the labels, MixCL, {where}, "
        f"{extent(table['n'])} pairs each ({count(arm['n_seeds'], 'pre-training')}): ahead of training from scratch "
        f"by its 95 % interval at {arm['ahead']}, behind at {arm['behind']} "
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


BENCH, REPRODUCE = ROOT / "reproduce/bench/README.md", ROOT / "reproduce/README.md"
BLOCKS: dict[str, tuple[Path, Callable[[], Iterable[str]]]] = {
    "does-it-work": (README, does_it_work),
    "plans": (REPRODUCE, plans),
    "paper-plan": (REPRODUCE, paper_plan),
    "steps": (BENCH, steps),
    "main-job-step": (BENCH, main_job_step),
    "data": (BENCH, data),
}
"""What stands between markers of a name: on which page, and its lines."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
