"""mixcl verify finds whatever was changed, and calls a run equal only when it is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.broken import flip
from safetensors.numpy import load_file

from mixcl import cli, evaluate, files, results, trainer
from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.results import runcard, verify
from mixcl.results.verify import files as verify_files
from mixcl.results.verify import jobs as verify_jobs
from mixcl.run import checkpoint, determinism, jobs, record
from mixcl.spreadsheet import read_csv, to_csv

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
    write_expected(config, out, out / "expected.json")
    return config, out


SETTINGS = ["grid.percents={msd_spleen: [100]}", "grid.ablation={}", "grid.folds=[0]", "grid.variants={}"]
SETTINGS += ["pretrain.steps=1", "finetune.steps=1", "data.finetune=[msd_spleen]", "grid.n_folds=2"]


@pytest.fixture
def run(finished: tuple[Experiment, Path], tmp_path: Path) -> tuple[Experiment, Path]:
    """A copy to be tampered with."""
    config, out = finished
    shutil.copytree(out, tmp_path / "run")
    return config, tmp_path / "run"


def verified(*given: Any, **more: Any) -> list[verify.Check]:
    """As the command does it."""
    return verify.verify(*given, measure=evaluate.measured_again, **more)


def write_expected(*given: Any) -> dict[str, Any]:
    """As the command does it."""
    return verify.write_expected(*given, measure=evaluate.measured_again)


def off(run: tuple[Experiment, Path]) -> list[verify.Check]:
    return [check for check in verified(run[0], run[1], run[1] / "expected.json") if not check.holds]


def test_an_untouched_run_is_equal(run: tuple[Experiment, Path]) -> None:
    checks = verified(run[0], run[1], run[1] / "expected.json")
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
    paths = Path(results.__file__).parent.rglob("*.py")
    names = [
        "mixcl.results." + ".".join(path.relative_to(Path(results.__file__).parent).with_suffix("").parts)
        for path in paths
    ]
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
    shutil.rmtree(run[1] / "runs" / JOB)
    assert {f"run {JOB}", f"expected weights of {JOB}"} <= {check.what for check in off(run)}


def test_elsewhere_cells_are_compared_within_the_measured_tolerance(run: tuple[Experiment, Path]) -> None:
    config, out = run
    path = out / "expected.json"
    values = json.loads(path.read_text())
    values["bits"]["threads"] = 7
    values["spread"] = 0.01
    values["dice"][JOB] += 0.015
    path.write_text(json.dumps(values))
    checks = verified(config, out, path)
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
        verified(config, run[1], run[1] / "expected.json")


def test_a_setting_younger_than_the_expected_values_has_to_be_at_its_default(run: tuple[Experiment, Path]) -> None:
    path = run[1] / "expected.json"
    values = verify.read_expected(path)
    del values["settings"]["loss.center"]
    path.write_text(json.dumps(values))
    assert not off(run)
    config = load_profile("smoke", [*SETTINGS, "loss.center=true"])
    with pytest.raises(InputError, match=r"\(loss.center\)"):
        verified(config, run[1], path)
    values["settings"]["loss.forgotten"] = 1
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"\(loss.forgotten\)"):
        off(run)


def test_the_paper_profile_is_laid_beside_the_paper(run: tuple[Experiment, Path]) -> None:
    config = run[0].model_copy(update={"profile": "paper"})
    checks = [check for check in verified(config, run[1]) if check.what.startswith("Dice of")]
    assert {check.job.rpartition("-")[0] for check in checks} == {"finetune-msd_spleen-p100"}
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
    assert determinism.unlike({"compile": False}, {"compile": True}) == ["compile False, not True"]
    assert not determinism.unlike(here, {**here, "of a younger version": 1})
    assert determinism.unlike({}, here)


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
    again = write_expected(config, out, path)
    assert (again["spread"], again["spread_runs"]) == (0.25, 1)


def test_a_spread_is_of_runs_with_the_same_cells(run: tuple[Experiment, Path], tmp_path: Path) -> None:
    config, out = run
    other = tmp_path / "other"
    shutil.copytree(out, other)
    assert write_expected(config, out, other / "e.json", [other])["spread"] == 0.0
    shutil.rmtree(other / "runs" / JOB)
    with pytest.raises(InputError, match=f"{JOB.rpartition('-f')[0]} is in it or in"):
        write_expected(config, out, other / "e.json", [other])


@pytest.mark.parametrize("words", [["--other", "a"], ["--write", "a", "--full"], ["--write", "a", "--expected", "b"]])
def test_options_that_do_not_go_together(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(["verify", "--profile", "smoke", *words])
    assert done.value.code == 2
    assert "--write" in capsys.readouterr().err


def test_a_card_that_does_not_say_its_start_is_one_sentence(run: tuple[Experiment, Path]) -> None:
    card_of(lambda card: card["decides"].pop("init"))(run[1])
    with pytest.raises(InputError, match=r"run.json: missing or damaged"):
        off(run)


def test_the_papers_cells_are_those_that_were_planned(run: tuple[Experiment, Path]) -> None:
    config = run[0].model_copy(update={"profile": "paper-mine"})
    config = config.model_copy(update={"grid": config.grid.model_copy(update={"percents": {"msd_spleen": (100, 33)}})})
    found = {check.job for check in verified(config, run[1]) if check.what.endswith(", mean")}
    assert found == {f"finetune-msd_spleen-p100-{arm}" for arm in ("mixcl", "scratch")}


# --- each link of the chain, changed ---------------------------------------------------------------------------------


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file in place, and its own checksum where it has one."""
    value = json.loads(path.read_text())
    sealed = value.pop(files.SEAL, None) is not None
    change(value)
    (files.write_sealed if sealed else files.write_json)(path, value)


