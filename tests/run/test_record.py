"""What decides a job has one owner."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.run import record
from mixcl.run.jobs import pretrainings


def test_every_setting_decides_something_or_is_named_as_not() -> None:
    every = set(record.flat(Experiment().model_dump(mode="json")))
    deciding = {name for stage in record.STAGES for name in record.flat(record.deciding(Experiment(), stage))}
    for name in every:
        named = [key for key in record.NOT_DECIDING if name == key or name.startswith(f"{key}.")]
        assert (name in deciding) != bool(named), name
    for key in record.NOT_DECIDING:
        assert any(name == key or name.startswith(f"{key}.") for name in every), f"{key} is no setting"


def test_the_commit_is_that_of_this_code_whatever_repository_the_shell_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = record.commit()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert record.commit() == before


def test_a_stage_hangs_on_its_own_sections_alone() -> None:
    config = load_profile("smoke")
    for stage, changed in [
        ("pretrain", "loss.alpha=0.5"),
        ("finetune", "finetune.lr=0.5"),
        ("prepare", "data.hu=[0, 9]"),
    ]:
        other = load_profile("smoke", [changed])
        differing = {name for name in record.STAGES if record.deciding(config, name) != record.deciding(other, name)}
        assert differing == {stage}
    same = load_profile("smoke", ["pretrain.log_every=7", "run.threads=2", "evaluate.windows=1", "data.root=/x"])
    assert all(record.deciding(config, stage) == record.deciding(same, stage) for stage in record.STAGES)


def test_the_loss_of_a_fine_tuning_decides_a_supervised_pretraining_alone() -> None:
    for method, differs in (("supervised", True), ("mixcl", False)):
        one, other = (load_profile("smoke", [f"pretrain.method={method}", f"finetune.balance={b}"]) for b in (0.1, 0.2))
        assert (record.deciding(one, "pretrain") != record.deciding(other, "pretrain")) == differs
    arms = "{a: [pretrain.method=supervised], b: [pretrain.method=supervised, finetune.balance=0], c: [finetune.lr=1]}"
    config = load_profile("smoke", ["grid.variants={}", f"grid.variants={arms}", "grid.ablation={btcv: 100}"])
    assert [job.name for job in pretrainings(config)] == ["pretrain", "pretrain-a", "pretrain-b"]


@pytest.mark.parametrize("name", ["..", ".", "", "../../x", "/abs", "a/b", "-x", ".hidden", "a\nb"])
def test_a_job_is_no_way_out_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="job"):
        record.run_folder(tmp_path, name)
