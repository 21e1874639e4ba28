"""The pages of a run: the verdict first, all that is there on them, links and pictures whole, nothing breaks out."""

from __future__ import annotations

import base64
import importlib.util
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from helpers.runs import write_run

from mixcl import results
from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.figures import style
from mixcl.results import markup, site, wording

ROOT = Path(__file__).resolve().parents[2]


class Links(HTMLParser):
    """All references, ids, pictures, headings and text of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.levels: list[int] = []
        self.bare: list[str] = []  # headings without an id
        self.text = ""
        self.tags: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag == "img":
            self.pictures.append(given)
        if tag in ("h1", "h2", "h3", "h4"):
            self.levels.append(int(tag[1]))
            self.bare += [] if "id" in given else [tag]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two folds, its tables, two figures, a notebook with a picture, and no run card of its own."""
    out = tmp_path_factory.mktemp("run")
    for fold in range(2):
        for arm, dice in (("scratch", 0.4), ("mixcl", 0.5 + 0.01 * fold)):
            write_run(out, "btcv", 15, arm, fold, {f"{fold}": {1: dice, 6: None, 11: None}})
    results.table1(out)
    results.organs(out)
    figure = style.Plot(figsize=(1, 1))
    style.write_caption(figure, "A patch and its view. Profile smoke; commit 0123.")
    for name in ("figure1", "strange_one", "pretrain_losses"):
        style.save(figure, out / "figures" / name)
    (out / "runs" / "pretrain").mkdir()
    picture = nbformat.v4.new_output(
        "display_data", {"image/png": base64.b64encode((out / "figures" / "figure1.png").read_bytes()).decode()}
    )
    cells = [
        nbformat.v4.new_markdown_cell("# A question\n\n$x^2$, see R15"),
        nbformat.v4.new_code_cell("draw()", outputs=[picture]),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), out / "runs" / "pretrain" / "10_pretrain.ipynb")
    (out / "site" / "api" / "mixcl").mkdir(parents=True)
    (out / "site" / "api" / "mixcl" / "losses.html").write_text('<p id="identity_consistency"></p>')
    (out / "RUN.md").write_text("# Run card: profile `smoke`\n\n| job | sum |\n| --- | --- |\n| a | 0123 |\n")
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture(scope="module")
def config() -> Experiment:
    return load_profile("smoke", ["grid.percents={btcv: [15]}", "grid.ablation={}", "grid.folds=[0, 1]"])


@pytest.fixture(scope="module")
def pages(config: Experiment, made: Path) -> dict[str, Links]:
    """Every page of the site of the run, by its path."""
    folder = site.site(config, made).parent
    paths = [path.relative_to(folder) for path in folder.rglob("*.html")]
    return {path.as_posix(): Links(folder / path) for path in paths if path.parts[0] != "api"}


def test_what_is_there_is_on_the_page(pages: dict[str, Links]) -> None:
    page = pages["index.html"]
    for text in ("0.4000 ± 0.0000", "Strange one", "Run card: profile"):
        assert text in page.text
    assert len(page.pictures) == 2
    assert len(pages["diagnostics.html"].pictures) == 1  # they have a page of their own
    assert {"notebooks/pretrain.html", "reproduce/READINGS.html", "equations.html"} <= pages.keys()


def test_the_verdict_is_first_and_made_from_the_numbers(pages: dict[str, Links]) -> None:
    page = pages["index.html"]
    verdict, table = (
        page.text.rindex("A UNETR was fine-tuned 4 times (2 folds, 1 seed)"),
        page.text.index("Table 1. Dice"),
    )
    assert verdict < table < page.text.index("Run card")
    assert (
        "Table 1: of 1 cell MixCL is, by its 95 % intervals, ahead of training from scratch in 1, behind" in page.text
    )
    assert "2 pairs a cell (one pre-training) are too few for a test" in page.text
    assert "the data are phantoms made up by the computer" in page.text


def test_equations_lead_into_the_api_reference(pages: dict[str, Links]) -> None:
    links = pages["equations.html"].links
    assert "api/mixcl/losses.html#identity_consistency" in links
    assert not any("identity_levels" in link for link in links)


def test_comments_stay_comments() -> None:
    page = markup.parsed("<p>R9<!-- R9 --></p>")
    markup.link_readings(page, {"R9"}, "readings.html")
    assert str(page) == '<p><a href="readings.html#R9">R9</a><!-- R9 --></p>'


def test_no_p_where_there_can_be_none(pages: dict[str, Links]) -> None:
    assert "n = 2, one pre-training" in pages["index.html"].text
    assert "p =" not in pages["index.html"].text
    assert "p <" not in pages["index.html"].text


def test_arms_have_one_name(pages: dict[str, Links]) -> None:
    """The paper's own names stand where it is quoted."""
    text = pages["index.html"].text
    assert text.count("Ours") == text.count("T.F.S. and Ours") + text.count("paper (T.F.S., Ours)")
    assert "MixCL" in text


def test_no_link_is_broken_and_every_part_has_an_id(pages: dict[str, Links], made: Path) -> None:
    assert len(pages) == 6 + len(list(site.WALK.glob("0*.ipynb")))
    for name, page in pages.items():
        assert not page.bare, name
        assert len(page.ids) == len(set(page.ids)), name
        for link in page.links:
            path, _, part = link.partition("#")
            if "://" in link or link.startswith("data:"):
                continue
            target = ((made / "site" / name).parent / path).resolve() if path else made / "site" / name
            assert target.is_file(), (name, link)
            if part and target.suffix == ".html":
                there = pages.get(target.relative_to(made.resolve() / "site").as_posix()) or Links(target)
                assert part in there.ids, (name, link)


