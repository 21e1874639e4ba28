"""The tables and the run card of a run made again, and laid beside those on the disk."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mixcl.config.settings import Experiment
from mixcl.data.registry import collections
from mixcl.results import effects, gains, runcard, write
from mixcl.results.verdict import Check, agrees, same, unseen
from mixcl.run.code import code_id
from mixcl.run.record import flat, numbers
from mixcl.spreadsheet import read_csv

ROUNDING = 1e-6
"""By which a number of a table may differ where it is computed again."""
TEXTS = ("task", "arm", "start", "against", "organ", "organs", "case", "job", "commit", "data", "profile", "seeds")


def tables(config: Experiment, out: Path) -> list[Check]:
    """Every table on the disk against the one that the cases give now."""
    names = {name for values in collections(config.data).values() for name in values.organs.values()}
    makers: dict[str, Callable[[Path], object]] = {
        "table1": write.table1,
        "table2": write.table2,
        "organs": write.organs,
        "effects": lambda place: effects.effects(config, place),
        "effects_organs": lambda place: effects.organs(config, place, names),
        "map": gains.write_map,
    }
    with TemporaryDirectory() as new:
        place = Path(new)
        (place / "runs").symlink_to((out / "runs").resolve())
        for name, make in makers.items():
            if any((out / "tables").glob(f"{name}.*")):
                make(place)
        made = sorted((place / "tables").glob("*.*"))
        return [
            agrees(f"tables/{path.name}", _other(out / "tables" / path.name, path), path.stem, "as its cases give")
            for path in made
        ]


def _other(found: Path, made: Path) -> Iterator[str]:
    """What is wrong with a table, beside the one made now."""
    if not found.is_file():
        yield "missing"
    elif found.read_bytes() != made.read_bytes() and not (made.suffix == ".csv" and _alike(found, made)):
        yield "another table"


def _alike(found: Path, made: Path) -> bool:
    """Whether two CSV files hold the same, but for the last digits of numbers."""
    try:
        one, other = read_csv(found, TEXTS), read_csv(made, TEXTS)
    except (OSError, ValueError):
        return False
    if list(one.columns) != list(other.columns) or len(one) != len(other) or not (one.dtypes == other.dtypes).all():
        return False
    exact = one.select_dtypes(exclude="number")
    same_text = exact.equals(other[exact.columns])
    rest = list(one.columns.difference(exact.columns))
    return same_text and bool(np.allclose(one[rest], other[rest], rtol=0, atol=ROUNDING, equal_nan=True))


def card(config: Experiment, out: Path, given: Mapping[str, Any]) -> list[Check]:
    """RUN.json and RUN.md against what lies in the folder and what the settings are."""
    now = runcard.contents(config, out)
    mine, said = numbers(config), flat(given["config"])
    checks = [agrees("settings of RUN.json", (key for key in mine if said.get(key) != mine[key]), "figures")]
    checks += [
        same(f"{key} of RUN.json", now[key], given.get(key), "figures") for key in ("profile", "source", "seeds")
    ]
    if "code" in given:
        checks.append(same("code of tables and figures", given["code"], code_id(), "figures"))
    listed = {str(job.get("job")): job for job in given["jobs"]}
    found = {str(job["job"]): job for job in now["jobs"]}
    unlike = (name for name in listed.keys() | found.keys() if listed.get(name) != found.get(name))
    checks.append(agrees("jobs of RUN.json", sorted(unlike), "figures"))
    outputs = {**dict.fromkeys(given["outputs"], "missing"), **now["outputs"]}
    for name, digest in outputs.items():
        path = Path(name)
        job = path.parent.name if name.startswith("runs/") else path.stem
        checks.append(same(name, given["outputs"].get(name, "not in RUN.json"), digest, job))
    page = out / "RUN.md"
    written = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
    fault = [] if written == runcard.markdown_of(given) else ["another page"]
    checks.append(agrees("RUN.md", fault, "figures", "as RUN.json says"))
    return [
        *checks,
        unseen("what a figure shows, beyond its checksum; the pages in site; executed notebooks; predictions/*.nii.gz"),
        unseen("when, where and at which commit it was made: that is the run's own word"),
    ]