def first(folder: Path, pattern: str) -> Path:
    return min(folder.glob(pattern))


def other_points(path: Path) -> None:
    with np.load(path) as arrays:
        points = {key: arrays[key][::-1] for key in arrays}
    np.savez(path, **points)


def other_hd95(out: Path, kept: bool) -> None:
    """Another HD95 in cases.csv and, where asked for, in the record of the case too; all that follows is made anew."""
    path, record = out / "runs" / JOB / "cases.csv", first(out / "runs" / JOB / "evaluation", "*.json")
    table = read_csv(path, ("case", "organ"))
    chosen = table["case"] == record.stem
    table.loc[chosen, "hd95_mm"] = 1.5
    path.write_text(to_csv(table))
    if kept:
        edit(record, lambda value: value["rows"][0].update(hd95_mm=1.5))
    made_anew(out)


def other_mark(out: Path, name: str, value: object) -> None:
    """Something else that cases.csv says of its metrics; all that follows is made anew."""
    path = out / "runs" / JOB / "cases.csv"
    path.write_text(to_csv(read_csv(path, ("case", "organ")).assign(**{name: value})))
    made_anew(out)


def made_anew(out: Path) -> None:
    results.table1(out)
    runcard.run_card(load_profile("smoke", SETTINGS), out)


def other_map(out: Path, kept: bool) -> None:
    """Another predicted map; where asked for with its checksum made anew."""
    path = first(out / "runs" / JOB / "evaluation", "*.npz")
    with np.load(path) as arrays:
        labels = arrays["prepared"]
    labels[:] = 1 - (labels[::-1] > 0)
    np.savez_compressed(path, prepared=labels)
    if kept:
        edit(path.with_suffix(".json"), lambda value: value.update(labels=files.sha256(path)))
        made_anew(out)


def card_of(change: Callable[[Any], object], job: str = JOB) -> Callable[[Path], object]:
    return lambda out: edit(out / "runs" / job / "run.json", change)


def run_card_of(change: Callable[[Any], object]) -> Callable[[Path], object]:
    return lambda out: edit(out / "RUN.json", change)


STORED = "data/store/msd_spleen/*"
CHANGED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a voxel of the store": ("prepared scans of msd_spleen", lambda out: flip(first(out, f"{STORED}/image.npy"))),
    "a label of the store": ("prepared scans of msd_spleen", lambda out: flip(first(out, f"{STORED}/label.npy"))),
    "the points of the store": (
        "prepared scans of msd_spleen",
        lambda out: other_points(first(out, f"{STORED}/foreground.npz")),
    ),
    "no store": ("data msd_spleen", lambda out: shutil.rmtree(out / "data" / "store")),
    "a case less in the store": (
        "data msd_spleen",
        lambda out: edit(out / "data/store/msd_spleen/index.json", lambda value: value["cases"].pop()),
    ),
    "a raw scan": ("raw scans of msd_spleen", lambda out: flip(first(out / "data/raw", "*pleen/imagesTr/*"))),
    "a raw label": ("raw scans of msd_spleen", lambda out: flip(first(out / "data/raw", "*pleen/labelsTr/*"))),
    "no raw scan": ("raw scans of msd_spleen", lambda out: first(out / "data/raw", "*pleen/imagesTr/*").unlink()),
    "a setting that decides": (
        f"settings of {JOB}", card_of(lambda card: card["decides"]["finetune"].update(lr=9)),
    ),
    "a setting": (f"settings of {JOB}", card_of(lambda card: card["config"]["finetune"].update(lr=9))),
    "phantoms that are called scans": (
        f"settings of {JOB}", card_of(lambda card: card["config"]["data"].update(source="files")),
    ),
    "a mark of Table 2": (f"settings of {JOB}", card_of(lambda card: card["config"]["loss"].update(alpha=0))),
    "a setting of the pre-training": (
        "settings of pretrain", card_of(lambda card: card["config"]["loss"].update(alpha=9), "pretrain"),
    ),
    "the training cases": (f"settings of {JOB}", card_of(lambda card: card["train"].pop())),
    "the test cases": (f"settings of {JOB}", card_of(lambda card: card["test"].reverse())),
    "the weights it starts from": (f"settings of {JOB}", card_of(lambda card: card["decides"].update(init="none"))),
    "the commit": (f"runs/{JOB}/run.json", card_of(lambda card: card.update(commit="0" * 40))),
    "the name of the weights": (f"weights of {JOB}", card_of(lambda card: card.update(weights="0" * 64))),
    "the record of the training": (
        f"steps of {JOB}", lambda out: (out / "runs" / JOB / "metrics.jsonl").write_text(""),
    ),
    "a loss of the training": (
        f"runs/{JOB}/metrics.jsonl",
        lambda out: (out / "runs" / JOB / "metrics.jsonl").write_text('{"step": 1, "total": 0.0}\n'),
    ),
    "a loss of the training, and all that follows made anew": (
        f"steps of {JOB}",
        lambda out: [
            (out / "runs" / JOB / "metrics.jsonl").write_text('{"step": 1, "total": 0.0}\n'), made_anew(out),
        ],
    ),
    "HD95 in cases.csv": (f"cases of {JOB}", lambda out: other_hd95(out, kept=False)),
    "what pre-training saw": (f"cases of {JOB}", lambda out: other_mark(out, "pretrained_on", 7)),
    "the grid of the metrics": (f"cases of {JOB}", lambda out: other_mark(out, "grid", "original")),
    "a job that it took its weights from": (
        f"settings of {JOB}", card_of(lambda card: card.update(same_as=JOB.replace("mixcl", "scratch"))),
    ),
    "HD95 everywhere": (f"metrics of {JOB}", lambda out: other_hd95(out, kept=True)),
    "a predicted map": (f"cases of {JOB}", lambda out: other_map(out, kept=False)),
    "a predicted map and its checksum": (f"metrics of {JOB}", lambda out: other_map(out, kept=True)),
    "no predicted map": (
        f"cases of {JOB}", lambda out: first(out / "runs" / JOB / "evaluation", "*.npz").unlink(),
    ),
    "the settings of an evaluation": (
        f"cases of {JOB}",
        lambda out: edit(
            first(out / "runs" / JOB / "evaluation", "*.json"), lambda value: value["of"]["evaluate"].update(overlap=0)
        ),
    ),
    "a table in Markdown": (
        "tables/table1.md", lambda out: (out / "tables" / "table1.md").write_text("| Ours | 0.99 |\n"),
    ),
    "statistics and their checksum": (
        "tables/statistics.csv",
        lambda out: [
            (out / "tables" / "statistics.csv").write_text("p\n0.001\n"),
            runcard.run_card(load_profile("smoke", SETTINGS), out),
        ],
    ),
    "no outputs in RUN.json": ("tables/table1.csv", run_card_of(lambda card: card["outputs"].clear())),
    "an output less in RUN.json": (
        "tables/table1.md", run_card_of(lambda card: card["outputs"].pop("tables/table1.md")),
    ),
    "no jobs in RUN.json": ("jobs of RUN.json", run_card_of(lambda card: card["jobs"].clear())),
    "no data in RUN.json": ("data msd_spleen", run_card_of(lambda card: card["data"].clear())),
    "other seeds in RUN.json": ("seeds of RUN.json", run_card_of(lambda card: card["seeds"].update(pretrain=7))),
    "other settings in RUN.json": (
        "settings of RUN.json", run_card_of(lambda card: card["config"]["loss"].update(alpha=7)),
    ),
    "another commit in RUN.json": ("RUN.md", run_card_of(lambda card: card.update(commit="0" * 40))),
    "another day in RUN.json": ("RUN.md", run_card_of(lambda card: card.update(made="yesterday"))),
    "RUN.md": ("RUN.md", lambda out: (out / "RUN.md").write_text("# Run card\n")),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_whatever_is_changed_is_noticed(run: tuple[Experiment, Path], name: str) -> None:
    what, change = CHANGED[name]
    change(run[1])
    assert what in {check.what for check in off(run)}