def test_headings_go_down_one_level_at_a_time(pages: dict[str, Links]) -> None:
    for name, page in pages.items():
        assert page.levels.count(1) == 1, name
        assert all(after <= before + 1 for before, after in zip(page.levels, page.levels[1:], strict=False)), name


def test_pictures_say_what_they_show_and_how_large_they_are(pages: dict[str, Links]) -> None:
    for name, page in pages.items():
        for picture in page.pictures:
            assert picture["alt"], name
            assert int(picture["width"] or 0), name
            assert int(picture["height"] or 0), name
            assert page.links.count(str(picture["src"])) == 2, name  # itself, and a link to its full size
    (first, _) = pages["index.html"].pictures
    assert first["alt"] == "Figure 1: one sample through the objective. A patch and its view."


def test_readings_are_linked(pages: dict[str, Links]) -> None:
    assert "../reproduce/READINGS.html#R15" in pages["notebooks/pretrain.html"].links
    assert {"R1", "R15", "R32"} <= set(pages["reproduce/READINGS.html"].ids)


def test_notebooks_lead_on_and_back(pages: dict[str, Links]) -> None:
    assert "02_label_consistency.html" in pages["notebooks/01_identity_consistency.html"].links
    assert "31_does_it_work.html" in pages["notebooks/pretrain.html"].links
    for page in pages.values():
        assert any(link.endswith("index.html") for link in page.links)


def test_nothing_is_loaded_and_there_is_no_script(pages: dict[str, Links]) -> None:
    for name, page in pages.items():
        assert "script" not in page.tags, name
        assert not {"iframe", "object"} & set(page.tags), name
        assert not any("://" in str(picture["src"]) for picture in page.pictures), name


def reachable(body: str) -> str:
    page = markup.parsed(body)
    markup.make_reachable(page)
    return str(page)


def test_tables_scroll_and_have_headers() -> None:
    body = reachable(
        "<table><thead><tr><th></th><th>Dice</th></tr></thead><tbody><tr>\n<td>R9</td><td>1</td></tr></tbody></table>"
    )
    assert '<div aria-label="Table 1 of this page" class="wide" role="region" tabindex="0"><table>' in body
    assert '<thead><tr><td></td><th scope="col">Dice</th></tr></thead>' in body
    assert '<th id="R9" scope="row">R9</th><td>1</td>' in body


def test_formulas_scroll() -> None:
    body = reachable('<p><math display="block">\n<mi>x</mi></math> <math><mi>y</mi></math></p>')
    assert body.count('<span aria-label="Formula" class="wide" role="group" tabindex="0"><math') == 1
    assert body.endswith("</math></span> <math><mi>y</mi></math></p>")


def test_headings_of_one_text_have_two_ids() -> None:
    assert reachable("<h2>A</h2><h2>A</h2>") == '<h2 id="a">A</h2><h2 id="a-2">A</h2>'


@pytest.fixture
def no_walk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the walk-through, whose pages take most of the time."""
    monkeypatch.setattr(site, "WALK", tmp_path)


@pytest.mark.usefixtures("no_walk")
def test_nothing_breaks_out_of_the_page(config: Experiment, out: Path) -> None:
    (out / "tables" / "table2.md").write_text("**T** <script>alert(1)</script>\n\n| a |\n| --- |\n| x < y |\n")
    page = Links(site.site(config.model_copy(update={"profile": "<b>mine</b>"}), out))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "<b>mine</b>" in page.text
    assert "x < y" in page.text


def test_what_is_missing_is_named(pages: dict[str, Links]) -> None:
    missing = pages["index.html"].text.partition("Not here")[2]
    for name in ("tables/table2.md", "figures/figure3.png", "20_table1.ipynb", "finetune-btcv-p015-mixcl-f0-s0", "API"):
        assert name in missing
    assert "tables/table1.md" not in missing


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"cells": ['])
def test_a_damaged_notebook_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "20_table1.ipynb").write_text(text)
    assert markup.notebook(tmp_path / "20_table1.ipynb") is None


@pytest.mark.usefixtures("no_walk")
def test_damaged_runs_leave_a_page_without_a_verdict(config: Experiment, out: Path) -> None:
    next((out / "runs").glob("finetune-*/cases.csv")).write_text("")
    (out / "tables" / "20_table1.ipynb").write_text("{}")
    page = Links(site.site(config, out))
    assert "Nothing can be said yet" in page.text
    assert "tables/20_table1.ipynb: damaged" in page.text.partition("Not here")[2]


def test_phantoms_are_called_phantoms(config: Experiment, pages: dict[str, Links]) -> None:
    assert wording.PHANTOM in pages["index.html"].text


def test_axe_core_finds_nothing_serious(pages: dict[str, Links], made: Path) -> None:
    sync = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[browser]'")
    pytest.importorskip("axe_playwright_python", reason="pip install -e '.[browser]'")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    spec = importlib.util.spec_from_file_location("browser", ROOT / "reproduce" / "browser.py")
    assert spec is not None
    assert spec.loader is not None
    browser = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(browser)
    with sync.sync_playwright() as browsers:
        opened = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name in ("index.html", "notebooks/pretrain.html", "reproduce/READINGS.html"):
            page = opened.new_page(viewport={"width": 390, "height": 844})
            page.goto((made / "site" / name).resolve().as_uri())
            assert browser.barriers(page) == [], name
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), name
        opened.close()
