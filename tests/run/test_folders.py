"""A run's folder is the only thing that is ever begun again, and nothing but a run is taken away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixcl import files
from mixcl.errors import InputError
from mixcl.run import folders


def made(folder: Path, **decides: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"job": folder.name, "decides": decides}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_run_of_other_settings_is_kept_unless_asked(tmp_path: Path) -> None:
    run = made(tmp_path / "runs" / "pretrain", loss={"alpha": 1})
    folders.begin(run, {"loss": {"alpha": 1}}, "never")
    folders.begin(run, {"loss": {"alpha": 1}}, "changed")
    with pytest.raises(InputError, match=r"loss.alpha = 1, not 2"):
        folders.begin(run, {"loss": {"alpha": 2}}, "never")
    assert (run / "model.safetensors").is_file()
    folders.begin(run, {"loss": {"alpha": 2}}, "changed")
    assert not run.exists()


def test_only_a_run_is_begun_again(tmp_path: Path) -> None:
    other = tmp_path / "runs" / "store"
    other.mkdir(parents=True)
    (other / "scan.nii").write_bytes(b"scan")
    folders.begin(other, {}, "always")  # nothing there is a run's
    assert (other / "scan.nii").is_file()
    elsewhere = made(tmp_path / "elsewhere")
    (tmp_path / "runs" / "pretrain").symlink_to(elsewhere)
    with pytest.raises(InputError, match="not a run"):
        folders.begin(tmp_path / "runs" / "pretrain", {}, "always")
    assert (elsewhere / "model.safetensors").is_file()


def test_weights_without_a_card_are_not_gone_on_from(tmp_path: Path) -> None:
    run = made(tmp_path / "runs" / "pretrain")
    (run / "run.json").unlink()
    for restart in ("never", "changed", "always"):
        with pytest.raises(InputError, match="not a run"):
            folders.begin(run, {}, restart)
    assert (run / "model.safetensors").is_file()


@pytest.mark.parametrize("text", ["", "[]", '{"decides": 3}', "{"])
def test_a_card_that_cannot_be_read_is_one_sentence(tmp_path: Path, text: str) -> None:
    run = made(tmp_path / "runs" / "pretrain")
    (run / "run.json").write_text(text)
    for restart in ("never", "changed", "always"):
        with pytest.raises(InputError, match="by hand"):
            folders.begin(run, {}, restart)
    assert (run / "model.safetensors").is_file()


def run_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    files.write_json(folder / "run.json", {"job": folder.name})
    return folder


def test_a_run_inside_its_folder_is_removed(tmp_path: Path) -> None:
    run = run_in(tmp_path / "runs" / "pretrain")
    other = run_in(tmp_path / "runs" / "other")
    folders.remove_run(run, tmp_path / "runs")
    folders.remove_run(run, tmp_path / "runs")  # gone already
    assert list((tmp_path / "runs").iterdir()) == [other]


def test_what_is_no_run_in_its_folder_is_kept(tmp_path: Path) -> None:
    runs, outside = tmp_path / "runs", run_in(tmp_path / "outside")
    other, empty = run_in(runs / "renamed"), run_in(runs / "empty")
    files.write_json(other / "run.json", {"job": "pretrain"})
    (empty / "run.json").write_text("")
    deeper, no_run = run_in(runs / "a" / "b"), runs / "data"
    no_run.mkdir()
    run_in(runs / "real")
    (runs / "link").symlink_to(outside)
    (runs / "beside").symlink_to(runs / "real")
    (runs / "broken").symlink_to("nowhere")
    files.write_json(tmp_path / "run.json", {})
    kept = [other, empty, runs / "..", runs / "../outside", runs / ".", runs, outside, deeper, no_run, tmp_path]
    for folder in (*kept, runs / "link", runs / "beside", runs / "broken"):
        with pytest.raises(InputError, match="not a run in"):
            folders.remove_run(folder, runs)
    assert all(folder.exists() for folder in (*kept, runs / "link", runs / "real"))


def test_no_link_is_followed_when_a_run_is_removed(tmp_path: Path) -> None:
    scans, run = tmp_path / "scans", run_in(tmp_path / "runs" / "pretrain")
    scans.mkdir()
    (scans / "scan.nii").touch()
    (run / "data").symlink_to(scans)
    folders.remove_run(run, tmp_path / "runs")
    assert not run.exists()
    assert (scans / "scan.nii").is_file()
    run_in(tmp_path / "runs" / "pretrain")
    (tmp_path / "linked").symlink_to(tmp_path / "runs")
    with pytest.raises(InputError, match="no link"):
        folders.remove_run(tmp_path / "linked" / "pretrain", tmp_path / "linked")
    assert run.exists()


def test_a_kill_while_a_run_is_removed_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_in(tmp_path / "runs" / "pretrain")

    def die(folder: Path, **_: object) -> None:
        (folder / "run.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(folders.shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            folders.remove_run(run, tmp_path / "runs")
    assert not run.exists()
    folders.tidy_removed(tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []
