"""The pages: the README keeps its size and its promises, links lead somewhere, tables name code that exists."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pandas as pd
import pytest
from helpers.drawing import CARD, pretraining
from helpers.pages import README, ROOT, cells, code, table

from mixcl import figures
from mixcl.config import load_profile
from mixcl.results import gains
from mixcl.spreadsheet import read_csv

sys.path.insert(0, str(ROOT / "reproduce"))
fill_readme = importlib.import_module("fill_readme")

READINGS = ROOT / "reproduce/READINGS.md"
STORY = ROOT / "notebooks/31_does_it_work.ipynb"
FOLDERS = (".github", "mixcl", "notebooks", "reproduce", "figures", "tests")
PAGES = sorted(
    [README, *(page for folder in FOLDERS for kind in ("*.md", "*.ipynb") for page in (ROOT / folder).rglob(kind))]
)
DEFINITION = re.compile(r"^\[([^\]]+)\]: +(\S+)$", re.MULTILINE)


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


def test_numbers_of_the_pages_are_those_of_the_committed_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert fill_readme.main(["--check"]) == 0, capsys.readouterr().out


def test_a_page_is_filled_between_its_markers_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, begin, end = tmp_path / "page.md", "<!-- a:begin -->", "<!-- a:end -->"
    monkeypatch.setattr(fill_readme, "BLOCKS", {"a": (page, lambda: ["1", r"\2"])})
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    assert fill_readme.main(["--check"]) == 1
    assert "a is not that of the committed files" in capsys.readouterr().out
    assert fill_readme.main([]) == fill_readme.main(["--check"]) == 0
    assert page.read_text() == f"before\n{begin}\n1\n\\2\n{end}\nafter\n"
    page.write_text(f"{end}\n{begin}\n")
    assert fill_readme.main([]) == 2
    assert "needs the line <!-- a:begin -->" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["map", "points"])
def test_the_committed_map_follows_from_the_committed_trainings(name: str) -> None:
    rows = read_csv(ROOT / "figures" / name / "trainings.csv")
    rows.attrs["origin"] = ""
    kept = read_csv(ROOT / "figures" / name / "map.csv")
    pd.testing.assert_frame_equal(gains.gain_map(rows), kept, atol=1e-9, check_dtype=False)


def test_the_main_job_finds_every_large_organ_in_every_fold() -> None:
    organs = read_csv(ROOT / "figures" / "organs.csv").query("arm == 'scratch' and percent == 100")
    btcv = organs[organs["task"] == "btcv"].set_index("organ")["worst_fold"]
    assert btcv[["liver", "spleen", "stomach", "left kidney", "right kidney"]].min() > gains.FOUND


def test_readme_table_is_filled_when_there_are_effects_and_emptied_when_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme, effects = tmp_path / "README.md", tmp_path / "effects.csv"
    monkeypatch.setattr(fill_readme, "BLOCKS", {"does-it-work": (readme, fill_readme.does_it_work)})
    monkeypatch.setattr(fill_readme, "EFFECTS", effects)
    monkeypatch.setattr(fill_readme, "MAP", tmp_path / "map.csv")
    monkeypatch.setattr(fill_readme, "AGAIN", tmp_path / "again.csv")
    empty = "before\n<!-- does-it-work:begin -->\n<!-- does-it-work:end -->\nafter\n"
    readme.write_text(empty)
    assert fill_readme.main(["--check"]) == 0
    effects.write_text(
        "task,percent,arm,against,n,reference,mean,difference,low,high,folds,n_seeds,verdict,seeds\n"
        "btcv,100,mixcl,scratch,15,0.5,0.52,0.02,-0.01,0.05,5,3,not told apart,+2.0\n"
        "btcv,15,mixcl,scratch,15,0.1,0.2,0.1,0.05,0.15,5,3,better,+10.0\n"
        "btcv,15,id,scratch,15,0.1,0.3,0.2,0.05,0.15,5,3,better,+20.0\n"
        "btcv,50,mixcl,scratch,15,0.3,0.3,0.0,0.05,0.15,5,3,not told apart,+0.0\n"
        "msd_spleen,5,mixcl,scratch,5,0.7,0.6999,-0.0001,-0.1,0.1,5,1,too few pairs,-0.0\n"
    )
    assert fill_readme.main(["--check"]) == 1
    assert readme.read_text() == empty
    fill_readme.main([])
    assert table(readme) == [
        ["Spleen, 5 %", "5, one pre-training", "0.700", "0.700", "+0.0", "-10.0 to +10.0", "≥ +5.3: undecided"],
        ["BTCV, 15 %", "15", "0.100", "0.200", "+10.0", "+5.0 to +15.0", "≥ +14.1: undecided"],
        ["BTCV, 100 %", "15", "0.500", "0.520", "+2.0", "-1.0 to +5.0", "≥ -0.5: undecided"],
    ]
    assert "| claim; Holm: 1 apart |" in readme.read_text()
    (tmp_path / "again.csv").write_text(
        effects.read_text().splitlines()[0] + "\nbtcv,15,mixcl,scratch,15,0.1,0.3,0.2,0.15,0.25,5,3,better,+20.0\n"
    )
    fill_readme.main([])
    again = ["BTCV, 15 %, [again]", "15", "0.100", "0.300", "+20.0", "+15.0 to +25.0", "≥ +14.1: shown"]
    assert table(readme)[2] == again
    assert "| claim; Holm: 2 apart |" in readme.read_text()
    assert fill_readme.main(["--check"]) == 0
    (tmp_path / "again.csv").unlink()
    point = "btcv,15,mixcl,0.2,0.15,-0.05,-0.1,-0.01,0.03,10,2"
    (tmp_path / "map.csv").write_text(
        "task,percent,start,scratch,dice,difference,low,high,p,n,n_seeds,steps,rate\n"
        f"{point},80,0.003\nbtcv,15,mixcl,0.1,0.2,0.1,0.05,0.15,0.001,10,2,40,0.006\n{point},160,0.006\n"
    )
    fill_readme.main([])
    text = " ".join(readme.read_text().split())
    assert "MixCL, 3 lengths and rates, 10 pairs each (2 pre-trainings): ahead" in text
    assert "at 1, behind at 2 (1 and 0 after Holm's adjustment); from -5.0 points [-10.0, -1.0] at" in text
    assert "to +10.0 points [+5.0, +15.0] at 40 steps and a rate of 0.006 (Dice from scratch 0.100)." in text
    assert max(map(len, readme.read_text().splitlines())) <= 100
    (tmp_path / "map.csv").unlink()
    effects.unlink()
    fill_readme.main([])
    assert readme.read_text() == empty


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


def test_the_story_is_an_executed_article() -> None:
    everything = cells(STORY)
    source = ["".join(cell["source"]) for cell in everything]
    assert "**Question.**" in source[0]
    assert "folds shared scans" in source[0]
    assert everything[1]["metadata"]["tags"] == ["parameters"]
    assert "**What this shows:**" in source[-1]
    assert "**What it does" in source[-1]
    run = [cell for cell in everything if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in run] == list(range(1, len(run) + 1))
    assert max(len("".join(cell["source"]).splitlines()) for cell in run) <= 15


def tell(folder: Path, **parameters: object) -> Path:
    """The story, run again and cleaned of times and paths."""
    run, kept = folder / "run.ipynb", folder / "kept.ipynb"
    for script, words in (("run_notebook", [STORY, run, json.dumps(parameters)]), ("clean_notebook", [run, kept])):
        command = [sys.executable, str(ROOT / f"reproduce/{script}.py"), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return kept


def test_the_story_shows_the_committed_figures(tmp_path: Path) -> None:
    """Run again, its tables are the same."""
    kept = tell(tmp_path)
    for committed, now in zip(cells(STORY), cells(kept), strict=True):
        assert committed.keys() == now.keys()
        assert committed["source"] == now["source"]
        for before, after in zip(committed.get("outputs", []), now.get("outputs", []), strict=True):
            if "image/png" not in before.get("data", {}):
                assert before == after, "run reproduce/walkthrough.sh 31_does_it_work"


def shows(story: Path) -> list[dict[str, Any]]:
    """What the cell of the story prints that shows all that was measured."""
    return next(cell["outputs"] for cell in cells(story) if "not measured yet" in "".join(cell["source"]))


def test_the_story_shows_what_has_been_measured(tmp_path: Path) -> None:
    """A folder with a picture and one with a table, as figures/update.sh leaves them."""
    drawn = figures.losses(pretraining(), CARD)
    figures.save(drawn, tmp_path / "map" / "gain")
    (tmp_path / "epochs").mkdir()
    (tmp_path / "epochs" / "effects.md").write_text("**Effects.** BTCV 0.123\n")
    shown = json.dumps(shows(tell(tmp_path, FIGURES=str(tmp_path), MEASURED=["map", "epochs"])))
    assert '"image/png"' in shown
    assert drawn.caption[:60] in shown
    assert "0.123" in shown
    assert "not measured yet" not in shown
    absent = "".join("".join(output["data"].get("text/markdown", "")) for output in shows(STORY))
    assert ("map: not measured yet" in absent) == (not (ROOT / "figures/map").is_dir())
