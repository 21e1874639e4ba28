"""Preparation of made-up collections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.volumes import scan, write_case
from numpy.typing import NDArray

from mixcl.config.settings import Collection, DataConfig, Experiment
from mixcl.data.files.grid import WayBack, way_back
from mixcl.data.prepare.run import prepare
from mixcl.data.store import Case, Store


def settings(root: Path, names: tuple[str, ...] = ("own",), **changes: Any) -> Experiment:
    collections = {name: Collection(root=name, names={1: "organ", 2: "tumour"}) for name in names}
    values = {"root": str(root), "collections": collections, "pretrain": names, "finetune": (), **changes}
    return Experiment(data=DataConfig.model_validate(values))


def prepared_case(root: Path, shape: Sequence[int], affine: NDArray[Any], **changes: Any) -> Case:
    """A scan with two labels, prepared."""
    write_case(root / "raw/own", "case", *scan(shape, values=(1, 2)), affine)
    prepare(settings(root / "raw", **changes), root, workers=1, progress=False)
    (case,) = Store(root / "data/store").cases("own")
    return case


def back(case: Case) -> WayBack:
    return way_back(case.source_shape, case.source_affine, case.spacing)
