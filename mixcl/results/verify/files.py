"""What lies in a folder of results gone over again: raw scan -> prepared scan -> fingerprint; tables; the run card."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mixcl.config.settings import DataConfig, Experiment
from mixcl.data.arrays import content_fault
from mixcl.data.files.raw import digest
from mixcl.data.registry import collections, folder
from mixcl.data.store import Store, read_json
from mixcl.errors import InputError
from mixcl.results import effects, gains, runcard, write
from mixcl.results.verify.verdict import Check, agrees, not_compared, same, sampled
from mixcl.run.determinism import code_id
from mixcl.run.record import flat, numbers
from mixcl.spreadsheet import read_csv

BYTES = 2_000_000_000
"""Raw and prepared scans, each, that are hashed of a collection unless all are asked for."""
ROUNDING = 1e-6
"""By which a number of a table may differ where it is computed again."""
TEXTS = ("task", "arm", "start", "against", "organ", "organs", "case", "job", "commit", "data", "profile", "seeds")


def scans(data: DataConfig, out: Path, card: Mapping[str, Any], full: bool) -> Iterator[Check]:
    """Raw scans against the store, the store against its own checksums, and its fingerprints against the run card."""
    for name, collection in collections(data).items():
        recorded = card["data"].get(name, {}).get("fingerprint", "not in RUN.json")
        try:
            store = Store(data.store_dir(out), settings=data)
            cases, fingerprint = store.cases(name), store.fingerprint((name,))
        except InputError as error:
            yield Check(f"data {name}", recorded[:12], str(error), recorded == "not prepared here", "prepare")
            continue
        yield same(f"data {name}", recorded, fingerprint, "prepare")
        sizes = [sum(path.stat().st_size for path in case.path.glob("[!.]*.npy")) for case in cases]
        chosen = _sample(cases, sizes, full)
        faults = (content_fault(c.path, {"image": c.content[0], "label": c.content[1]}) for c in chosen)
        yield agrees(f"prepared scans of {name}", filter(None, faults), "prepare")
        yield from sampled(f"prepared scans of {name}", len(chosen), len(cases))
        base = folder(collection, data.raw_dir(out))
        if not base.is_dir():
            yield not_compared(f"raw scans of {name}: {base} is not here")
            continue
        sources = [read_json(case.path / "case.json")["source"] for case in cases]
        raw = _sample(sources, [sum(part["bytes"] for part in source.values()) for source in sources], full)
        yield agrees(f"raw scans of {name}", _unlike(base, raw), "prepare")
        yield from sampled(f"raw scans of {name}", len(raw), len(sources))


def _sample(items: Sequence[Any], sizes: Sequence[int], full: bool) -> list[Any]:
    """All items, or, in an order that no name decides, as many as have `BYTES` together, and one at least."""
    order = sorted(range(len(items)), key=lambda k: hashlib.sha256(str(k).encode()).digest())
    most = np.searchsorted(np.cumsum([sizes[k] for k in order]), BYTES, side="right")
    return [items[k] for k in (order if full else order[: max(1, int(most))])]


def _unlike(base: Path, sources: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Raw files that are not those that the store was made from."""
    for part in (part for source in sources for part in source.values()):
        path = base / part["name"]
        if not path.exists():
            yield f"{part['name']} is missing"
        elif digest(path) != part["sha256"]:
            yield f"{part['name']} has changed"


def tables(config: Experiment, out: Path) -> Iterator[Check]:
    """Every table on the disk against the one that the cases give now."""
    makers: dict[str, Callable[[Path], object]] = {
        "table1": lambda place: write.table1(place, config),
        "table2": lambda place: write.table2(place, config),
        "organs": lambda place: write.organs(place, config),
        "statistics": lambda place: write.comparisons(place, config),
        "effects": lambda place: effects.effects(config, place),
        "effects_organs": lambda place: effects.organs(config, place),
        "map": lambda place: gains.write_map(place, config),
    }
    with TemporaryDirectory() as new:
        place = Path(new)
        (place / "runs").symlink_to((out / "runs").resolve())
        for name, make in makers.items():
            if any((out / "tables").glob(f"{name}.*")):
                make(place)
        for path in sorted((place / "tables").glob("*.*")):
            table = out / "tables" / path.name
            wrong = "missing" if not table.is_file() else "" if _alike(table, path) else "another table"
            yield agrees(f"tables/{path.name}", filter(None, [wrong]), path.stem, "as its cases give")


def _alike(table: Path, made: Path) -> bool:
    """Whether two tables are the same, in CSV but for the last digits of numbers."""
    if table.read_bytes() == made.read_bytes():
        return True
    if made.suffix != ".csv":
        return False
    try:
        given, fresh = read_csv(table, TEXTS), read_csv(made, TEXTS)
    except (OSError, ValueError):
        return False
    if (
        list(given.columns) != list(fresh.columns)
        or len(given) != len(fresh)
        or not (given.dtypes == fresh.dtypes).all()
    ):
        return False
    texts = given.select_dtypes(exclude="number").columns
    numeric = given.columns.difference(texts)
    close = np.allclose(given[numeric], fresh[numeric], rtol=0, atol=ROUNDING, equal_nan=True)
    return close and given[texts].equals(fresh[texts])


def card(config: Experiment, out: Path, given: Mapping[str, Any]) -> Iterator[Check]:
    """RUN.json and RUN.md against what lies in the folder and what the settings are."""
    now = runcard.contents(config, out)
    mine, recorded = numbers(config), flat(given["config"])
    yield agrees("settings of RUN.json", (key for key in mine if recorded.get(key) != mine[key]), "figures")
    for key in ("profile", "source", "seeds"):
        yield same(f"{key} of RUN.json", now[key], given.get(key), "figures")
    if "code" in given:
        yield same("code of tables and figures", given["code"], code_id(), "figures")
    listed, there = ({str(job["job"]): job for job in of["jobs"]} for of in (given, now))
    unlike = (name for name in listed.keys() | there.keys() if listed.get(name) != there.get(name))
    yield agrees("jobs of RUN.json", sorted(unlike), "figures")
    for name, actual in {**dict.fromkeys(given["outputs"], "missing"), **now["outputs"]}.items():
        path = Path(name)
        job = path.parent.name if name.startswith("runs/") else path.stem
        yield same(name, given["outputs"].get(name, "not in RUN.json"), actual, job)
    page = out / "RUN.md"
    written = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
    fault = [] if written == runcard.markdown_of(given) else ["another page"]
    yield agrees("RUN.md", fault, "figures", "as RUN.json says")
    yield not_compared(
        "what a figure shows, beyond its checksum; the pages in site; executed notebooks; predictions/*.nii.gz"
    )
    yield not_compared("when, where and at which commit it was made: that is the run's own word")
