"""Files are whole or not there, a full disk is one sentence, and no name leads out of its folder."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from safetensors.numpy import save_file

from mixcl import files
from mixcl.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
KILLED = """
import itertools, sys
from pathlib import Path
from mixcl.files import write_json
print(flush=True)
for number in itertools.count():
    write_json(Path(sys.argv[1]), [number] * 20000)
"""
FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from mixcl import files
from mixcl.errors import InputError
place, array = Path(sys.argv[1]), np.random.default_rng(0).random(10**5)
resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))
ways = {"a.npy": np.save, "a.npz": lambda to, a: np.savez_compressed(to, a=a), "a.txt": lambda to, a: to.write_bytes(a),
        "a.safetensors": lambda to, a: save_file({"a": a}, to)}
for name, write in ways.items():
    try:
        with files.whole(place / name) as draft:
            write(draft, array)
    except InputError as error:
        assert error.kind == "machine" and str(error).startswith(f"{place / name}: the disk is full"), error
    else:
        raise AssertionError(name)
"""


def test_a_file_takes_its_place_at_the_end_and_keeps_its_suffixes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scan.nii.gz"
    with files.whole(path) as draft:
        draft.write_text("whole")
        assert draft.name.endswith("scan.nii.gz")
        assert draft.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [path.name for path in path.parent.iterdir()] == ["scan.nii.gz"]


def test_what_a_killed_writer_left_goes_at_once(tmp_path: Path) -> None:
    """That of a dead process of this machine; one that lives, or works on another machine, may still be writing."""
    path, left = tmp_path / "model.safetensors", []
    dead = subprocess.Popen(["true"])
    dead.wait()
    with files.whole(path) as draft:
        mine, here = draft.name, draft.name.split(".")[1].partition("-")[2]
        for name in (f".{dead.pid}-{here}.{path.name}", f".1-{here}.{path.name}", f".{dead.pid}-0f0f0f0f.{path.name}"):
            left.append(tmp_path / name)
            left[-1].write_bytes(b"half a file")
        files.tidy(path)
        assert sorted(file.name for file in tmp_path.iterdir()) == sorted([mine, left[1].name, left[2].name])
    os.utime(left[2], (0, 0))
    files.tidy(path)
    assert sorted(tmp_path.iterdir()) == sorted([path, left[1]])


def fail_midway(path: Path, error: type[BaseException]) -> None:
    with files.whole(path) as draft:
        draft.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(error):
        fail_midway(path, error)
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_killed_while_it_writes_a_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    path, chance = tmp_path / "a.json", random.Random(0)
    files.write_json(path, [-1] * 20000)
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0.02, 0.2))
            process.send_signal(signal.SIGKILL)
        value = json.loads(path.read_text())
        assert len(value) == 20000
        assert len(set(value)) == 1


def test_a_disk_that_takes_no_more_is_one_sentence_whoever_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], cwd=ROOT, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full; make room"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, "mend its permissions"),
        (errno.EROFS, "choose another place"),
        (errno.EIO, r"cannot be written \(Input/output error\)"),
    ],
)
def test_what_a_disk_refuses_is_one_sentence(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised, files.whole(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert "\n" not in str(raised.value)
    assert raised.value.kind == "machine"


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(InputError, match=r"a/b\.txt: cannot be written"):
        files.write_text(tmp_path / "a" / "b.txt", "x")


@pytest.mark.parametrize("name", ["pretrain", "id-label", "s0.5", "A_b", "0", "x" * 120])
def test_names_that_are_fine(name: str) -> None:
    assert files.checked_name("job", name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "../x", "a/b", "/a", "a..b", "-a", "a b", "a\n", "a\0", "é", "x" * 121]
)
def test_names_that_could_lead_elsewhere(name: str) -> None:
    with pytest.raises(InputError, match=r"^arm .*: give a name of letters") as raised:
        files.checked_name("arm", name)
    assert "\n" not in str(raised.value)


def test_case_names_become_file_names_and_come_back() -> None:
    names = [
        "liver_10",
        "a b",
        "a%20b",
        "\N{GREEK SMALL LETTER ALPHA}",
        "a/b",
        "..",
        ".",
        "-x",
        "a..b",
        "x" * 200,
        "\n",
        "%",
    ]
    made = [files.file_name(name) for name in names]
    assert [unquote(name) for name in made] == names
    assert len(set(made)) == len(names)
    assert made[0] == names[0]
    assert not [name for name in made if "/" in name or name[0] in ".-"]
    for name in ("", "x" * 201, "\N{GREEK SMALL LETTER ALPHA}" * 40, os.fsdecode(b"\xff")):
        with pytest.raises(InputError, match="rename its files"):
            files.file_name(name)


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"a": 1}', '{"a": 2, "sha256": "SUM"}', "\0\0"])
def test_json_that_is_not_what_was_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    files.write_sealed(path, {"a": 1, "b": (1.5, None)})
    assert files.read_sealed(path) == {"a": 1, "b": [1.5, None]}
    path.write_text(text.replace("SUM", json.loads(path.read_text())["sha256"]))
    with pytest.raises(ValueError, match=r"checksum|Expecting|not an object"):
        files.read_sealed(path)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_who_may_read_a_file_is_what_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    """safetensors alone writes for the owner alone, so that colleagues cannot read weights."""
    ways = {
        "a.txt": lambda to: to.write_text("a"), "a.npy": lambda to: np.save(to, np.zeros(3)),
        "a.safetensors": lambda to: save_file({"a": np.zeros(3)}, to),
    }  # fmt: skip
    before = os.umask(umask)
    try:
        for name, write in ways.items():
            with files.whole(tmp_path / name) as draft:
                write(draft)
            assert (tmp_path / name).stat().st_mode & 0o777 == mode, name
    finally:
        os.umask(before)


def test_a_folder_takes_its_place_at_the_end_or_the_old_one_stays(tmp_path: Path) -> None:
    place = tmp_path / "case"
    for text in ("old", "new"):
        with files.whole_folder(place) as draft:
            (draft / "a").write_text(text)
            assert not place.exists() if text == "old" else (place / "a").read_text() == "old"
    with pytest.raises(InputError, match="the disk is full"), files.whole_folder(place):
        raise OSError(errno.ENOSPC, "trouble")
    assert [path.name for path in tmp_path.iterdir()] == ["case"]
    assert (place / "a").read_text() == "new"


def test_what_a_killed_writer_left_of_a_folder_goes_at_the_next_time(tmp_path: Path) -> None:
    for state in ("tmp", "old"):
        (tmp_path / f".{state}-case").mkdir()
        (tmp_path / f".{state}-case" / "a").write_text("left")
    with files.whole_folder(tmp_path / "case") as draft:
        assert not list(draft.iterdir())
    with files.whole_folder(tmp_path / "case"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["case"]
