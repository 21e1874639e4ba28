"""Tables of Markdown pages, and cells of notebooks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


def table(page: Path, heading: str = "") -> list[list[str]]:
    """The cells of the rows of a table, by row, below a heading."""
    text = page.read_text(encoding="utf-8").partition(heading)[2] if heading else page.read_text(encoding="utf-8")
    section = text.partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def code(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook file."""
    notebook: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8"))
    return notebook["cells"]
