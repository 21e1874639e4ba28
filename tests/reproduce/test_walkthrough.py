"""The walk-through notebooks: run as jobs on phantoms and on real CT, and as they are committed."""

from __future__ import annotations

import ast
import base64
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.pages import cells
from helpers.realct import IRCAD

from mixcl.config import load_profile
from mixcl.data.registry import BTCV_NAMES

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
EXPECTED = (
    "00_overview", "01_identity_consistency", "02_label_consistency", "03_pixel_sampling", "04_reconstruction",
    "05_views", "06_your_own_data",
)  # fmt: skip
LARGEST = 500_000
CALLED = {  # which equation's function stands directly below it, by notebook
    "01_identity_consistency": {"5": ("losses.cross_correlation",), "4": ("losses.identity_consistency",)},
    "02_label_consistency": {"6": ("losses.label_relation", "losses.label_consistency")},
    "03_pixel_sampling": {"7": ("sampler.boundary_distance", "sampler.weight_map", "sampler.sample_pixels")},
    "04_reconstruction": {"3": ("losses.reconstruction_consistency",)},
}
LINES = 8  # of a cell that calls an equation's function below its formula


def sources(path: Path) -> list[tuple[str, str]]:
    """Kind and text of every cell, without that in which papermill puts what it was given."""
    return [
        (cell["cell_type"], "".join(cell["source"]))
        for cell in cells(path)
        if "injected-parameters" not in cell["metadata"].get("tags", [])
    ]


def counts(path: Path) -> list[int | None]:
    return [cell["execution_count"] for cell in cells(path) if cell["cell_type"] == "code"]


