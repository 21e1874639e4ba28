"""Whatever a name holds, a table stays a table: nothing in it is a command of LaTeX or a formula of a spreadsheet."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pandas as pd
import pytest
from helpers.runs import CONFIG, LABELS, write_run
from hypothesis import example, given
from hypothesis import strategies as st

from mixcl import results, spreadsheet
from mixcl.results.formats import TextTable, latex, markdown, tex

COMMANDS = re.compile(
    r"\\(?:(?:textbackslash|textasciicircum|textasciitilde|textbar|symbol|textsuperscript|pm)(?![A-Za-z])|[{}$&#%_])"
)
NAMES = [
    "NA",
    "NaN",
    "null",
    "None",
    "n/a",
    "nan",
    "",
    "#N/A",
    "-inf",
    "007",
    "1e5",
    "=1+1",
    "'a",
    "a,b",
    'a"b',
    "+1-1",
]
FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", " =1", "＝1", "'=1"]


@given(st.text())
@example(r"\input{/etc/passwd}")
@example("^^5cinput{/etc/passwd}")
@example("$\\write18{true}$")
@example('a~b^c_d#e%f&g{h}i`j"k|l')
@example("liver\n\n\\end{tabular}")
def test_no_text_is_a_command_of_latex(text: str) -> None:
    written = tex(text)
    assert "\n" not in written
    rest = COMMANDS.sub("", written).replace("{}", "")
    assert "\\" not in rest
    assert not re.search(r"[#%&_^~`\"]", rest)
    assert rest.count("$") % 2 == 0
    assert {math for math in re.findall(r"\$(.*?)\$", rest)} <= {"", "+", "-", "<", ">"}
    assert re.fullmatch(r"[^{}]*(\{(\d\d|[a-z])\}[^{}]*)*", rest)


@pytest.mark.parametrize("name", ["[2cm]", "*", "a\nb", "a|b"])
def test_a_name_begins_and_ends_no_row(name: str) -> None:
    part = TextTable("Organs.", "", [("", ("organ", "n"))], [("liver", "1"), (name, "2")])
    rows = [line for line in latex([part]).splitlines() if line.endswith(r"\\")]
    assert len(rows) == 4  # two of the header
    assert not rows[-1].startswith(("[", "*"))
    lines = [line for line in markdown([part]).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_written_as_text_and_read_as_it_was(text: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"organ": [text, "liver"], "gain": [-0.5, 1e-7], "shown": ["-0.5", "+3"]})
    path = tmp_path / "a.csv"
    path.write_text(spreadsheet.to_csv(table))
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["organ"] == f"'{text}"
    assert (second["organ"], first["gain"], first["shown"], second["shown"]) == ("liver", "-0.5", "-0.5", "+3")
    pd.testing.assert_frame_equal(spreadsheet.read_csv(path, ["organ", "shown"]), table)


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n\0"), min_size=1))
def test_every_text_comes_back(text: str) -> None:
    assert spreadsheet.plain(spreadsheet.cell(text)) == text


def test_cases_of_any_name_come_into_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas alone takes NA, NaN and null for missing, and no table could be made."""
    names = [name for name in NAMES if name]
    monkeypatch.setitem(LABELS, "ward_7", {1: "NA", 2: "=1+1", 3: r"\input{/etc/passwd}"})
    config = {
        **CONFIG, "grid": {"percents": {"ward_7": [50]}, "ablation": {}, "folds": [0], "seeds": [0]},
        "data": {"source": "files", "finetune": ["ward_7"]},
    }  # fmt: skip
    for arm in ("scratch", "mixcl"):
        run = write_run(
            tmp_path, "ward_7", 50, arm, 0, {name: {1: 0.5, 2: 0.5, 3: 0.5} for name in names}, config=config
        )
        (run / "cases.csv").write_text(spreadsheet.to_csv(pd.read_csv(run / "cases.csv", keep_default_na=False)))
    table = results.table1(tmp_path)
    assert table.folds["cases"].tolist() == [len(names)] * 2
    organs = results.organs(tmp_path)
    assert set(organs["organ"]) == set(LABELS["ward_7"].values())
    text = (tmp_path / "tables" / "organs.tex").read_text()
    assert r"\input" not in text
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    assert not re.search(r"^[^\n]*,[=+@]", (tmp_path / "tables" / "organs.csv").read_text(), re.MULTILINE)


def test_pandas_reads_in_one_place() -> None:
    root = Path(spreadsheet.__file__).parent
    readers = [path.name for path in root.rglob("*.py") if re.search(r"pd\.read_|\.to_csv\(", path.read_text())]
    assert readers == ["spreadsheet.py"]
