"""What Table 1 comes to, in a few plain lines: its means, and three sentences that follow from its numbers."""

from pathlib import Path

from mixcl.results.runs import read_runs
from mixcl.results.statistics import LEARNED, REFERENCE, learned
from mixcl.results.table import Table, make_table
from mixcl.results.wording import PHANTOM, title
from mixcl.run.jobs import FULL


def headline(out: Path) -> list[str]:
    """Mean Dice of Table 1 of a folder of results, a line a task, and the verdict; nothing where no pair is planned.

    Raises
    ------
    InputError
        See :func:`mixcl.results.runs.read_runs`.
    """
    table = make_table(read_runs(out), 1)
    means = table.cells.set_index(["task", "percent", "arm"])["mean"].to_dict()
    tasks: dict[str, list[str]] = {}
    for task, percent, arm in table.planned:
        pair = [means.get((task, percent, name)) for name in (REFERENCE, FULL)]
        if arm == FULL and None not in pair:
            tasks.setdefault(task, []).append(f"{percent:g} % {pair[0]:.4f} -> {pair[1]:.4f}")
    if not tasks:
        return []
    folds, seeds = (table.folds[name].nunique() for name in ("fold", "seed"))
    first = f"Table 1, mean Dice from scratch -> MixCL ({_count(folds, 'fold')}, {_count(seeds, 'pre-training')}):"
    return [first, *(f"  {title(task)}: {', '.join(cells)}" for task, cells in tasks.items()), *sentences(table)]


def sentences(table: Table) -> list[str]:
    """The verdict on Table 1: who is ahead and by how much, how sure that is, and what it may be taken for."""
    rows = table.comparisons
    rows = rows[(rows["metric"] == "dice") & (rows["arm"] == FULL) & (rows["n"] > 0)]
    rows = rows[[cell in table.planned for cell in zip(rows["task"], rows["percent"], rows["arm"], strict=True)]]
    about = [PHANTOM] if table.phantom else []
    if rows.empty:
        return ["MixCL and training from scratch cannot be compared: no pair of them was evaluated.", *about]
    best, gains = table.cells["mean"].max(), rows["difference"]
    if not learned(best):
        nothing = f"No network has learned its task (mean Dice at most {best:.4f}, below {LEARNED:g})"
        return [f"{nothing}, so comparing MixCL with training from scratch tells nothing here.", *about]
    ahead = f"MixCL is ahead of training from scratch in {(gains > 0).sum()} of {_count(len(rows), 'cell')}"
    sure = (
        f"The 95 % interval shows a gain in {(rows['low'] > 0).sum()} of them and a loss in {(rows['high'] < 0).sum()}"
    )
    if rows["low"].isna().all():
        sure = "With one pair a cell there is no interval, so nobody knows how sure this is"
    elif rows["seeds"].max() == 1:
        sure += "; with one pre-training it does not say how another would turn out"
    return [f"{ahead}; its mean gain is {gains.mean():+.4f} Dice.", f"{sure}.", *about]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