def test_jobs_that_were_decided_otherwise_are_stale(run: tuple[Experiment, Path]) -> None:
    """By a hand's settings, by other cases, or by a pre-training that has been made again since."""
    config, out = run
    assert verify_jobs.stale(config, out) == []
    shutil.rmtree(first(out / "runs", "finetune-*scratch*"))
    assert verify_jobs.stale(config, out) == []  # not begun
    card_of(lambda card: card.update(weights="0" * 64), "pretrain")(out)
    assert verify_jobs.stale(config, out) == [JOB]
    card_of(lambda card: card["decides"]["loss"].update(alpha=9), "pretrain")(out)
    assert verify_jobs.stale(config, out) == ["pretrain", JOB]
    shutil.rmtree(out / "data" / "store")
    with pytest.raises(InputError):
        verify_jobs.stale(config, out)


def test_metrics_on_the_original_scans_are_measured_again(run: tuple[Experiment, Path]) -> None:
    """From the label files as they were given, and from the maps that were predicted for them."""
    config, out = load_profile("smoke", [*SETTINGS, "evaluate.grid=original"]), run[1]
    for job in jobs.finetunings(config):
        evaluate.evaluate(config, out, out / "runs" / job.name, progress=False)
    results.table1(out)
    runcard.run_card(config, out)
    write_expected(config, out, out / "expected.json")
    assert not off((config, out))
    path = first(out / "runs" / JOB / "evaluation", "*.npz")
    with np.load(path) as arrays:
        prepared, original = arrays["prepared"], arrays["original"]
    np.savez_compressed(path, prepared=prepared, original=1 - (original[::-1] > 0))
    edit(path.with_suffix(".json"), lambda value: value.update(labels=files.sha256(path)))
    assert [check.what for check in off((config, out))] == [f"metrics of {JOB}"]


