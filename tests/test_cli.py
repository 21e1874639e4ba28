"""The command line as people meet it: bad input is one sentence and exit code 2, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mixcl import cli


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


def test_help_and_mistakes_are_quick() -> None:
    """Neither torch nor MONAI is loaded to say what is wrong with a setting."""
    code = (
        "import sys\nfrom mixcl import cli\n"
        "try: cli.main(['pretrain', '--profile', 'nonsense'])\n"
        "except SystemExit as stop: assert stop.code == 2\n"
        "import mixcl\nassert not {'monai'} & set(sys.modules), 'heavy'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
def test_the_whole_way(made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, common = made
    job = "finetune-msd_spleen-p100-mixcl-f0-s0"
    code, text, _ = run(capsys, "evaluate", "--run", job, "--save-predictions", *common)
    assert code == 0
    assert "spleen" in text
    assert (out / "runs" / job / "cases.csv").is_file()
    assert list((out / "runs" / job / "predictions").glob("*.nii.gz"))
    code, text, _ = run(capsys, "export", "--to", str(tmp_path / "encoder.safetensors"), *common)
    assert code == 0
    assert "load_state_dict" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pretrain", "--profile", "phantm"], "did you mean 'phantom'"),
        (["pretrain", "--profile", "smoke", "--set", "loss.alhpa=1"], "did you mean 'alpha'"),
        (["pretrain", "--profile", "smoke", "--set", "pretrain.steps=ten"], "valid integer"),
        (["pretrain", "--profile", "smoke", "--out", "{tmp}"], "prepare"),
        (["finetune", "--task", "spleen", "--profile", "smoke", "--out", "{tmp}"], "prepare"),
        (["export", "--profile", "smoke", "--out", "{tmp}", "--to", "e.safetensors"], "no such weights"),
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
    """Several faults at once: each gets its sentence, the good case is kept."""
    folder = tmp_path / "mine"
    good = np.full((40, 40, 40), 40, np.int16)
    good[:8], labels = -1000, np.zeros((40, 40, 40), np.uint8)
    labels[15:25, 15:25, 15:25] = 1
    for case, image, label in (("a", good, labels), ("b", np.stack([good] * 2, -1), labels), ("c", good, labels * 9)):
        (folder / case).mkdir(parents=True)
        nib.save(nib.Nifti1Image(image, np.diag([1.5, 1.5, 2, 1])), folder / case / "ct.nii.gz")
        nib.save(nib.Nifti1Image(label, np.diag([1.5, 1.5, 2, 1])), folder / case / "seg.nii.gz")
    whole = (folder / "a" / "ct.nii.gz").read_bytes()
    (folder / "d").mkdir()
    (folder / "d" / "ct.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "d" / "seg.nii.gz").write_bytes((folder / "a" / "seg.nii.gz").read_bytes())
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        "extends: paper\n"
        f"data: {{root: {tmp_path}, pretrain: [mine], finetune: [], collections: {{mine: {{root: mine, "
        "image: '{case}/ct.nii.gz', label: '{case}/seg.nii.gz', names: {1: liver}}}}\n"
    )
    code, _, err = run(capsys, "prepare", "--profile", str(profile), "--out", str(tmp_path / "out"))
    assert code == 2
    for word in ("b/ct.nii.gz", "c/seg.nii.gz", "d/ct.nii.gz"):
        assert word in err
    assert "Traceback" not in err
    assert (tmp_path / "out/data/store/mine/a/case.json").is_file()


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
