"""The command line as people meet it: bad input is one sentence and exit code 2, never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from mixcl import cli
from mixcl import evaluate as measuring
from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.results.runs import read_runs
from mixcl.results.statistics import fold_scores
from mixcl.run.checkpoint import read_weights
from mixcl.run.folders import listed, settings_of
from mixcl.run.record import read_card


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``mixcl ARGUMENTS``."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    code = stop.value.code
    return (code if isinstance(code, int) else 0), out, err


@pytest.fixture(scope="module")
def made(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder of results with a pre-training and a fine-tuning run, and the options that lead to it."""
    out = tmp_path_factory.mktemp("cli")
    common = ["--profile", "smoke", "--out", str(out), "--set", f"data.store={prepared / 'data' / 'store'}"]
    for words in (["pretrain"], ["finetune", "--task", "msd_spleen", "--init", "pretrain"]):
        with pytest.raises(SystemExit) as stop:
            cli.main([*words, *common])
        assert stop.value.code == 0
    return out, common


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["prepare"], ["pretrain"], ["finetune"], ["evaluate"], ["export"], ["data", "prepare"]):
        code, out, _ = run(capsys, *words, "--help")
        assert code == 0
        assert "Usage: mixcl" in out


def test_no_line_of_help_is_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`Pre-train with MixCL on the pooled collections (Eq.` was one."""
    monkeypatch.setenv("COLUMNS", "80")
    for words in ([], ["data"]):
        _, text, _ = run(capsys, *words, "-h")
        lines = text[text.index("Commands:") :].splitlines()[1:]
        assert len(lines) >= 3
        assert all(line.startswith("  ") and line.endswith(".") and not line.endswith("..") for line in lines), lines
        assert "(Eq." not in text


def test_help_and_mistakes_are_quick() -> None:
    """Help loads no settings and no numpy; neither torch nor MONAI is loaded to say what is wrong, or to list runs."""
    code = (
        "import sys\nfrom mixcl import cli\n"
        "def run(*words, code=0):\n"
        "    try: cli.main(list(words))\n"
        "    except SystemExit as stop: assert (stop.code or 0) == code, stop.code\n"
        "run('--help')\n"
        "assert not {'pydantic', 'numpy', 'yaml'} & set(sys.modules), 'heavy help'\n"
        "run('pretrain', '--profile', 'nonsense', code=2)\n"
        "run('evaluate', '--run', 'nonsense', code=2)\n"
        "run('runs')\n"
        "assert not {'monai', 'torch', 'pandas', 'scipy'} & set(sys.modules), 'heavy'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("words", [["prepare"], ["pretrain"], ["finetune", "--task", "btcv"], ["verify"]])
def test_something_is_said_before_anything_heavy_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    class Heavy(Exception):
        pass

    def stop(name: str, *_: object) -> None:
        if name.partition(".")[0] in ("torch", "monai", "pandas") or name.startswith(("mixcl.data", "mixcl.trainer")):
            raise Heavy

    for name in [name for name in sys.modules if name.startswith(("mixcl.data", "mixcl.trainer", "mixcl.results"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=stop), *sys.meta_path])
    code, out, err = run(capsys, *words, "--profile", "smoke", "--out", str(tmp_path))
    assert (code, "unexpected Heavy" in err) == (1, True)
    assert out == f"profile smoke, results in {tmp_path}\n"


FINETUNED = "finetune-msd_spleen-p100-mixcl-f0-s0"


def test_runs_are_listed(made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, _ = made
    code, text, _ = run(capsys, "runs", "--out", str(out))
    assert code == 0
    assert text.startswith(f"{out}: 2 runs\n")
    row = next(line for line in text.splitlines() if line.split()[0] == "pretrain")
    assert row.split()[1:5] == ["trained", "4", "of", "4"]
    code, text, err = run(capsys, "runs", "--out", str(tmp_path))
    assert (code, text) == (0, f"no runs in {tmp_path}\n")
    assert err == f"next: mixcl prepare --out {tmp_path}\n"


@pytest.mark.parametrize(
    "words", [["evaluate", "--run"], ["finetune", "--task", "btcv", "--profile", "smoke", "--init"]]
)
def test_a_wrong_run_names_the_nearest(
    made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    out, _ = made
    for wrong, right in ((FINETUNED.replace("mixcl", "mixl"), FINETUNED), ("pretrian", "pretrain")):
        code, _, err = run(capsys, *words, wrong, "--out", str(out))
        assert (code, err.count("\n")) == (2, 1)
        assert f"{wrong}: no such run" in err
        assert f"did you mean '{right}'?" in err


@pytest.mark.parametrize("named", ["name and --out", "name alone", "path"])
def test_an_evaluation_needs_no_settings(
    made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    named: str,
) -> None:  # fmt: skip
    """The run's card says profile, store and all; what is asked for on top counts."""
    out, _ = made
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mine").symlink_to(out)
    monkeypatch.chdir(tmp_path)
    asked = []

    def record(config: Experiment, folder: Path, job: Path, **_: object) -> pd.DataFrame:
        asked.append((config, folder.resolve(), job.resolve()))
        return pd.DataFrame({"organ": ["spleen"], "dice": [0.5], "hd95_mm": [1.0], "surface_dice": [0.5]})

    monkeypatch.setattr(measuring, "evaluate", record)
    words = {"path": [f"results/mine/runs/{FINETUNED}"], "name and --out": [FINETUNED, "--out", str(out)]}
    code, text, err = run(capsys, "evaluate", "--run", *words.get(named, [FINETUNED]), "--set", "evaluate.overlap=0.75")
    assert code == 0, err
    (config, folder, job), card = asked[0], read_card(out / "runs" / FINETUNED)
    assert (folder, job) == (out, out / "runs" / FINETUNED)
    assert config.evaluate.overlap == 0.75
    assert config.model_dump(mode="json", exclude={"evaluate"}).items() <= card["config"].items()
    assert "spleen" in text


