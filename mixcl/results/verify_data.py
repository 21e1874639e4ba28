"""Raw scans and the store of a run gone over again by content: raw scan -> prepared scan -> fingerprint."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixcl.config.settings import Experiment
from mixcl.data.arrays import other_content
from mixcl.data.files.opened import digest
from mixcl.data.registry import collections, folder
from mixcl.data.store import Case, Store, read_json
from mixcl.errors import InputError
from mixcl.results.verdict import Check, agrees, left, same, unseen

BYTES = 2_000_000_000
"""Raw and prepared scans, each, that are hashed of a collection unless all are asked for."""


def scans(config: Experiment, out: Path, card: Mapping[str, Any], full: bool) -> list[Check]:
    """Raw scans against the store, the store against its own checksums, and its fingerprints against the run card."""
    checks: list[Check] = []
    for name, collection in collections(config.data).items():
        recorded = card["data"].get(name, {}).get("fingerprint", "not in RUN.json")
        try:
            store = Store(config.data.store_dir(out), settings=config.data)
            cases, fingerprint = store.cases(name), store.fingerprint((name,))
        except InputError as error:
            checks.append(Check(f"data {name}", recorded[:12], str(error), recorded == "not prepared here", "prepare"))
            continue
        checks.append(same(f"data {name}", recorded, fingerprint, "prepare"))
        chosen = _sample(cases, [_size(case.path) for case in cases], BYTES, full)
        checks.append(agrees(f"prepared scans of {name}", _changed(chosen), "prepare"))
        checks += left(f"prepared scans of {name}", len(chosen), len(cases))
        base = folder(collection, config.data.raw_dir(out))
        if not base.is_dir():
            checks.append(unseen(f"raw scans of {name}: {base} is not here"))
            continue
        sources = [read_json(case.path / "case.json")["source"] for case in cases]
        size = [sum(part["bytes"] for part in source.values()) for source in sources]
        raw = _sample(sources, size, BYTES, full)
        checks.append(agrees(f"raw scans of {name}", _unlike(base, raw), "prepare"))
        checks += left(f"raw scans of {name}", len(raw), len(sources))
    return checks


def _sample(items: Sequence[Any], sizes: Sequence[int], most: int, full: bool) -> list[Any]:
    """As many items, in an order that no name decides, as have ``most`` bytes together, and one at least."""
    order = sorted(range(len(items)), key=lambda k: hashlib.sha256(str(k).encode()).digest())
    chosen, total = list[Any](), 0
    for k in order:
        if chosen and total + sizes[k] > most and not full:
            break
        chosen.append(items[k])
        total += sizes[k]
    return chosen


def _size(case: Path) -> int:
    return sum(path.stat().st_size for path in case.glob("[!.]*.npy"))


def _changed(cases: Sequence[Case]) -> Iterator[str]:
    """Prepared cases whose voxels, read anew, are not those of their record, or whose points are not of its labels."""
    for case in cases:
        if fault := other_content(case.path, {"image": case.content[0], "label": case.content[1]}):
            yield fault


def _unlike(base: Path, sources: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Raw files that are not those that the store was made from."""
    for source in sources:
        for part in source.values():
            path = base / part["name"]
            if not path.exists():
                yield f"{part['name']} is missing"
            elif digest(path) != part["sha256"]:
                yield f"{part['name']} has changed"
