"""The notebooks, run as the workflow runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from helpers.pages import cells

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(set((ROOT / "notebooks").glob("[1-9]*.ipynb")) - {ROOT / "notebooks/31_does_it_work.ipynb"})


def execute(name: str, executed: Path, **parameters: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "reproduce/run_notebook.py"), str(ROOT / "notebooks" / f"{name}.ipynb")]
    return subprocess.run(
        [*command, str(executed), json.dumps(parameters)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_several_copies_come_out_of_one_kernel_as_if_each_had_its_own(prepared: Path, tmp_path: Path) -> None:
    """Counts start at 1, nothing is left of the copy before, and a failing copy does not stop the next."""
    store = f"data.store={prepared / 'data' / 'store'}"
    common = {"PROFILE": "smoke", "SETTINGS": [store], "OUT": str(tmp_path)}
    places = [tmp_path / "runs" / f"finetune-msd_spleen-p100-scratch-f{fold}-s0" / "11.ipynb" for fold in (0, 9, 1)]
    words: list[str] = []
    for place, fold in zip(places, (0, 9, 1), strict=True):
        words += [str(place), json.dumps({**common, "FOLD": fold, **({"SEED": 1} if fold == 0 else {})})]
    command = [sys.executable, str(ROOT / "reproduce/run_notebook.py"), str(ROOT / "notebooks/11_finetune.ipynb")]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "fold 9" in done.stdout
    for place in (places[0], places[2]):
        counts = [cell["execution_count"] for cell in cells(place) if cell["cell_type"] == "code"]
        assert counts == list(range(1, len(counts) + 1))
    assert (tmp_path / "runs/finetune-msd_spleen-p100-scratch-f0-s1/cases.csv").is_file()
    assert (tmp_path / "runs/finetune-msd_spleen-p100-scratch-f1-s0/cases.csv").is_file()  # SEED is the default again


def test_notebooks_of_a_relative_folder_follow_each_other_in_it(tmp_path: Path) -> None:
    words = []
    for name in "ab":
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; print(os.getcwd())")])
        (tmp_path / name).mkdir()
        nbformat.write(notebook, tmp_path / name / "where.ipynb")
        words += [f"{name}/where.ipynb", f"{name}.ipynb", "{}"]
    command = [sys.executable, str(ROOT / "reproduce/run_notebook.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Error" not in done.stdout + done.stderr
    for name in "ab":
        ((output,),) = [cell["outputs"] for cell in cells(tmp_path / f"{name}.ipynb")]
        assert Path("".join(output["text"]).strip()) == tmp_path / name


def test_a_wrong_parameter_is_an_error(tmp_path: Path) -> None:
    done = execute("10_pretrain", tmp_path / "x.ipynb", PROFIL="smoke")
    assert done.returncode == 2
    assert "PROFIL" in done.stdout


def test_a_failing_cell_is_told_in_two_lines(tmp_path: Path) -> None:
    done = execute("10_pretrain", tmp_path / "runs/pretrain/10.ipynb", PROFILE="smoke", OUT=str(tmp_path))
    assert done.returncode == 1
    assert "InputError" in done.stdout
    assert "prepare" in done.stdout
    assert "10.ipynb" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_articles_without_logic(path: Path) -> None:
    """A parameters cell of literals, no output committed, short cells, no loop over training, no class."""
    everything = cells(path)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in everything) == 1
    assert everything[0]["cell_type"] == everything[-1]["cell_type"] == "markdown"
    assert "What it does not" in " ".join("".join(everything[-1]["source"]).split())
    for cell in everything:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            assert len(source.splitlines()) <= 15
            assert "class " not in source
            assert "def " not in source
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
