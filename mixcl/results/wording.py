"""What things are called in tables, figures and sentences, and numbers as they show them."""

import math

import pandas as pd

from mixcl.results.formats import MISSING
from mixcl.results.inference import FEWEST, LEVEL
from mixcl.results.paper import TITLES
from mixcl.results.statistics import LEARNED
from mixcl.run.jobs import FULL, SCRATCH, arm_and_seed

ARM_TITLES = {SCRATCH: "from scratch", FULL: "MixCL"}
"""What the two arms of Table 1 are called wherever they are shown; other arms go by their own names."""
NAMES = {"dice": "Dice", "hd95_mm": "HD95, mm", "surface_dice": "surface Dice"}
DIGITS = {"dice": 4, "hd95_mm": 2, "surface_dice": 4}
PHANTOM = "These are phantoms, not patients: the numbers must not be compared with the paper's."
INTERVAL = (
    "The 95 % interval and p are of the mean over pairs, with random effects of folds, which share test scans, and of "
    "seeds, which share a pre-training (mixcl.results.inference): they tell how it would vary with other scans and "
    "other pre-trainings. Where it says one pre-training (or one fold), the interval does not contain how another one "
    "would have turned out."
)
FIGURES = {
    "table1": "Dice against the labelled share",
    "table2": "Ablation: difference to training from scratch",
    "effects": "What matters: every arm against another",
    "map": "The map of the gain",
    "arms": "What networks start from, at the map's operating points",
    "figure1": "Figure 1: one sample through the objective",
    "figure2": "Figure 2: its parts",
    "figure3": "Figure 3: what the networks drew",
    "organs": "Organ by organ",
    "diagnostics": "Pre-trainings side by side: what their features are like",
    "map_diagnostics": "What the features of the pre-trainings are like",
}
KINDS = {"losses": "losses", "diagnostics": "what its features are like"}
NO_P = (
    f"No p is given for fewer than {FEWEST} pairs, which could not reach {LEVEL:g} even if all of them agreed "
    f"(2^(1 - n), by their signs), nor where both arms have a mean Dice below {LEARNED:g}: these have learned nothing."
)
ORGANS = (
    "n: case and seed pairs that have the organ; missed: those in which nothing was found, or which lost it when they "
    "were prepared (Dice and surface Dice 0, no HD95); worst fold: the lowest mean Dice of a fold; invented: pairs "
    "without the organ in which it was found; Diff.: mean difference in Dice over the pairs that both arms have."
)


def title(task: str) -> str:
    """A task as the paper calls it, or by its own name."""
    return TITLES.get(task, task)


def share_title(task: str, percent: float) -> str:
    """A task and a share of its labels, as tables and sentences name them."""
    return f"{title(task)} {percent:g} %"


def arm_title(arm: str) -> str:
    """What an arm is called in tables, figures and sentences.

    >>> arm_title("mixcl"), arm_title("id-label")
    ('MixCL', 'id-label')
    """
    return ARM_TITLES.get(arm, arm)


def in_words(arm: str) -> str:
    """What an arm is called inside a sentence.

    >>> in_words("scratch"), in_words("mixcl")
    ('training from scratch', 'MixCL')
    """
    return f"training {arm_title(arm)}" if arm == SCRATCH else arm_title(arm)


def job_title(job: str) -> str:
    """A pre-training by its arm and seed, or any other job by its own name.

    >>> job_title("pretrain"), job_title("pretrain-id-label-s2")
    ('Pre-training of MixCL', 'Pre-training of id-label, seed 2')
    """
    if (known := arm_and_seed(job)) is None:
        return job
    arm, seed = known
    return f"Pre-training of {arm_title(arm)}" + (f", seed {seed}" if seed else "")


def figure_title(name: str) -> str:
    """A figure in words, by the name of its file.

    >>> figure_title("pretrain-id_losses"), figure_title("my_own")
    ('Pre-training of id: losses', 'My own')
    """
    job, _, kind = name.rpartition("_")
    if name in FIGURES or kind not in KINDS:
        return FIGURES.get(name, name.replace("_", " ").capitalize())
    return f"{job_title(job)}: {KINDS[kind]}"


def quoted_p(p: float) -> str:
    """A p as tables show it; NaN is missing.

    >>> quoted_p(0.0312), quoted_p(0.0001), quoted_p(math.nan)
    ('p = 0.031', 'p < 0.001', '')
    """
    if math.isnan(p):
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def interval(low: float, high: float, digits: int = 4) -> str:
    """An interval of a difference as tables show it.

    >>> interval(-0.01, 0.02, 2)
    '[-0.01, +0.02]'
    """
    ends = [shown(end, digits, "+") for end in (low, high)]
    return MISSING if MISSING in ends else f"[{', '.join(ends)}]"


def count(number: int, noun: str) -> str:
    """A number and its noun.

    >>> count(1, "fold"), count(5, "fold")
    ('1 fold', '5 folds')
    """
    return f"{number} {noun}{'s' if number != 1 else ''}"


def extent(numbers: pd.Series) -> str:
    """A number, or the smallest and the largest of several.

    >>> extent(pd.Series([5, 5])), extent(pd.Series([10, 5]))
    ('5', '5 to 10')
    """
    return " to ".join(str(number) for number in dict.fromkeys((numbers.min(), numbers.max())))


def alone(folds: int, seeds: int) -> str:
    """What an interval over so many folds and seeds can not contain, to be put behind it.

    >>> alone(5, 1), alone(5, 3)
    (', one pre-training', '')
    """
    return (", one fold" if folds == 1 else "") + (", one pre-training" if seeds == 1 else "")


def pair_texts(rows: pd.DataFrame, seeds: str = "n_seeds") -> list[str]:
    """The pairs of each row, and what its interval can not contain; the column ``seeds`` counts these.

    >>> pair_texts(pd.DataFrame({"n": [15, 5], "folds": [5, 5], "n_seeds": [3, 1]}))
    ['15', '5, one pre-training']
    """
    return [f"{n}{alone(*few)}" for n, *few in rows[["n", "folds", seeds]].to_numpy()]


def interval_texts(rows: pd.DataFrame, digits: int = 4, scale: float = 1, name: str = "") -> list[str]:
    """:func:`interval` of the columns ``low`` and ``high`` of each row (``NAME_low``, ...), times ``scale``."""
    low, high = (scale * rows[f"{name}_{end}".lstrip("_")] for end in ("low", "high"))
    return [interval(*ends, digits) for ends in zip(low, high, strict=True)]


def few(rows: pd.DataFrame) -> str:
    """:func:`alone` of a table with ``folds`` and ``n_seeds`` whose rows have no more than one of these."""
    return alone(int(rows["folds"].max()), int(rows["n_seeds"].max())) if len(rows) else ""


def shown(value: float, digits: int = 4, sign: str = "") -> str:
    """A number as tables show it; NaN is missing, and a zero has no sign.

    >>> shown(0.25, 2, "+"), shown(-0.001, 2, "+")
    ('+0.25', '0.00')
    """
    text = format(value, f"{sign}z.{digits}f")
    return MISSING if math.isnan(value) else text if float(text) else text.lstrip("+")


def short(commit: str) -> str:
    """12 digits of a commit, and whether there were changes on top.

    >>> short("0123456789abcdef+changes")
    '0123456789ab+changes'
    """
    head, plus, more = commit.partition("+")
    return head[:12] + plus + more
