"""The built-in collections, which collections.yaml beside this file describes, and those of the settings."""

import os
from pathlib import Path

import yaml

from mixcl.config.profile import nearest
from mixcl.config.settings import Collection, DataConfig
from mixcl.errors import InputError

COLLECTIONS: dict[str, Collection] = {
    name: Collection.model_validate(given)
    for name, given in yaml.safe_load(Path(__file__).with_name("collections.yaml").read_text("utf-8")).items()
}
"""The paper's seven by name; an own collection of the same name takes the place of one."""
BTCV_NAMES = COLLECTIONS["btcv"].names


def collections(data: DataConfig) -> dict[str, Collection]:
    """The collections that ``data.pretrain`` and ``data.finetune`` name, in that order, each once.

    Raises InputError: a name that is neither built in nor defined under ``data.collections``.

    >>> list(collections(DataConfig(pretrain=("kits19", "btcv"), finetune=("btcv",), pretrain_sees_test=True)))
    ['kits19', 'btcv']
    """
    known = COLLECTIONS | data.collections
    wanted = list(dict.fromkeys((*data.pretrain, *data.finetune)))
    for name in wanted:
        if name not in known:
            text = f"unknown collection {name!r}{nearest(name, known)}; define it under data.collections or use one of"
            raise InputError(f"{text} {', '.join(known)}")
    return {name: known[name] for name in wanted}


def expected_count(data: DataConfig, name: str) -> int | None:
    """Labelled cases that a collection should have: of phantoms as many as asked for, else the paper's count (R20)."""
    return data.phantom.counts.get(name) if data.source == "phantom" else (COLLECTIONS | data.collections)[name].count


def folder(collection: Collection, raw_root: Path) -> Path:
    """Folder of a collection: its ``root``, ``~`` and variables expanded, below ``raw_root`` unless absolute.

    Where that is not there, the first of its other names (``roots``) that is.

    >>> folder(COLLECTIONS["msd_lung"], Path("/data")).as_posix()
    '/data/Task06_Lung'
    """
    names = [raw_root / os.path.expanduser(os.path.expandvars(name)) for name in (collection.root, *collection.roots)]
    return next((path for path in names if path.is_dir()), names[0])


def overlap(name: str) -> str:
    """What to say of a collection that is in pre-training and in fine-tuning, where the settings allow it."""
    text = "is in data.pretrain and in data.finetune; pre-training sees the cases that fine-tuning is tested on"
    return f"{name}: {text}"
