"""Write the README.md of this folder and of every folder in it: its figures with their captions, and its tables.

    python figures/pages.py

A caption is the ``Description`` that ``mixcl.figures.save`` wrote into the PNG; no text of a figure stands here.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from mixcl.errors import InputError
from mixcl.files import write_text
from mixcl.results.runs import rank
from mixcl.results.wording import FIGURES, figure_title

HERE = Path(__file__).resolve().parent


def page(folder: Path, title: str) -> str:
    """The page of a folder: every figure, in the order of a run's own page, then links to its tables and folders."""
    names = sorted((path.stem for path in folder.glob("*.png")), key=lambda name: rank(name, FIGURES))
    lines = [
        f"# Figures: {title}",
        "",
        "A run drew them and `figures/update.sh` copied them"
        + (", but for those that `framework.py` and `public_curves.py` draw" if folder == HERE else "")
        + "; `figures/pages.py` wrote this page.",
        "",
    ]
    for name in names:
        heading = figure_title(name)
        vector = f" ([PDF]({name}.pdf))" if (folder / f"{name}.pdf").is_file() else ""
        lines += [f"## {heading}{vector}", "", f"![{heading}]({name}.png)", "", caption(folder / f"{name}.png"), ""]
    tables = sorted(path.name for path in (*folder.glob("*.csv"), *folder.glob("[!R]*.md")))
    folders = sorted(path.parent.name for path in folder.glob("*/*.png"))
    for heading, links in (
        ("Tables", [f"- [{name}]({name})" for name in tables]),
        ("Other runs", [f"- [{name}]({name}/README.md)" for name in dict.fromkeys(folders)]),
    ):
        lines += [f"## {heading}", "", *links, ""] if links else []
    return "\n".join(lines)


def caption(picture: Path) -> str:
    """What a PNG says of itself.

    Raises
    ------
    InputError
        It says nothing.
    """
    with Image.open(picture) as image:
        text = str(image.info.get("Description", ""))
    if not text:
        raise InputError(f"{picture}: has no caption; draw it again and save it with mixcl.figures.save")
    return text


def pages() -> dict[Path, str]:
    """Path and text of every page."""
    folders = {path.parent for path in HERE.glob("*/*.png")}
    return {HERE / "README.md": page(HERE, "phantom")} | {f / "README.md": page(f, f.name) for f in sorted(folders)}


if __name__ == "__main__":
    for path, text in pages().items():
        write_text(path, text)
