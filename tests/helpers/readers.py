"""Every reader of a file that somebody else may have written, as a function of the file's bytes.

A reader returns, or says what is wrong by the one kind of error that it promises; whatever else comes out of it is a
fault of ours.  ``tests/fuzz.py`` and ``tests/test_fuzz.py`` feed them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from helpers.runs import write_run

from mixcl import spreadsheet
from mixcl.config import load_profile
from mixcl.config.text import read_yaml
from mixcl.data.arrays import read_points
from mixcl.data.download import unpack
from mixcl.data.files.layout import read_table
from mixcl.data.files.volume import read_volume
from mixcl.data.store import Store
from mixcl.errors import InputError
from mixcl.files import read_json, read_sealed, write_sealed
from mixcl.results.runcard import read_run_card
from mixcl.results.runs import read_runs
from mixcl.results.verify import read_expected
from mixcl.run import checkpoint, record


def _file(name: str, read: Callable[[Path], object], *promised: type[Exception]) -> Callable[[bytes], None]:
    """A reader of the file ``name`` in a folder of its own; ``read`` gets the folder."""

    def reader(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            try:
                read(Path(folder))
            except promised as error:
                _check(error)

    return reader


def _check(error: Exception) -> None:
    """A fault that is told is told in words, and on one line where people read it."""
    if not str(error) or (isinstance(error, InputError) and "\n" in str(error)):
        raise AssertionError(f"no sentence: {error!r}")


def _cases(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder), "msd_spleen", 15, "scratch", 0, {"7": {1: 0.75}})
        (run / "cases.csv").write_bytes(data)
        try:
            read_runs(Path(folder))
        except InputError as error:
            _check(error)


def _setting(data: bytes) -> None:
    try:
        load_profile("smoke", [f"loss.alpha={data.decode(errors='replace')}"])
    except InputError as error:
        _check(error)


def _yaml(data: bytes) -> None:
    try:
        read_yaml(data.decode(errors="replace"))
    except ValueError as error:
        _check(error)


def _store(data: bytes) -> None:
    """The two descriptions of a prepared case, ``{"index": ..., "case": ...}``, each with a checksum that is right."""
    try:
        given = json.loads(data)
        index, case = given["index"], given["case"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if not (isinstance(index, dict) and isinstance(case, dict)):
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a" / "7").mkdir(parents=True)
        try:
            write_sealed(Path(folder) / "a" / "index.json", index)
            write_sealed(Path(folder) / "a" / "7" / "case.json", case)
        except (ValueError, RecursionError):  # no JSON of ours
            return
        try:
            for case in Store(folder).cases("a"):
                case.image()
        except InputError as error:
            _check(error)


def _volume(name: str) -> Callable[[bytes], None]:
    return _file(name, lambda folder: read_volume(folder / name.partition("/")[0]), InputError)


def _pair(folder: Path) -> None:
    (folder / "a.img").write_bytes(bytes(900))
    read_volume(folder / "a.hdr")


READERS: dict[str, Callable[[bytes], None]] = {
    "profile": _file("a.yaml", lambda folder: load_profile(folder / "a.yaml"), InputError),
    "setting": _setting,
    "yaml": _yaml,
    "csv": _file("a.csv", lambda folder: spreadsheet.read_csv(folder / "a.csv", ["case"]), OSError, ValueError),
    "json": _file("a.json", lambda folder: read_json(folder / "a.json"), OSError, ValueError),
    "sealed json": _file("a.json", lambda folder: read_sealed(folder / "a.json"), OSError, ValueError),
    "run.json": _file("runs/a/run.json", lambda folder: record.read_card(folder / "runs" / "a"), InputError),
    "metrics": _file("metrics.jsonl", lambda folder: record.read_metrics(folder / "metrics.jsonl"), InputError),
    "RUN.json": _file("RUN.json", read_run_card, InputError),
    "expected": _file("expected.json", lambda folder: read_expected(folder / "expected.json"), InputError),
    "cases.csv": _cases,
    "nifti": _volume("a.nii"),
    "pair": _file("a.hdr", _pair, InputError),
    "nrrd": _volume("a.nrrd"),
    "mha": _volume("a.mha"),
    "frames": _volume("a.dcm"),
    "dicom": _volume("a/1.dcm"),
    "table": _file("a.csv", lambda folder: read_table(folder / "a.csv"), InputError),
    "store": _store,
    "tar": _file("a.tar", lambda folder: unpack(folder / "a.tar", folder / "a"), InputError),
    "points": _file("a.npz", lambda folder: read_points(folder / "a.npz"), InputError),
    "weights": _file("a.safetensors", lambda folder: checkpoint.read_weights(folder / "a.safetensors"), InputError),
}
