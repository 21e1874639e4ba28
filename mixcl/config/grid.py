"""Settings of the jobs: which shares, folds, seeds and arms Tables 1 and 2 and the comparisons have."""

import re
import typing

from pydantic import Field, model_validator

from mixcl.config.frozen import Frozen, Seed, check_names, check_once

MOST_FOLDS = 1000
VARIED = ("model", "loss", "sampler", "views", "pretrain", "finetune")  # sections that a variant may change


class GridConfig(Frozen):
    """The jobs of Tables 1 and 2: which fractions, folds, seeds and variants of the pre-training are run."""

    percents: dict[str, tuple[float, ...]] = Field(
        {"msd_spleen": (5.0, 15.0, 50.0, 100.0), "btcv": (15.0, 50.0, 100.0)},
        description="Table 1: percent of the training part, by fine-tuning collection",
    )
    ablation: dict[str, float] = Field(
        {"msd_spleen": 30.0, "btcv": 100.0},
        description="Table 2: percent of the training part, by fine-tuning collection",
    )
    variants: dict[str, tuple[str, ...]] = Field(
        {"id": ("loss.alpha=0", "loss.beta=0"), "id-label": ("loss.beta=0",), "id-recon": ("loss.alpha=0",)},
        description="Table 2: arms beside scratch and mixcl, each with the settings that make it",
    )
    n_folds: int = Field(5, ge=2, le=MOST_FOLDS)
    folds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1, description="those that are run; all of n_folds")
    seeds: tuple[Seed, ...] = Field(
        (0,), min_length=1, description="each is one pre-training an arm and one fine-tuning a fold"
    )
    compare: tuple[tuple[str, str], ...] = Field(
        (),
        description="effects: (reference, arm) beside the defaults, which are every arm against no pre-training and "
        "every arm that is named here nowhere against MixCL",
    )

    @model_validator(mode="before")
    @classmethod
    def _all_folds(cls, given: object) -> object:
        """Where the number of folds alone is given, all of them are run."""
        if isinstance(given, dict) and given.get("folds") is None:
            number = given.get("n_folds")
            if isinstance(number, int) and 2 <= number <= MOST_FOLDS:
                return given | {"folds": tuple(range(number))}
        return given

    @model_validator(mode="after")
    def _check(self) -> typing.Self:
        shares = [p for ps in self.percents.values() for p in ps] + list(self.ablation.values())
        if any(not 0 < p <= 100 for p in shares):
            raise ValueError("percents are above 0 and at most 100")
        if any(not 0 <= f < self.n_folds for f in self.folds):
            raise ValueError(f"folds are numbered 0 to {self.n_folds - 1}, as n_folds is {self.n_folds}")
        for kind, values in (("folds", self.folds), ("seeds", self.seeds), *self.percents.items()):
            check_once(kind, values)
        check_names("task", (*self.percents, *self.ablation))
        check_names("arm", self.variants)
        if same := [reference for reference, arm in self.compare if reference == arm]:
            raise ValueError(f"compare: {same[0]} with itself tells nothing; name two arms")
        known = ("scratch", "mixcl", *self.variants)
        if nowhere := [arm for pair in self.compare for arm in pair if arm not in known]:
            raise ValueError(f"compare: {nowhere[0]} is no arm; there are {', '.join(known)}")
        for name, settings in self.variants.items():
            if name in ("scratch", "mixcl") or not re.fullmatch(r"(?!(.*-)?s\d+$)[a-z0-9]+(-[a-z0-9]+)*", name):
                allowed = "small letters, digits and -, not scratch or mixcl, and not as a seed ends a job's name (-s1)"
                raise ValueError(f"variant {name!r}: call it by {allowed}")
            for item in settings:
                if item.split(".")[0] not in VARIED:
                    raise ValueError(f"variant {name!r}: {item!r} is not a setting of {', '.join(VARIED)}")
        return self
