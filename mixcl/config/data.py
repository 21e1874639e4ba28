"""Settings of the data: a collection, what its label values mean, and how all of them are prepared."""

import os
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mixcl.config.frozen import Count, Frozen, Hounsfield, NonNegative, Positive, Seed, check_names, check_once
from mixcl.labels import UNKNOWN

PRETRAINING_SETS = ("msd_liver", "msd_lung", "msd_pancreas", "nih_pancreas", "kits19")
FINETUNING_SETS = ("msd_spleen", "btcv")

LabelGrid = Literal["same", "header", "voxels"]


class Collection(Frozen):
    """One set of CT scans with labels: where its files are and what its label values mean.

    ``image`` and ``label`` are paths relative to ``root`` in which ``{case}`` stands for the name of a case.
    """

    title: str = ""
    root: str = Field("", description="folder of the collection, relative to data.root unless absolute")
    image: str = Field("imagesTr/{case}.nii.gz", description="path template of the image")
    label: str = Field("labelsTr/{case}.nii.gz", description="path template of the label map")
    table: str | None = Field(None, description="CSV below root with columns image and label instead of templates")
    layouts: tuple[tuple[str, str], ...] = Field((), description="other (image, label) templates people have")
    roots: tuple[str, ...] = Field((), description="other names of the folder, tried when root is not there")
    names: dict[int, str] = Field(description="label value -> name, without the background 0")
    merge: dict[str, tuple[int, ...]] = Field({}, description="organ -> label values of names that are one organ here")
    unknown: tuple[int, ...] = Field(
        (), description="label values of voxels of which nothing is known: neither background nor organ (R33)"
    )
    label_grid: LabelGrid = Field(
        "same",
        description="whether labels lie on their images' grids, are turned to them by the headers, or voxel by voxel",
    )
    quirks: tuple[str, ...] = Field((), description="what is known to be odd about it")
    count: int | None = Field(None, description="number of labelled cases the paper counts (R20)")
    licence: str = ""
    url: str = ""
    citation: str = ""

    @model_validator(mode="after")
    def _check(self) -> typing.Self:
        if fault := next(self._faults(), None):
            raise ValueError(fault)
        return self

    def _faults(self) -> Iterator[str]:
        """What is wrong with the places of files, and with how label values become organs."""
        for template in (self.image, self.label, *(template for pair in self.layouts for template in pair)):
            if "{case}" not in template:
                yield f"the path template {template!r} needs the placeholder {{case}}"
        if not self.names or not all(0 < value < 256 for value in self.names):
            yield "names maps label values 1 to 255 to names; 0 is the background and is not listed"
        merged = [(value, organ) for organ, values in self.merge.items() for value in values]
        for value in self.unknown:
            if value == 0 or abs(value) >= 2**32:
                yield f"unknown has {value}; it lists whole numbers that voxels have, and 0 is always the background"
            if value in self.names:
                yield f"unknown and names both have {value} ({self.names[value]}); take it out of one of them"
        for organ, values in self.merge.items():
            if not values:
                yield f"merge joins nothing to {organ!r}; list its label values or take it out"
        for number, (value, organ) in enumerate(merged):
            if value not in self.names:
                what = "0 is the background" if value == 0 else f"names does not have {value}; write it there"
                yield f"merge joins {value} to {organ!r}, but {what}"
            if twice := [other for before, other in merged[:number] if before == value]:
                yield f"merge has {value} twice, in {twice[0]!r} and in {organ!r}; a voxel is of one organ"
        names = list(self.merge) + [name for value, name in self.names.items() if value not in dict(merged)]
        for name in names:
            if not name or not name.isprintable() or name != name.strip():
                yield f"names or merge call an organ {name!r}; give it a name without line breaks or blanks around it"
            alike = {value: other for value, other in self.organ_of.items() if other.casefold() == name.casefold()}
            if names.count(name) > 1 or len(set(alike.values())) > 1:
                written = " and ".join(dict.fromkeys(map(repr, alike.values())))
                yield f"the name {written} is there twice; if they are one organ, say merge: {{{name}: {list(alike)}}}"
        if len(self.names) == UNKNOWN:
            yield f"names has {UNKNOWN} label values; {UNKNOWN - 1} is the most, for one stands for what is unknown"

    @property
    def organ_of(self) -> dict[int, str]:
        """Label value in a file -> organ, merged ones under their common name."""
        merged = {value: organ for organ, values in self.merge.items() for value in values}
        return {value: merged.get(value, name) for value, name in self.names.items()}

    @property
    def stored(self) -> dict[int, int]:
        """Label value in a file -> its value in the store and in predictions: of merged ones the smallest.

        An organ that files give the value that stands for unknown has the largest that is free.

        >>> own = Collection(names={1: "liver", 2: "right", 3: "left"}, merge={"kidney": (2, 3)}, unknown=(9,))
        >>> own.stored, own.organs
        ({1: 1, 2: 2, 3: 2, 9: 255}, {1: 'liver', 2: 'kidney'})
        """
        first = {value: min(values) for values in self.merge.values() for value in values}
        kept = {value: first.get(value, value) for value in self.names}
        free = max(set(range(UNKNOWN)) - self.names.keys())
        return {value: free if to == UNKNOWN else to for value, to in kept.items()} | dict.fromkeys(
            self.unknown, UNKNOWN
        )

    @property
    def organs(self) -> dict[int, str]:
        """Label value in the store -> organ: what is trained on, predicted and measured."""
        stored = self.stored
        return {stored[value]: organ for value, organ in sorted(self.organ_of.items())}