def test_a_name_that_two_folders_have_must_be_said_whole(
    made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    for name in ("one", "two"):
        (tmp_path / "results" / name).symlink_to(made[0])
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "export", "--to", "e.safetensors")
    assert code == 2
    assert "is in results/one/runs/pretrain and in results/two/runs/pretrain" in err


def test_a_profile_says_how_to_evaluate_and_where_the_data_is(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: smoke\nevaluate: {grid: original}\nmodel: {feature: 8}\ndata: {store: /elsewhere}\n")
    config = settings_of(made[0] / "runs" / FINETUNED, profile=str(mine))
    assert (config.evaluate.grid, config.data.store) == ("original", "/elsewhere")
    assert (config.profile, config.model.feature) == ("smoke", load_profile("smoke").model.feature)


def test_settings_of_another_version_are_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"config": {"loss": {"gamma": 1}}}')
    with pytest.raises(InputError, match=r"run\.json: loss\.gamma is no setting of this version"):
        settings_of(tmp_path)


def test_each_end_names_the_next_command(
    made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, common = made
    words = " ".join(common)
    code, _, err = run(capsys, "pretrain", *common)  # finished before: at once
    assert (code, err.splitlines()[-2:]) == (0, [
        f"next: mixcl finetune --task msd_spleen --init pretrain {' '.join([*common[:2], *common[2:]])}",
        f"next: mixcl export --run {out}/runs/pretrain --to encoder.safetensors",
    ]), words  # fmt: skip
    _, _, err = run(capsys, "finetune", "--task", "msd_spleen", "--init", "pretrain", *common)
    assert err.splitlines()[-1] == f"next: mixcl evaluate --run {out}/runs/{FINETUNED}"
    monkeypatch.setenv("MIXCL_HINTS", "no")
    _, _, err = run(capsys, "finetune", "--task", "msd_spleen", "--init", "pretrain", *common)
    assert "next:" not in err


def test_a_shell_completes_commands_profiles_and_runs(
    made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mine").symlink_to(made[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("_MIXCL_COMPLETE", "complete_bash")
    for typed, offered in (
        ("mixcl fine", {"finetune"}), ("mixcl pretrain --profile pap", {"paper", "paper-steps", "paper-balanced"}),
        ("mixcl evaluate --run results/mine/runs/fine", {f"results/mine/runs/{FINETUNED}"}),
    ):  # fmt: skip
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
        code, text, _ = run(capsys)
        assert (code, set(text.split())) == (0, offered)


@pytest.mark.slow
def test_the_whole_way(made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, job = made[0], FINETUNED
    code, text, _ = run(capsys, "evaluate", "--run", job, "--save-predictions", "--out", str(out))
    assert code == 0
    assert "spleen" in text
    assert (out / "runs" / job / "cases.csv").is_file()
    assert list((out / "runs" / job / "predictions").glob("*.nii.gz"))
    row = next(row for row in listed(out)[out] if row.job == job)
    assert row.state == "evaluated"
    scores = fold_scores(read_runs(out).cases)
    assert row.dice == pytest.approx(scores.set_index("job").loc[job, "dice"])
    code, text, _ = run(capsys, "export", "--to", str(tmp_path / "encoder.safetensors"), "--out", str(out))
    assert code == 0
    assert "load_state_dict" in text
    compile(text, "what export prints", "exec")


def test_an_export_has_the_settings_that_are_given(
    made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, bundle, of = tmp_path / "vit.safetensors", tmp_path / "bundle", ("--out", str(made[0]))
    code, _, _ = run(capsys, "export", *of, "--to", str(file), "--set", "finetune.transfer=vit")
    weights, facts = read_weights(file)
    assert (code, facts["transfer"]) == (0, "vit")
    assert {name.partition(".")[0] for name in weights} == {"vit"}
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: smoke\nevaluate: {windows: 3}\n")
    given = ("--run", FINETUNED, "--profile", str(mine), "--set", "evaluate.overlap=0.125")
    assert run(capsys, "export", *of, "--to", str(bundle), *given)[0] == 0
    inferer = json.loads((bundle / "configs" / "inference.json").read_text())["inferer"]
    assert (inferer["overlap"], inferer["sw_batch_size"]) == (0.125, 3)
    for wrong, sentence in (
        ("evaluate.overlpa=0", "did you mean 'overlap'"),
        ("finetune.transfer=half", "'finetune.transfer': input should be 'encoder', 'vit' or 'all' (got 'half')"),
        ("model.patch=64", "pretrain: was trained with model.patch = 32, not 64; leave that out, or train it anew"),
        ("data.phantom.counts={}", "was trained with data.phantom.counts."),
        (f"grid.n_folds=3 --run {FINETUNED}", "was trained with grid.n_folds = 5, not 3"),
    ):
        code, text, err = run(capsys, "export", *of, "--to", str(tmp_path / "no.safetensors"), "--set", *wrong.split())
        assert (code, text) == (2, "")
        assert sentence in err.splitlines()[-1]
    assert not (tmp_path / "no.safetensors").exists()


@pytest.mark.parametrize("words", [["prepare"], ["pretrain"], ["finetune"], ["evaluate"], ["verify"], ["export"]])
def test_every_command_of_a_profile_takes_the_shared_options(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    _, text, _ = run(capsys, *words, "--help")
    assert all(f"{option} " in text for option in ("--profile", "--set", "--out"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pretrain", "--profile", "phantm"], "did you mean 'phantom'"),
        (["pretrain", "--profile", "smoke", "--set", "loss.alhpa=1"], "did you mean 'alpha'"),
        (["pretrain", "--profile", "smoke", "--set", "pretrain.steps=ten"], "valid integer"),
        (["pretrain", "--profile", "smoke", "--out", "{tmp}"], "prepare"),
        (["finetune", "--task", "spleen", "--profile", "smoke", "--out", "{tmp}"], "prepare"),
        (["export", "--profile", "smoke", "--out", "{tmp}", "--to", "e.safetensors"], "pretrain: no such run"),
        (["evaluate", "--profile", "smoke", "--out", "{tmp}", "--run", "nowhere"], "nowhere"),
        (["prepare", "--profile", "paper", "--set", "data.root={tmp}/none", "--out", "{tmp}"], "no such folder"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], sentence: str) -> None:
    code, _, err = run(capsys, *(word.replace("{tmp}", str(tmp_path)) for word in words))
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert "mixcl: " in err


@pytest.mark.parametrize("closed", ["1>&-", "2>&-"])
def test_a_closed_stream_is_no_fault(tmp_path: Path, closed: str) -> None:
    words = f"{sys.executable} -m mixcl data get btcv --to {tmp_path} {closed}"
    assert subprocess.run(["sh", "-c", words], capture_output=True).returncode == 0


def test_what_is_no_folder_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for words, said in (
        (["runs", "--out", str(tmp_path / "nowhere")], "nowhere: no such folder"),
        (["runs", "--out", str(tmp_path / "file")], "file: is a file; give a folder"),
        (["data", "get", "btcv", "--to", str(tmp_path / "file")], "file: is a file; give a folder"),
    ):
        code, _, err = run(capsys, *words)
        assert code == 2, words
        assert said in err


@pytest.mark.parametrize("words", [["finetune"], ["frobnicate"], ["pretrain", "--colour", "red"], ["export"]])
def test_wrong_words(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "Traceback" not in err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "pretrain", "--profile", "smoke", "--out", str(tmp_path), "--debug")
    assert code == 2
    assert "Traceback" in err


def test_weights_that_are_none(
    made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, common = made
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    for file, sentence in ((torn, "torn.safetensors"), (tmp_path / "old.pth", "no such weights")):
        code, _, err = run(capsys, "finetune", "--task", "btcv", "--init", str(file), *common)
        assert code == 2
        assert sentence in err


def test_changed_settings_are_refused(made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    _, common = made
    code, _, err = run(capsys, "pretrain", *common, "--set", "loss.alpha=0.5")
    assert code == 2
    assert "loss.alpha" in err
    assert "--restart" in err


def test_faulty_scans_are_named_together(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Several faults at once: each gets its line, which moves no terminal; the good case is kept."""
    folder = tmp_path / "mine"
    good = np.full((40, 40, 40), 40, np.int16)
    good[:8], labels = -1000, np.zeros((40, 40, 40), np.uint8)
    labels[15:25, 15:25, 15:25] = 1
    for case, image, label in (("a", good, labels), ("b", np.stack([good] * 2, -1), labels), ("c", good, labels * 9)):
        (folder / case).mkdir(parents=True)
        nib.save(nib.Nifti1Image(image, np.diag([1.5, 1.5, 2, 1])), folder / case / "ct.nii.gz")
        nib.save(nib.Nifti1Image(label, np.diag([1.5, 1.5, 2, 1])), folder / case / "seg.nii.gz")
    whole = (folder / "a" / "ct.nii.gz").read_bytes()
    for case in ("d", "e\x1b[2J"):
        (folder / case).mkdir()
        (folder / case / "ct.nii.gz").write_bytes(whole[: len(whole) // 2])
        (folder / case / "seg.nii.gz").write_bytes((folder / "a" / "seg.nii.gz").read_bytes())
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        "extends: paper\n"
        f"data: {{root: {tmp_path}, pretrain: [mine], finetune: [], collections: {{mine: {{root: mine, "
        "image: '{case}/ct.nii.gz', label: '{case}/seg.nii.gz', names: {1: liver}}}}\n"
    )
    code, _, err = run(capsys, "prepare", "--profile", str(profile), "--out", str(tmp_path / "out"))
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("- ")]
    for word in ("b/ct.nii.gz", "c/seg.nii.gz", "d/ct.nii.gz", "e\\x1b[2J/ct.nii.gz"):
        assert [word in line for line in lines].count(True) == 1
    assert "Traceback" not in err
    assert "\x1b" not in err
    assert (tmp_path / "out/data/store/mine/a/case.json").is_file()
    code, out, _ = run(capsys, "data", "check", "--profile", str(profile), "--out", str(tmp_path / "out"))
    assert code == 1
    assert "e\\x1b[2J/ct.nii.gz" in out
    assert "\x1b" not in out


def test_what_starts_fresh_is_not_called_mixcl(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "finetune", "--task", "btcv", "--arm", "mixcl", "--out", str(tmp_path))
    assert (code, "there is no --init; give one" in err) == (2, True)


NAMES = [["pretrain", "--job", ".."], ["pretrain", "--job", "."], ["pretrain", "--job", "../../x"]]


@pytest.mark.parametrize("words", [*NAMES, ["finetune", "--task", "msd_spleen", "--arm", "../../x"]])
def test_no_name_leads_out_of_its_folder(
    made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """With --restart such a name once took away the whole folder of results."""
    out, common = made
    before = sorted(path for path in out.parent.rglob("*"))
    code, _, err = run(capsys, *words, "--restart", *common)
    assert code == 2
    assert err.count("\n") == 1
    assert words[-1] in err
    assert sorted(path for path in out.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_process_that_is_started_again_drops_nothing_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "0")
    assert cli.shared.restarting(True) == "always"
    monkeypatch.setenv(name, "1")
    assert (cli.shared.restarting(True), cli.shared.restarting(False)) == ("changed", "never")
