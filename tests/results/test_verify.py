"""mixcl verify finds whatever was changed, and calls a run equal only when it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

from mixcl import cli, evaluate, results, trainer
from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.results import runcard, verify
from mixcl.run import checkpoint, determinism, jobs, record

JOB = "finetune-msd_spleen-p100-mixcl-f0-s0"


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    """A whole run of two arms on one fold, with its expected values beside it."""
    config = load_profile("smoke", SETTINGS)
    out = tmp_path_factory.mktemp("finished")
    shutil.copytree(prepared / "data", out / "data")
    first = trainer.pretrain(config, out, progress=False)
    for job in jobs.finetunings(config):
        p = job.parameters
        run = trainer.finetune(
            config, out, task=p["TASK"], percent=p["PERCENT"], fold=p["FOLD"], arm=p["ARM"],
            init=first if job.needs else None, progress=False,
        )  # fmt: skip
        evaluate.evaluate(config, out, run, progress=False)
    results.table1(out)
    runcard.run_card(config, out)
    verify.write_expected(config, out, out / "expected.json")
    return config, out


SETTINGS = ["grid.percents={msd_spleen: [100]}", "grid.ablation={}", "grid.folds=[0]", "grid.variants={}"]
SETTINGS += ["pretrain.steps=1", "finetune.steps=1", "data.finetune=[msd_spleen]"]


@pytest.fixture
def run(finished: tuple[Experiment, Path], tmp_path: Path) -> tuple[Experiment, Path]:
    """A copy to be tampered with."""
    config, out = finished
    shutil.copytree(out, tmp_path / "run")
    return config, tmp_path / "run"


def off(run: tuple[Experiment, Path]) -> list[verify.Check]:
    return [check for check in verify.verify(run[0], run[1], run[1] / "expected.json") if not check.holds]


def test_an_untouched_run_is_equal(run: tuple[Experiment, Path]) -> None:
    checks = verify.verify(run[0], run[1], run[1] / "expected.json")
    assert not off(run)
    assert sum(check.what.startswith("Dice of") for check in checks) == 2
    assert "all equal" in verify.report(checks)


def test_a_changed_result_is_found(run: tuple[Experiment, Path]) -> None:
    path = run[1] / "runs" / JOB / "cases.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    cells[8] = "0.987654"
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    found = off(run)
    assert {check.job for check in found} >= {JOB}
    assert any(check.what == f"cases of {JOB}" for check in found)
    assert any(check.what == f"Dice of {JOB}" for check in found)


def test_a_changed_table_is_found(run: tuple[Experiment, Path]) -> None:
    path = run[1] / "tables" / "table1.csv"
    text = path.read_text()
    dice = text.splitlines()[1].split(",")[5]
    path.write_text(text.replace(dice, "0.5", 1))
    assert any("table1.csv" in check.what for check in off(run))


def test_a_changed_checkpoint_is_found(run: tuple[Experiment, Path]) -> None:
    weights, description = checkpoint.read_weights(run[1] / "runs" / JOB)
    name = next(iter(weights))
    weights[name] = weights[name] + 1e-7 * torch.ones_like(weights[name]).cumsum(0)
    checkpoint.write_weights(run[1] / "runs" / JOB / checkpoint.WEIGHTS, weights, description)
    assert [check.job for check in off(run) if check.what.startswith("weights")] == [JOB]


def test_weights_have_the_same_name_with_and_without_torch(run: tuple[Experiment, Path]) -> None:
    for place in (run[1] / "runs" / JOB, run[1] / "runs" / "pretrain"):
        name = record.weights_id(load_file(place / checkpoint.WEIGHTS))
        assert name == checkpoint.weights_id(checkpoint.read_weights(place)[0]) == record.read_card(place)["weights"]


@pytest.mark.parametrize("name", ["phantom", "smoke"])
def test_committed_expected_values_are_whole(name: str) -> None:
    values = verify.read_expected(verify.EXPECTED / f"{name}.json")
    assert {job for job in values["weights"] if job.startswith("finetune")} == set(values["dice"])
    assert not verify._other_settings(load_profile(name), values["settings"])


def test_nothing_of_the_results_needs_torch() -> None:
    names = [f"mixcl.results.{path.stem}" for path in Path(verify.__file__).parent.glob("*.py")]
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_cut_checkpoint_is_found(run: tuple[Experiment, Path]) -> None:
    path = run[1] / "runs" / "pretrain" / checkpoint.WEIGHTS
    path.write_bytes(path.read_bytes()[:1000])
    assert [check.job for check in off(run)] == ["pretrain"]


def test_a_changed_expected_value_is_found(run: tuple[Experiment, Path]) -> None:
    path = run[1] / "expected.json"
    values = json.loads(path.read_text())
    values["dice"][JOB] += 1e-9
    path.write_text(json.dumps(values))
    assert [check.job for check in off(run)] == [JOB]


def test_a_missing_run_is_found(run: tuple[Experiment, Path]) -> None:
    (run[1] / "runs" / JOB / "cases.csv").unlink()
    assert any(check.what == f"run {JOB}" for check in off(run))


def test_elsewhere_cells_are_compared_within_the_measured_tolerance(run: tuple[Experiment, Path]) -> None:
    config, out = run
    path = out / "expected.json"
    values = json.loads(path.read_text())
    values["bits"]["threads"] = 7
    values["spread"] = 0.01
    values["dice"][JOB] += 0.015
    path.write_text(json.dumps(values))
    checks = verify.verify(config, out, path)
    assert all(check.holds for check in checks)
    assert any("threads 1, not 7" in check.note for check in checks)
    values["dice"][JOB] += 0.015
    path.write_text(json.dumps(values))
    assert [check.what for check in off(run)] == ["Dice of finetune-msd_spleen-p100-mixcl, mean"]
    values["spread"] = None
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="no tolerance"):
        off(run)


def test_other_settings_are_not_compared(run: tuple[Experiment, Path]) -> None:
    config = load_profile("smoke", [*SETTINGS, "loss.alpha=0.5"])
    with pytest.raises(InputError, match=r"settings differ .*\(loss.alpha\)"):
        verify.verify(config, run[1], run[1] / "expected.json")


def test_a_setting_younger_than_the_expected_values_has_to_be_at_its_default(run: tuple[Experiment, Path]) -> None:
    path = run[1] / "expected.json"
    values = verify.read_expected(path)
    del values["settings"]["loss.center"]
    path.write_text(json.dumps(values))
    assert not off(run)
    config = load_profile("smoke", [*SETTINGS, "loss.center=true"])
    with pytest.raises(InputError, match=r"\(loss.center\)"):
        verify.verify(config, run[1], path)
    values["settings"]["loss.forgotten"] = 1
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"\(loss.forgotten\)"):
        off(run)


def test_the_paper_profile_is_laid_beside_the_paper(run: tuple[Experiment, Path]) -> None:
    config = run[0].model_copy(update={"profile": "paper"})
    checks = [check for check in verify.verify(config, run[1]) if check.what.startswith("Dice of")]
    assert len(checks) == 14
    spleen = next(check for check in checks if check.job == "finetune-msd_spleen-p100-mixcl")
    assert spleen.expected.startswith("0.9612")
    assert not spleen.holds


def test_the_command_line_says_it_by_its_exit_code(run: tuple[Experiment, Path], capsys: pytest.CaptureFixture) -> None:
    words = ["verify", "--profile", "smoke", "--out", str(run[1]), "--expected", str(run[1] / "expected.json")]
    words += [word for item in SETTINGS for word in ("--set", item)]
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    assert done.value.code in (0, None)
    (run[1] / "tables" / "table1.csv").write_text("nothing")
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    assert done.value.code == 1
    (run[1] / "expected.json").write_text("{}")
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    assert done.value.code == 2
    assert "git checkout" in capsys.readouterr().err


def test_environments_are_told_apart() -> None:
    here = determinism.environment(threads=1)
    assert not determinism.unlike(here, json.loads(json.dumps(here)))
    other = {**here, "pins": {**here["pins"], "MKL_CBWR": "something"}}
    assert len(determinism.unlike(here, other)) == 1
    assert "MKL_CBWR" in determinism.unlike(here, other)[0]


def test_the_pins_are_those_of_the_script() -> None:
    text = (Path(__file__).resolve().parents[2] / "reproduce" / "bits.sh").read_text()
    for key, value in determinism.PINS.items():
        assert f"export {key}={value}" in text or f'export {key}="{value}"' in text


def test_a_spread_is_kept_where_no_other_run_tells_it(run: tuple[Experiment, Path]) -> None:
    config, out = run
    path = out / "expected.json"
    values = json.loads(path.read_text())
    assert values["spread"] is None
    path.write_text(json.dumps({**values, "spread": 0.25, "spread_runs": 1}))
    again = verify.write_expected(config, out, path)
    assert (again["spread"], again["spread_runs"]) == (0.25, 1)