class PhantomConfig(Frozen):
    """The embedded phantom collections."""

    seed: Seed = 0
    difficulty: NonNegative = Field(1.0, description="scales noise, overlap of attenuation and anatomical variation")
    spacing: tuple[Positive, Positive, Positive] = Field((0.8, 0.8, 2.0), description="voxel size as acquired, mm")
    counts: dict[str, Count] = Field(
        {
            "msd_liver": 131, "msd_lung": 63, "msd_pancreas": 281, "nih_pancreas": 80, "kits19": 210,
            "msd_spleen": 41, "btcv": 30,
        },
        description="cases a collection; the default is the paper's 765 + 41 + 30",
    )  # fmt: skip

    @field_validator("counts")
    @classmethod
    def _known(cls, counts: dict[str, int]) -> dict[str, int]:
        if unknown := [name for name in counts if name not in (*PRETRAINING_SETS, *FINETUNING_SETS)]:
            there = ", ".join((*PRETRAINING_SETS, *FINETUNING_SETS))
            raise ValueError(f"{unknown[0]} has no phantoms; there are {there}")
        return counts


class DataConfig(Frozen):
    """Sec. 3.1: which collections, where they are, and how they are prepared."""

    source: Literal["phantom", "files"] = "files"
    root: str | None = Field(None, description="folder of the collections; default OUT/data/raw")
    store: str | None = Field(None, description="folder of the prepared volumes; default OUT/data/store")
    collections: dict[str, Collection] = Field(default_factory=dict, description="your own collections, by name")
    pretrain: tuple[str, ...] = PRETRAINING_SETS
    finetune: tuple[str, ...] = FINETUNING_SETS
    pretrain_sees_test: bool = Field(
        False, description="a collection may be in both, so that pre-training sees its test cases; tables then say so"
    )
    spacing: tuple[Positive, Positive, Positive] = Field((1.5, 1.5, 2.0), description="mm, Sec. 3.1")
    hu: tuple[Hounsfield, Hounsfield] = Field((-150.0, 250.0), description="intensity window in HU, Sec. 3.1")
    phantom: PhantomConfig = PhantomConfig()

    @field_validator("pretrain")
    @classmethod
    def _in_one_order(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """The built-in ones as the paper lists them, then others by name: the order given decides nothing."""
        known = (*PRETRAINING_SETS, *FINETUNING_SETS)
        return tuple(sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name)))

    @model_validator(mode="after")
    def _check(self) -> typing.Self:
        if self.hu[0] >= self.hu[1]:
            raise ValueError(f"hu is (lower, upper) in HU, and {self.hu[0]} is not below {self.hu[1]}")
        check_names("collection", (*self.collections, *self.pretrain, *self.finetune))
        check_once("pretrain", self.pretrain)
        check_once("finetune", self.finetune)
        if self.in_both and not self.pretrain_sees_test:
            raise ValueError(
                f"pretrain and finetune both name {', '.join(self.in_both)}, so pre-training would see the scans and "
                "labels that fine-tuning is tested on; take it out of one of them, or set data.pretrain_sees_test=true "
                "and tables will say so"
            )
        if not self.pretrain and not self.finetune:
            raise ValueError("neither pretrain nor finetune names a collection; name one")
        return self

    @property
    def in_both(self) -> tuple[str, ...]:
        """Collections whose test cases pre-training sees, labels and all."""
        return tuple(name for name in self.pretrain if name in self.finetune)

    def raw_dir(self, out: Path) -> Path:
        """Folder of the collections as they were given."""
        return Path(os.path.expanduser(os.path.expandvars(self.root))) if self.root else out / "data" / "raw"

    def store_dir(self, out: Path) -> Path:
        """Folder of the prepared volumes."""
        return Path(os.path.expanduser(os.path.expandvars(self.store))) if self.store else out / "data" / "store"
