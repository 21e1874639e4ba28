"""The pages beside the committed figures: written from what lies there, and every link leads somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.drawing import CARD, pretraining

from mixcl import figures

FIGURES = Path(__file__).resolve().parents[2] / "figures"


def copied(folder: Path) -> Path:
    """The two scripts alone, in a folder of figures of their own, beside a script in the place of the README's."""
    folder.mkdir()
    (folder.parent / "reproduce").mkdir()
    (folder.parent / "reproduce" / "fill_readme.py").write_text("")
    for name in ("pages.py", "update.sh"):
        shutil.copy(FIGURES / name, folder)
    return folder


def made(out: Path, *tables: str) -> Path:
    """A folder of results with a figure and tables that hold a line."""
    figures.save(figures.losses(pretraining(), CARD), out / "figures" / "effects")
    (out / "tables").mkdir()
    for name in tables:
        (out / "tables" / name).write_text("a line\n", encoding="utf-8")
    return out


def update(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(folder / "update.sh"), str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_committed_pages_are_what_the_script_writes(tmp_path: Path) -> None:
    shutil.copytree(FIGURES, tmp_path / "figures")
    pages = {path.relative_to(FIGURES): path.read_text(encoding="utf-8") for path in FIGURES.glob("**/README.md")}
    assert {path.parent for path in FIGURES.glob("**/*.png")} == {(FIGURES / path).parent for path in pages}
    for path in pages:
        (tmp_path / "figures" / path).unlink()
    subprocess.run(["python", str(tmp_path / "figures" / "pages.py")], check=True)
    for path, text in pages.items():
        assert (tmp_path / "figures" / path).read_text(encoding="utf-8") == text, f"{path}: run figures/pages.py"


@pytest.mark.parametrize("page", sorted(FIGURES.glob("**/README.md")), ids=lambda path: path.parent.name)
def test_a_page_shows_every_figure_and_links_every_table(page: Path) -> None:
    linked = set(re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")))
    assert all((page.parent / link).is_file() for link in linked)
    kept = {path.name for path in page.parent.iterdir() if path.suffix in (".png", ".pdf", ".csv", ".md")}
    assert kept - {"README.md"} <= linked


def test_a_full_run_and_the_effects_alone_are_copied(tmp_path: Path) -> None:
    folder = copied(tmp_path / "figures")
    effects = ("effects.csv", "effects.md", "effects_trainings.csv", "effects_organs.csv", "effects_organs.md")
    tables = ("table1.csv", "table1.md", "table2.csv", "table2.md", "organs.csv", "statistics.csv")
    whole = made(tmp_path / "phantom", *effects, *tables)
    (whole / "RUN.json").write_text("{}")
    assert update(folder, whole).returncode == 0
    assert update(folder, made(tmp_path / "fair", *effects)).returncode == 0
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "[table1.csv](table1.csv)" in page
    assert "[fair](fair/README.md)" in page
    assert f"\n{figures.origin_of(CARD)}\n" in page
    assert "effects_organs" not in page  # a head and no row
    assert sorted(path.name for path in (folder / "fair").iterdir()) == [
        "README.md", "effects.csv", "effects.md", "effects.pdf", "effects.png", "effects_trainings.csv",
    ]  # fmt: skip


def test_a_run_that_is_not_whole_or_of_uncommitted_code_is_not_copied(tmp_path: Path) -> None:
    folder = copied(tmp_path / "figures")
    done = update(folder, tmp_path)
    assert (done.returncode, "has no RUN.json" in done.stderr) == (2, True)
    (tmp_path / "RUN.json").write_text('"0123456789ab+changes"')
    done = update(folder, tmp_path)
    assert (done.returncode, "uncommitted changes" in done.stderr) == (2, True)


def test_a_picture_without_a_caption_is_named(tmp_path: Path) -> None:
    folder = copied(tmp_path / "figures")
    figures.save(figures.losses(pretraining()), folder / "losses")
    done = subprocess.run(["python", str(folder / "pages.py")], capture_output=True, text=True, check=False)
    assert "losses.png: has no caption; draw it again" in done.stderr
