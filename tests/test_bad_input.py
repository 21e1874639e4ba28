"""Whatever is wrong with what people give: one sentence that names it, exit code 2, in little memory and time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.broken import BOMB, BROKEN_JSON, DEEP, DIGITS, deep
from monai.networks.nets import UNETR

from mixcl import cli, files, handover
from mixcl.config import load_profile
from mixcl.config.text import MOST
from mixcl.data.store import Store
from mixcl.errors import InputError, enough_memory
from mixcl.results import runcard, verify
from mixcl.results.runs import read_runs
from mixcl.run import checkpoint, folders, record

JOB = "finetune-msd_spleen-p100-mixcl-f0-s0"
TOO_LONG = "x" * 5000


def sentence(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What ``mixcl WORDS`` says of its input; exit code 2, one line, no traceback, in less than ten seconds."""
    started = time.process_time()
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    text = capsys.readouterr().err
    assert stop.value.code == 2, text
    assert text.startswith("mixcl: ")
    assert text.count("\n") == 1
    assert len(text) < 3000
    assert not text.startswith("mixcl: unexpected")
    assert time.process_time() - started < 10
    return text


YAML = {
    "aliases": (BOMB, "stands for more than"),
    "an alias of itself": ("loss: &a {alpha: *a}", "names nothing that is complete"),
    "an alias of nothing": ("loss: {alpha: *a}", "alias"),
    "long aliases": (f"a: &a {'x' * 50_000}\nb: [{', '.join(['*a'] * 30)}]", "stands for more than"),
    "depth": (f"loss: {DEEP}", "levels deep"),
    "depth in mappings": ("".join(f"{' ' * k}a:\n" for k in range(300)), "levels deep"),
    "size": (f"# {'x' * MOST}\nloss: {{alpha: 1}}", "more than 1,000,000 bytes"),
    "a date that is none": ("data: {root: 2001-99-99}", "month must be in 1..12"),
    "a time that is none": ("data: {root: 2001-01-01 99:99:99}", "hour must be in 0..23"),
    "a date": ("data: {root: 2001-01-01}", "valid string"),
    "digits": (f"pretrain: {{steps: {DIGITS}}}", "4300 digits"),
    "hexadecimal digits": (f"pretrain: {{steps: 0x{'f' * 5000}}}", "more than 4300 digits"),
    "a huge number": ("pretrain: {steps: 99999999999999999999}", "less than or equal to"),
    "steps: true": ("pretrain: {steps: true}", "steps takes numbers, not true or false"),
    "a fold that is true": ("grid: {folds: [true]}", "folds takes numbers"),
    "a percent that is false": ("grid: {percents: {btcv: [false]}}", "percents takes numbers"),
    "no folds": ("grid: {folds: []}", "grid.folds"),
    "no seeds": ("grid: {seeds: []}", "grid.seeds"),
    "no collections": ("data: {pretrain: [], finetune: []}", "neither pretrain nor finetune names a collection"),
    "a tag of Python": ("loss: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    "a list as a key": ("? [a, b]\n: 1", "unhashable"),
    "a number as a key": ("1: 2", "keys should be strings"),
    "a key twice": ("loss: {alpha: 1}\nloss: {alpha: 2}", "the key 'loss' is there twice"),
    "a label value twice": ("data: {collections: {own: {names: {1: a, '1': b}}}}", "the key '1' is there twice"),
    "a number to the base 8": ("data: {collections: {own: {names: {010: a}}}}", "YAML reads '010' to the base 8"),
    "a number to the base 60": ("pretrain: {steps: 1:30}", "YAML reads '1:30' to the base"),
    "two documents": ("a: 1\n---\nb: 2", "single document"),
    "bytes": ("loss: {alpha: !!binary aGVsbG8=}", "loss.alpha"),
    "control characters": ("loss: \x07", "not allowed"),
    "extends a list": ("extends: [a]", "give the name or the path"),
    "extends a long name": (f"extends: {TOO_LONG}", "unknown profile"),
    "extends a folder": ("extends: ./", "no such profile file"),
}


@pytest.mark.parametrize("name", YAML)
def test_a_profile_that_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    text, words = YAML[name]
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert words in sentence(capsys, "pretrain", "--profile", str(path), "--out", str(tmp_path))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (f"loss={'[' * 20_000}", "levels deep"),
        (f"loss={{{BOMB.replace(chr(10), ', ')}}}", "stands for more than"),
        ("data.root=2001-99-99", "month must be"),
        (f"pretrain.steps={DIGITS}", "4300 digits"),
        ("pretrain.steps=true", "not true or false"),
        (f"{'a.' * 5000}b=1", "no setting lies so deep"),
        (f"{TOO_LONG}=1", "unknown key"),
        (TOO_LONG, "write it as section.key=value"),
        ("grid.folds=[]", "grid.folds"),
        ("profile=../x", "names a folder"),
        (f"profile={TOO_LONG}", "names a folder"),
        ("data.pretrain=[]", "data.pretrain names no collection"),
    ],
)
def test_a_setting_that_is_none(
    capsys: pytest.CaptureFixture[str], prepared: Path, tmp_path: Path, setting: str, words: str
) -> None:
    common = ["--profile", "smoke", "--out", str(tmp_path), "--set", f"data.store={prepared / 'data' / 'store'}"]
    assert words in sentence(capsys, "pretrain", *common, "--set", setting)


