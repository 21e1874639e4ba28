"""The folders of runs below those of results: found by name, read back with their settings, listed, begun again."""

import csv
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from mixcl.config.profile import load_profile, nearest, with_settings
from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.files import read_json, writing
from mixcl.lock import is_held
from mixcl.run.record import WEIGHTS, flat, read_card, read_metrics

Restart = Literal["never", "changed", "always"]  # begin a run again: never, when its settings changed, always
RESULTS = Path("results")


def find_run(name: str, out: Path | None = None) -> Path:
    """The folder of a run, by its path or its job's name in the folder of results ``out``, or in any below ``results``.

    Raises InputError where there is none, with the nearest name that there is, or several folders have one.
    """
    folders = _folders(out)
    below = [folder / "runs" / name for folder in folders]
    runs = list(dict.fromkeys(run for run in (*below, Path(name)) if (run / "run.json").is_file()))
    if len(runs) > 1 and out is None:
        raise InputError(f"{name}: is in {' and in '.join(map(str, runs))}; give the path of one, or --out")
    if runs:
        return runs[0]
    like = nearest(Path(name).name, [run.name for folder in folders for run in _runs(folder)])
    where = out / "runs" if out else f"{RESULTS}/*/runs"
    raise InputError(f"{name}: no such run in {where}{like}; mixcl runs lists those there are")


def settings_of(run: Path, overrides: Iterable[str] = (), profile: str | None = None) -> Experiment:
    """The settings that a run was made with, from its run.json, so that nobody needs to give them again.

    Of a ``profile``, where one is given, are how to evaluate, the machine and the places of the data.  Raises
    InputError where there is no run, or this version does not know its settings.
    """
    try:
        config = Experiment.model_validate(read_card(run).get("config"))
    except ValidationError as error:
        fault = f"{'.'.join(map(str, error.errors()[0]['loc'])) or 'config'} is no setting of this version"
        raise InputError(f"{run / 'run.json'}: {fault}; make the run again, or use its version") from None
    if profile is not None:
        given = load_profile(profile)
        data = config.data.model_copy(update={"root": given.data.root, "store": given.data.store})
        config = config.model_copy(update={"evaluate": given.evaluate, "run": given.run, "data": data})
    return with_settings(config, overrides, str(run))


class Row(NamedTuple):
    """A run as it is listed: ``dice`` is the mean over cases of their means over organs, None before evaluation."""

    job: str
    state: str
    steps: str
    dice: float | None
    date: str


def listed(out: Path | None = None) -> dict[Path, list[Row]]:
    """The runs of a folder of results, or of each below ``results``."""
    return {folder: [_row(run) for run in _runs(folder)] for folder in _folders(out)}


def _folders(out: Path | None) -> list[Path]:
    return [out] if out else [runs.parent for runs in sorted(RESULTS.glob("*/runs"))]


def _runs(folder: Path) -> Iterator[Path]:
    return (file.parent for file in sorted((folder / "runs").glob("[!.]*/run.json")))


def _row(run: Path) -> Row:
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime((run / "run.json").stat().st_mtime))
    trained = (run / WEIGHTS).is_file()
    try:
        steps = int(read_card(run)["steps"])
        records = [] if trained else read_metrics(run / "metrics.jsonl")
        done = steps if trained else max((record["step"] for record in records), default=0)
        dice = _dice(run / "cases.csv")
    except (InputError, KeyError, TypeError, ValueError):
        return Row(run.name, "damaged", "", None, date)
    state = "evaluated" if dice is not None else "trained" if trained else "stopped"
    state = "at work" if is_held(run.with_name(f".{run.name}.lock")) else state
    return Row(run.name, state, f"{done} of {steps}", dice, date)


def _dice(table: Path) -> float | None:
    """Mean Dice of a cases.csv; organs that a case does not have are left out."""
    if not table.is_file():
        return None
    cases: dict[str, list[float]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["dice"]:
                cases.setdefault(row["case"], []).append(float(row["dice"]))
    return fmean(map(fmean, cases.values())) if cases else None


def begin(folder: Path, decides: Mapping[str, Any], restart: Restart) -> None:
    """Make sure that a run's folder belongs to this experiment; one of other settings is begun again if asked to.

    An InputError for a card that cannot be read, or for other settings where ``restart`` is ``never``.
    """
    tidy_removed(folder.parent)
    card = folder / "run.json"
    if not card.is_file():
        if any(folder.rglob("*.safetensors")):  # nobody knows of what
            raise InputError(f"{folder}: not a run (weights, but no run.json); take the folder away by hand")
        return
    if restart != "always":
        try:
            before = flat(read_json(card)["decides"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{card}: not readable; take the folder away by hand to start the run over") from None
        now = flat(json.loads(json.dumps(decides)))
        different = next((key for key in sorted(now.keys() | before.keys()) if now.get(key) != before.get(key)), None)
        if not different:
            return
        if restart == "never":
            raise InputError(
                f"{folder}: was made with {different} = {before.get(different)!r}, not {now.get(different)!r}; "
                "choose another --out or start it over with --restart"
            )
    remove_run(folder, folder.parent)


def remove_run(folder: Path, runs: Path) -> None:
    """Remove the folder of a run, and nothing else; one that is not there is no fault.

    It goes out of sight at once and then piece by piece, so that a kill leaves no half of a run; links in it are
    removed, what they point to stays.  InputError where ``folder`` is not right inside ``runs``, either is a link, or
    its run.json is not of the job it is named after.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    inside = folder.parent.resolve() == runs.resolve() and folder.name not in ("", ".", "..")
    linked = folder.is_symlink() or runs.is_symlink() or folder.parent.is_symlink()
    job = None
    with suppress(OSError, ValueError):
        job = read_json(folder / "run.json").get("job")
    if not inside or linked or not folder.is_dir() or job != folder.name:
        raise InputError(
            f"{folder}: not a run in {runs} (a folder there, no link, with the run.json of that job); "
            "take it away by hand"
        )
    with writing(folder):
        folder.rename(folder.with_name(f".removed-{os.getpid()}-{folder.name}"))
        tidy_removed(runs)


def tidy_removed(runs: Path) -> None:
    """Take away what `remove_run` was killed at."""
    for left in runs.glob(".removed-[0-9]*"):
        if not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
