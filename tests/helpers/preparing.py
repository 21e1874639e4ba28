"""Preparation of made-up collections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixcl.config.settings import Collection, DataConfig, Experiment


def settings(root: Path, names: tuple[str, ...] = ("own",), **changes: Any) -> Experiment:
    collections = {name: Collection(root=name, names={1: "organ", 2: "tumour"}) for name in names}
    values = {"root": str(root), "collections": collections, "pretrain": names, "finetune": (), **changes}
    return Experiment(data=DataConfig.model_validate(values))
