"""What a run comes to, in a few plain lines: the means of Table 1, and the sentences of its page."""

from pathlib import Path

from mixcl.results.findings import findings
from mixcl.results.runs import read_runs
from mixcl.results.statistics import REFERENCE
from mixcl.results.table import make_table
from mixcl.results.wording import count, title
from mixcl.run.jobs import FULL


def headline(out: Path) -> list[str]:
    """Mean Dice of Table 1 of a folder of results, a line a task, and what the run says; nothing without a pair.

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
    first = f"Table 1, mean Dice from scratch -> MixCL ({count(folds, 'fold')}, {count(seeds, 'pre-training')}):"
    return [first, *(f"  {title(task)}: {', '.join(cells)}" for task, cells in tasks.items()), *findings(out)]
