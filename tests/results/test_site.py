"""The page of a run: everything that is there is on it, everything else is named, nothing breaks out."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.figures import style
from mixcl.results import site, wording


class Links(HTMLParser):
    """All references and all text of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text = ""
        self.tags: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name in ("table1", "organs"):
        table = f"**{name}** of <script>alert(1)</script>\n\n| a | b |\n| --- | --- |\n| 0.1{name} | x < y |\n"
        (tmp_path / "tables").mkdir(exist_ok=True)
        (tmp_path / "tables" / f"{name}.md").write_text(table)
        (tmp_path / "tables" / f"{name}.csv").write_text("a,b\n")
    for name in ("figure1", "strange_one"):
        style.save(style.Plot(figsize=(1, 1)), tmp_path / "figures" / name)
    run = tmp_path / "runs" / "pretrain"
    run.mkdir(parents=True)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A question\n\n$x^2$")])
    nbformat.write(book, run / "10_pretrain.ipynb")
    (tmp_path / "RUN.md").write_text("# Run card: profile `smoke`\n")
    return tmp_path


@pytest.fixture
def config() -> Experiment:
    return load_profile("smoke")


def test_what_is_there_is_on_the_page(config: Experiment, out: Path) -> None:
    page = Links(site.site(config, out))
    for text in ("0.1table1", "0.1organs", "x < y", "strange one", "Run card: profile"):
        assert text in page.text
    assert page.tags.count("table") == 2
    assert page.tags.count("img") == 2


def test_no_link_is_broken(config: Experiment, out: Path) -> None:
    index = site.site(config, out)
    pages = [index, *(out / "site").glob("*/*.html")]
    assert len(pages) == 4 + len(list(site.WALK.glob("0*.ipynb")))
    for page in pages:
        links = [link for link in Links(page).links if "://" not in link and not link.startswith(("#", "data:"))]
        assert links
        for link in links:
            assert (page.parent / link.split("#")[0]).is_file(), link


def test_nothing_breaks_out_of_the_page(config: Experiment, out: Path) -> None:
    odd = config.model_copy(update={"profile": "<b>mine</b>"})
    page = Links(site.site(odd, out))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "<b>mine</b>" in page.text


def test_what_is_missing_is_named(config: Experiment, out: Path) -> None:
    page = Links(site.site(config, out))
    missing = page.text.partition("Not here")[2]
    for name in ("tables/table2.md", "figures/figure3.png", "20_table1.ipynb", "finetune-btcv-p100-id-f0-s0"):
        assert name in missing
    assert "tables/table1.md" not in missing


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"cells": ['])
def test_a_damaged_notebook_is_named(config: Experiment, out: Path, text: str) -> None:
    (out / "tables" / "20_table1.ipynb").write_text(text)
    page = Links(site.site(config, out))
    assert "tables/20_table1.ipynb: damaged" in page.text.partition("Not here")[2]
    assert "notebooks/20_table1.html" not in page.links


def test_phantoms_are_called_phantoms(config: Experiment, out: Path) -> None:
    sentence = wording.PHANTOM
    assert sentence in Links(site.site(config, out)).text
    real = config.model_copy(update={"data": config.data.model_copy(update={"source": "files"})})
    assert sentence not in Links(site.site(real, out)).text