@pytest.mark.parametrize("module", [verify_jobs, verify_files])
def test_code_that_was_changed_since_is_noticed(
    run: tuple[Experiment, Path], monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    monkeypatch.setattr(module, "code_id", lambda: "0" * 64)
    (check,) = off(run)
    assert check.what in ("code of 3 jobs", "code of tables and figures")
    assert check.actual == "0" * 12


def test_the_code_is_known_by_its_content(tmp_path: Path) -> None:
    package, notebooks = tmp_path / "mixcl", tmp_path / "notebooks"
    shutil.copytree(determinism.CODE, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(determinism.NOTEBOOKS, notebooks)
    assert determinism.code_of(package, notebooks) == determinism.code_id()
    book = notebooks / "11_finetune.ipynb"
    edit(book, lambda value: [cell.update(outputs=["x"]) for cell in value["cells"] if cell["cell_type"] == "code"])
    (notebooks / "01_identity_consistency.ipynb").write_text("played with")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").touch()
    assert determinism.code_of(package, notebooks) == determinism.code_id()
    edit(book, lambda value: value["cells"][-1].update(cell_type="code", source=["pass"]))
    changed = determinism.code_of(package, notebooks)
    assert changed != determinism.code_id()
    with (package / "losses.py").open("a") as file:
        file.write("#")
    assert determinism.code_of(package, notebooks) not in (changed, determinism.code_id())


def test_every_notebook_that_a_run_executes_is_part_of_the_code() -> None:
    jobs_of = {
        job.notebook
        for config in [load_profile("smoke")]
        for job in (*jobs.pretrainings(config), *jobs.finetunings(config))
    }
    assert set(jobs.NOTEBOOKS.values()) | jobs_of == set(determinism.EXECUTED)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", "{", '{"outputs": {}}', "[" * 10000, "1" * 4301])
def test_a_missing_or_broken_run_card_is_one_sentence(run: tuple[Experiment, Path], text: str | None) -> None:
    (run[1] / "RUN.json").unlink()
    if text is not None:
        (run[1] / "RUN.json").write_text(text)
    with pytest.raises(
        InputError, match=r"RUN\.json: no run card, or a broken one; finish reproduce/run_all.sh"
    ) as raised:
        off(run)
    assert "\n" not in str(raised.value)


def test_it_says_what_it_did_not_look_at(run: tuple[Experiment, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = run
    text = verify.report(verified(config, out, out / "expected.json"))
    assert "not looked at: whether weights follow from their training cases: only a training tells" in text
    assert "metrics from predicted maps" not in text
    monkeypatch.setattr(verify_jobs, "MEASURED", 1)
    monkeypatch.setattr(verify_files, "BYTES", 1)
    shutil.rmtree(out / "data" / "raw" / "kits19", ignore_errors=True)
    text = verify.report(verified(config, out, out / "expected.json"))
    assert re.search(r"not looked at: metrics from predicted maps: \d+ of \d+; --full takes all", text)
    assert re.search(r"not looked at: prepared scans of msd_spleen: \d+ of \d+; --full takes all", text)
    assert "not looked at: raw scans of kits19: " in text
    assert "all equal" in text
    full = verify.report(verified(config, out, out / "expected.json", full=True))
    assert "--full" not in full


def test_a_run_that_does_not_name_its_code_is_told(run: tuple[Experiment, Path]) -> None:
    config, out = run
    for path in out.glob("runs/*/run.json"):
        edit(path, lambda card: card.pop("code"))
    runcard.run_card(config, out)
    text = verify.report(verified(config, out, out / "expected.json"))
    assert "not looked at: which code made 3 jobs" in text
    assert "all equal" in text