def test_hostile_yaml_takes_little_memory(tmp_path: Path) -> None:
    """The aliases once took 4.4 GB and a minute, because a value was written out before it was cut."""
    (tmp_path / "bomb.yaml").write_text(BOMB)
    (tmp_path / "large.yaml").write_text("a: b\n" * 10_000_000)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))\n"
        "from mixcl import cli\ncli.main(['prepare', '--profile', sys.argv[1]])"
    )
    for name in ("bomb.yaml", "large.yaml"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_a_profile_that_is_no_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name in ("pipe.yaml", "folder.yaml", "zero.yaml", f"{TOO_LONG}.yaml"):
        assert "no such profile file" in sentence(capsys, "pretrain", "--profile", str(tmp_path / name))
    (tmp_path / "latin.yaml").write_bytes(b"# \xe9")
    assert "not readable as YAML" in sentence(capsys, "pretrain", "--profile", str(tmp_path / "latin.yaml"))


# --- our own files, of another shape ---------------------------------------------------------------------------------

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "run.json": ("runs/a/run.json", lambda out: record.read_card(out / "runs" / "a")),
    "run.json taken up": ("runs/a/run.json", lambda out: folders.begin(out / "runs" / "a", {}, "never")),
    "run.json of a table": ("runs/a/run.json", read_runs),
    "RUN.json": ("RUN.json", runcard.read_run_card),
    "expected values": ("expected.json", lambda out: verify.read_expected(out / "expected.json")),
    "index.json": ("store/btcv/index.json", lambda out: Store(out / "store").cases("btcv")),
    "case.json": ("store/btcv/{case}/case.json", lambda out: Store(out / "store").cases("btcv")),
}


def folder_with(out: Path, prepared: Path, name: str) -> Path:
    """A folder of results in which the file of ``READERS[name]`` can be put in its place; that place."""
    shutil.copytree(prepared / "data" / "store" / "btcv", out / "store" / "btcv")
    case = min(path.parent.name for path in (out / "store" / "btcv").glob("*/case.json"))
    path = out / READERS[name][0].format(case=case)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    (out / "runs" / "a").mkdir(parents=True, exist_ok=True)
    (out / "runs" / "a" / "cases.csv").touch()
    return path


SHAPES = [
    '{"labels": {"x": "liver"}}', '{"labels": ["liver"]}', '{"decides": 3}', '{"seed": "0"}', '{"train": "a"}',
    '{"config": {"grid": 3}}', '{"outputs": {"a": 3}}', '{"settings": {}, "bits": []}', '{"cases": 3}', '{"names": []}',
    '{"schema": 1, "spacing": 1, "hu": [], "names": {}, "cases": [], "settings": "x"}', '{"content": []}',
    '{"files": 3}', '{"files": {"a": "b"}}', deep(40),
]  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_ours_of_another_shape(prepared: Path, tmp_path: Path, name: str) -> None:
    path = folder_with(tmp_path, prepared, name)
    for text in (*BROKEN_JSON, *(text for text in SHAPES if name != "run.json taken up" or "decides" in text)):
        path.write_text(text)
        if name == "run.json" and text in SHAPES[5:14]:
            continue  # nothing in it that a run.json would not hold
        with pytest.raises(InputError) as raised:
            READERS[name][1](tmp_path)
        assert "\n" not in str(raised.value), text
        assert path.parent.name in str(raised.value)


@pytest.mark.parametrize("name", READERS)
def test_a_folder_where_a_file_should_be(prepared: Path, tmp_path: Path, name: str) -> None:
    folder_with(tmp_path, prepared, name).mkdir()
    if name == "run.json taken up":
        return  # there is no card, so nothing is gone on from
    with pytest.raises(InputError):
        READERS[name][1](tmp_path)


@pytest.mark.parametrize("line", [*BROKEN_JSON[2:], '{"step": "x"}', '{"total": 1}'])
def test_a_line_of_metrics_that_is_none(tmp_path: Path, line: str) -> None:
    """It is told, unless it is the last one and a kill may have cut it."""
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "total": 0.5}}\n{line}\n{{"step": 3, "total": 0.5}}\n')
    with pytest.raises(InputError, match="line 2 is damaged") as raised:
        record.read_metrics(path)
    assert "\n" not in str(raised.value)
    path.write_text(f'{{"step": 1, "total": 0.5}}\n{line}')
    if "\0" not in line:
        assert [entry["step"] for entry in record.read_metrics(path)] == [1]


