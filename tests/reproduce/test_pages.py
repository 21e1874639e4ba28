"""The pages: the README keeps its size and its promises, links lead somewhere, tables name code that exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from helpers.pages import README, ROOT, code, table

from mixcl.config import load_profile

READINGS = ROOT / "reproduce/READINGS.md"
STORY = ROOT / "notebooks/31_does_it_work.ipynb"
FOLDERS = (".github", "mixcl", "notebooks", "reproduce", "figures", "tests")
PAGES = sorted(
    [README, *(page for folder in FOLDERS for kind in ("*.md", "*.ipynb") for page in (ROOT / folder).rglob(kind))]
)
DEFINITION = re.compile(r"^\[([^\]]+)\]: +(\S+)$", re.MULTILINE)


def cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook file."""
    notebook: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8"))
    return notebook["cells"]


def prose(path: Path) -> str:
    """What a page says, without its code."""
    if path.suffix == ".ipynb":
        text = "\n\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """The names that a code host gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = prose(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + [target for _, target in DEFINITION.findall(text)]
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{target} is not there"
        assert place.is_relative_to(ROOT), f"{target} leaves the repository"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{target}: there is no such heading"


def test_readme_has_two_pages() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 180
    assert README.stat().st_size <= 12_288
    assert max(map(len, lines)) <= 100


def test_notebooks_that_the_readme_names_by_number_have_an_address() -> None:
    text = prose(README)
    named = set(re.findall(r"\[(\d\d)\](?!:)", text))
    assert named == {name for name, _ in DEFINITION.findall(text) if name.isdigit()}
    assert named == {path.name[:2] for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_readme_table_of_the_fair_test_is_that_of_the_committed_effects() -> None:
    command = [sys.executable, str(ROOT / "reproduce/fill_readme.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path: Path) -> None:
    """As it is printed, and the encoder fits MONAI's UNETR."""
    (block,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    block += (
        "assert identity.isfinite() and label.isfinite()\n"
        "assert not net.load_state_dict(load_file('encoder.safetensors'), strict=False).unexpected_keys\n"
    )
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "from monai.networks.nets import UNETR" in done.stdout


EQUATIONS = table(README, "## From the paper to the code")


@pytest.mark.parametrize("row", EQUATIONS, ids=lambda row: row[0])
def test_equations_have_a_function_a_notebook_and_a_test(row: list[str]) -> None:
    _, functions, notebooks, tests = row
    assert code(functions)
    assert re.findall(r"\[\d\d\]", notebooks)
    assert code(tests)
    for name in code(functions):
        resolve_name(f"mixcl.{name}")
    for name in code(tests):
        assert (ROOT / "tests" / name).is_file()


def test_every_equation_is_in_the_table() -> None:
    assert {f"Eq. {number}" for number in range(2, 8)} <= {row[0] for row in EQUATIONS}


READING_ROWS = table(READINGS)


def test_readings_are_numbered() -> None:
    assert [row[0] for row in READING_ROWS] == [f"R{number}" for number in range(1, len(READING_ROWS) + 1)]


@pytest.mark.parametrize("row", READING_ROWS, ids=lambda row: row[0])
def test_readings_name_switches_and_code_that_exist(row: list[str]) -> None:
    _, paper, ours, switches, places = row
    assert paper
    assert ours
    for switch in code(switches):
        if "=" in switch:
            load_profile("paper", [switch])
        else:
            load_profile(switch)
    assert code(places)
    for name in code(places):
        resolve_name(f"mixcl.{name}")


def test_readings_that_the_code_names_are_in_the_table() -> None:
    files = (ROOT / "mixcl").rglob("*.py")
    named = {name for file in files for name in re.findall(r"\bR\d+\b", file.read_text(encoding="utf-8"))}
    assert named <= {row[0] for row in READING_ROWS}


def test_the_story_of_the_fair_test_is_an_executed_article() -> None:
    everything = cells(STORY)
    source = ["".join(cell["source"]) for cell in everything]
    assert "**Question.**" in source[0]
    assert "rest on folds that were mostly the same training" in source[0]
    assert everything[1]["metadata"]["tags"] == ["parameters"]
    assert "**What this shows:**" in source[-1]
    assert "**What it does" in source[-1]
    run = [cell for cell in everything if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in run] == list(range(1, len(run) + 1))
    assert max(len("".join(cell["source"]).splitlines()) for cell in run) <= 15


def test_the_story_of_the_fair_test_shows_the_committed_effects(tmp_path: Path) -> None:
    """Run again, its tables are the same, and what is committed is clean of times and paths."""
    run, kept = tmp_path / "run.ipynb", tmp_path / "kept.ipynb"
    for script, words in (("run_notebook", [STORY, run, "{}"]), ("clean_notebook", [run, kept])):
        command = [sys.executable, str(ROOT / f"reproduce/{script}.py"), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for committed, now in zip(cells(STORY), cells(kept), strict=True):
        assert committed.keys() == now.keys()
        assert committed["source"] == now["source"]
        for before, after in zip(committed.get("outputs", []), now.get("outputs", []), strict=True):
            if "image/png" not in before["data"]:
                assert before == after, "run reproduce/walkthrough.sh 31_does_it_work"