def pictures(path: Path) -> int:
    outputs = [output for cell in cells(path) for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def check_whole(executed: Path) -> None:
    """A copy's cells must all have run, in order, and show as many pictures as the committed notebook of that name."""
    notebook = ROOT / "notebooks" / executed.name
    made = counts(executed)
    assert made == list(range(1, len(made) + 1))
    assert pictures(executed) == pictures(notebook) > 0
    assert sources(executed) == sources(notebook)


@pytest.fixture(scope="module")
def real_profile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A profile of two collections of real scans whose labels differ, where there are any."""
    try:
        realct = request.getfixturevalue("realct")
    except pytest.skip.Exception:
        return None
    profile = {
        "extends": "phantom",
        "data": {
            "source": "files", "root": str(realct), "spacing": [5.0, 5.0, 5.0],
            "collections": {
                "ircad": {"image": "ircad{case}/ct.nii.gz", "label": "ircad{case}/seg.nii.gz", "names": IRCAD},
                "total": {"image": "s0{case}/ct.nii.gz", "label": "s0{case}/seg_btcv13.nii.gz", "names": BTCV_NAMES},
            },
            "pretrain": ["ircad", "total"],
            "finetune": [],
        },
        "model": {"patch": 32},
    }  # fmt: skip
    path = tmp_path_factory.mktemp("profile") / "real.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("walkthrough")


@pytest.fixture(scope="module")
def executed(real_profile: Path | None, folder: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder of all notebooks, executed out of one kernel on phantoms and, where there are any, real scans."""
    words: list[str] = []
    for notebook in NOTEBOOKS:
        number = notebook.name[:2]
        given: dict[str, dict[str, object]] = {
            "phantoms": {"OUT": str(folder / {"03": "fine", "05": "fine", "06": "own"}.get(number, "coarse"))}
        }
        if real_profile:
            given["real"] = {
                "OUT": str(folder / ("real-own" if number == "06" else "real")), "PROFILE": str(real_profile),
                "SETTINGS": ["loss.alpha=10"] if number == "02" else [],
            }  # fmt: skip
        steps = {"STEPS": 2} if re.search(r"^STEPS = ", sources(notebook)[1][1], re.MULTILINE) else {}
        words.append(str(notebook))
        for kind, parameters in given.items():
            words += [str(folder / kind / notebook.name), json.dumps(parameters | steps)]
    command = [sys.executable, str(ROOT / "reproduce/run_notebook.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return folder, done


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_it_runs_on_phantoms(name: str, executed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = executed
    assert done.returncode == 0, done.stdout + done.stderr
    check_whole(folder / "phantoms" / f"{name}.ipynb")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_it_runs_on_real_ct(name: str, executed: tuple[Path, subprocess.CompletedProcess[str]], realct: Path) -> None:
    """Unchanged, with a profile of own collections; nothing says that they are phantoms."""
    made = executed[0] / "real" / f"{name}.ipynb"
    check_whole(made)
    assert "patients." not in "".join(re.findall(r'"text/plain": \[(.*?)\]', made.read_text(), re.DOTALL))


def test_all_are_there() -> None:
    assert tuple(path.stem for path in NOTEBOOKS) == EXPECTED


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_executed(path: Path) -> None:
    """Counts 1 to n, pictures, no error, no path of a machine, small enough for a code host to show."""
    made = counts(path)
    assert made == list(range(1, len(made) + 1))
    assert pictures(path) >= 2
    assert path.stat().st_size <= LARGEST
    assert set(json.loads(path.read_text())["metadata"]) == {"kernelspec", "language_info"}
    for cell in cells(path):
        assert set(cell["metadata"]) <= {"tags"}
        for output in cell.get("outputs", []):
            assert output["output_type"] in ("display_data", "execute_result", "stream")
            assert output.get("name") != "stderr", output["text"]
            shown = {kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")}
            text = json.dumps([output.get("text", ""), shown])
            assert not re.search(r"(?<![\w.:/<])/(?!/)[A-Za-z][\w.-]*/", text.replace("</", "<")), text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pictures_are_sharp_and_told_in_words(path: Path) -> None:
    """Alternative texts of one sentence or more; all but the curves of a training at twice the pixels of their size."""
    outputs = [output for cell in cells(path) for output in cell.get("outputs", [])]
    for output in outputs:
        if "image/png" in output.get("data", {}):
            metadata = output["metadata"]["image/png"]
            assert len(metadata["alt"]) > 20
            assert "curves by step" in metadata["alt"].lower() or 2 * metadata["width"] in range(*twice(output))


def twice(output: dict[str, Any]) -> tuple[int, int]:
    """Width of a picture in pixels, and an odd one's."""
    data = base64.b64decode("".join(output["data"]["image/png"]))
    wide = int.from_bytes(data[16:20], "big")  # of the PNG's header
    return wide - 1, wide + 1


def test_sliders_start_where_the_settings_are() -> None:
    """Each control is a default of what draws: the paper's values stand in the settings, and 0.5 is half the height."""
    started: dict[str, set[str]] = {}
    for path in NOTEBOOKS:
        for kind, source in sources(path):
            for node in ast.walk(ast.parse(source if kind == "code" else "")):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "scene.slider":
                    draw = node.args[0]
                    assert isinstance(draw, ast.Lambda)
                    assert len(draw.args.args) == len(draw.args.defaults) == len(node.keywords)
                    for name, start in zip(draw.args.args, draw.args.defaults, strict=True):
                        started.setdefault(name.arg, set()).add(ast.unparse(start))
    assert {name: started[name] for name in ("lam", "tau", "mu", "eps", "r")} == {
        name: {name} for name in ("lam", "tau", "mu", "eps", "r")
    }
    paper = load_profile("walkthrough")
    assert (paper.loss.lam, paper.loss.temperature) == (0.0051, 0.1)
    assert (paper.sampler.mu, paper.sampler.eps, paper.sampler.budget) == (8, 0.05, 128)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_an_article_without_logic(path: Path) -> None:
    everything = cells(path)
    first_code = next(cell for cell in everything if cell["cell_type"] == "code")
    assert first_code["metadata"]["tags"] == ["parameters"]
    assert {"PROFILE", "SETTINGS", "OUT"} <= set(re.findall(r"^([A-Z]+) = ", "".join(first_code["source"]), re.M))
    assert everything[0]["cell_type"] == everything[-1]["cell_type"] == "markdown"
    assert "**Question.**" in "".join(everything[0]["source"])
    last = " ".join("".join(everything[-1]["source"]).split())
    assert "**What this shows:**" in last
    assert "**What it does not:**" in last
    assert "phantom" in last.lower()
    for cell in everything:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            assert len(source.splitlines()) <= 15
            assert not re.search(r"^\s*(class|def|for .*range\(STEPS)", source, re.MULTILINE)


def calls(source: str) -> set[str]:
    """What a cell calls, as it is written, such as losses.cross_correlation."""
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("name", CALLED)
def test_equations_are_called_below_their_formulas(name: str) -> None:
    """A formula with its number, then a short cell that calls its function and names shapes, and shows a picture."""
    everything = cells(ROOT / "notebooks" / f"{name}.ipynb")
    for number, functions in CALLED[name].items():
        left = set(functions)
        for above, cell in itertools.pairwise(everything):
            text, source = "".join(above["source"]), "".join(cell["source"])
            if above["cell_type"] == "markdown" and "$$" in text and re.search(rf"Eq\. {number}\b", text):
                left -= calls(source)
                assert 3 <= len(source.splitlines()) <= LINES
                assert "  # " in source
                assert any({"image/png", "text/html"} & set(output.get("data", {})) for output in cell["outputs"])
        assert not left, f"Eq. {number}"


def test_views_are_made_by_the_package() -> None:
    made = set().union(*(calls("".join(c["source"])) for c in cells(NOTEBOOKS[5]) if c["cell_type"] == "code"))
    assert {"augment.spatial", "augment.views"} <= made


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_profile_holds_what_notebooks_share(path: Path) -> None:
    values: dict[str, Any] = {}
    exec(sources(path)[1][1], values)
    fine = path.stem in ("03_pixel_sampling", "05_views")
    assert values["PROFILE"] == ("walkthrough-fine" if fine else "walkthrough")
    assert not any(setting.startswith("data.") for setting in values["SETTINGS"])


@pytest.mark.parametrize(
    ("outputs", "fault"),
    [
        ([{"output_type": "stream", "name": "stdout", "text": ["/mnt/ann/results\n"]}], "path"),
        ([{"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}], "ValueError"),
        ([{"output_type": "stream", "name": "stdout", "text": ["x" * LARGEST]}], "bytes"),
        ([{"output_type": "stream", "name": "stdout", "text": [f"{ROOT}/mixcl/losses.py\n"]}], None),
    ],
)
def test_cleaning(outputs: list[dict[str, Any]], fault: str | None, tmp_path: Path) -> None:
    """What is of one run goes, what must not be committed is refused and leaves the kept copy as it was."""
    cell = {
        "cell_type": "code", "id": "a", "execution_count": 1, "source": ["1\n", "2"], "outputs": outputs,
        "metadata": {"papermill": {"duration": 1.0}, "tags": []},
    }  # fmt: skip
    metadata = {"papermill": {"input_path": "x"}, "widgets": {}}
    executed, kept = tmp_path / "executed.ipynb", tmp_path / "kept.ipynb"
    executed.write_text(json.dumps({"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    kept.write_text("before")
    command = [sys.executable, str(ROOT / "reproduce/clean_notebook.py"), str(executed), str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if fault:
        assert done.returncode == 1
        assert fault in done.stdout
        assert kept.read_text() == "before"
        return
    assert done.returncode == 0, done.stdout
    (made,) = cells(kept)
    assert made["metadata"] == {}
    assert made["outputs"][0]["text"] == ["mixcl/losses.py\n"]
    assert "papermill" not in kept.read_text()