def test_json_is_read_in_bounds(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(deep(20))
    assert files.read_json(path)
    path.write_text(deep(40))
    with pytest.raises(ValueError, match="levels deep"):
        files.read_json(path)
    with path.open("wb") as file:
        file.truncate(files.MOST_JSON + 1)
    with pytest.raises(ValueError, match="more than 64"):
        files.read_json(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is no file"):
        files.read_json(tmp_path / "pipe")


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_weights_of_another_kind_are_refused(kind: torch.dtype) -> None:
    net = UNETR(1, 2, (32, 32, 32), 4, 24, 24, 2)
    weights = {name: value.to(kind) for name, value in net.state_dict().items()}
    with pytest.raises(InputError, match=rf"mine: .* weights are no floating-point numbers, first .* with {kind}"):
        handover.hand_over(weights, net, source="mine")
    handover.hand_over({name: value.half() for name, value in net.state_dict().items()}, net)


@pytest.mark.parametrize("text", ["[]", "3", "{", "[" * 100_000, DIGITS])
def test_a_description_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors", {"mixcl": text})
    with pytest.raises(InputError, match=r"a\.safetensors: not a whole safetensors file"):
        checkpoint.read_weights(tmp_path / "a.safetensors")


# --- the machine -----------------------------------------------------------------------------------------------------

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError(ALLOCATOR), torch.OutOfMemoryError("CUDA out of memory. Tried to"), OSError(12, "no")],
)
def test_too_little_memory_says_what_to_lower(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    with pytest.raises(InputError, match=r"lower model\.patch, the batch .* or model\.hidden"), enough_memory():
        fail()
    monkeypatch.setattr("mixcl.trainer.pretrain", fail)
    text = sentence(capsys, "pretrain", "--profile", "smoke", "--out", str(tmp_path))
    for name in ("model.patch", "pretrain.batch", "model.hidden"):
        assert name in text


def test_other_faults_are_no_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"), enough_memory():
        raise RuntimeError("shapes do not fit")


@pytest.mark.parametrize(
    "words",
    [
        ["pretrain", "--profile", "smoke", "--out", TOO_LONG],
        ["prepare", "--profile", "smoke", "--out", TOO_LONG],
        ["prepare", "--profile", "paper", "--out", "{tmp}", "--set", f"data.root=/{TOO_LONG}"],
        ["pretrain", "--profile", "smoke", "--out", "{tmp}", "--set", f"data.store=/{TOO_LONG}"],
        ["pretrain", "--profile", "smoke", "--out", "{tmp}", "--set", "data.store={store}", "--job", TOO_LONG],
        ["evaluate", "--profile", "smoke", "--out", "{tmp}", "--run", TOO_LONG],
        ["export", "--profile", "smoke", "--out", "{tmp}", "--run", TOO_LONG, "--to", "a.safetensors"],
        ["verify", "--profile", "smoke", "--out", "{tmp}", "--expected", TOO_LONG],
        ["pretrain", "--profile", TOO_LONG],
        ["prepare", "--profile", "smoke", "--out", "/proc/mixcl"],
        ["prepare", "--profile", "smoke", "--out", "{tmp}/file"],
        ["verify", "--profile", "smoke", "--out", "{tmp}", "--expected", "{tmp}"],
    ],
)
def test_a_place_that_cannot_be(
    capsys: pytest.CaptureFixture[str], prepared: Path, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "file").touch()
    places = {"{tmp}": str(tmp_path), "{store}": str(prepared / "data" / "store")}
    for short, place in places.items():
        words = [word.replace(short, place) for word in words]
    sentence(capsys, *words)


LIMITED = """
import resource, sys
from mixcl import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
cli.main(sys.argv[2:])
"""


@pytest.mark.parametrize(("limit", "words"), [(3_000, ["prepare"]), (100_000, ["pretrain"]), (100, ["pretrain"])])
def test_a_quota_that_is_reached_is_one_sentence(prepared: Path, tmp_path: Path, limit: int, words: list[str]) -> None:
    common = ["--profile", "smoke", "--out", str(tmp_path)]
    if words == ["pretrain"]:
        common += ["--set", f"data.store={prepared / 'data' / 'store'}"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *words, *common], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "the disk is full; make room" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_settings_that_are_refused_are_not_the_ones_people_use() -> None:
    config = load_profile("smoke", ["run.precision=no", "finetune.freeze=true", "loss.level_weights=[1, 1, 1, 0, 0]"])
    assert json.loads(config.model_dump_json())["finetune"]["freeze"] is True


def test_what_a_file_says_of_itself_moves_no_terminal() -> None:
    told = str(InputError("a.dcm: an \x1b[2J\x07image\x9b31m of \N{GREEK SMALL LETTER MU}m\nb.dcm: is fine"))
    assert told == "a.dcm: an \\x1b[2J\\x07image\\x9b31m of \N{GREEK SMALL LETTER MU}m\nb.dcm: is fine"
