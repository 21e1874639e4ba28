"""Put an executed notebook into the repository: without times, widget state and paths of the machine it ran on.

    python reproduce/clean_notebook.py EXECUTED.ipynb KEPT.ipynb

Exit code 1, and nothing is written, when a cell failed, a path of the machine is left, or the notebook is too large.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 500_000  # bytes
ABSOLUTE = re.compile(r"(?<![\w.$}~/:*-])/(?:home|Users|root|tmp|usr|opt|var|mnt|work|data)/[\w.-]+|[A-Z]:\\\\")


def main() -> int:
    """Clean what the command line names."""
    executed, kept = Path(sys.argv[1]), Path(sys.argv[2])
    text = json.dumps(clean(json.loads(executed.read_text(encoding="utf-8"))), indent=1, ensure_ascii=False) + "\n"
    if fault := wrong(text):
        print(f"{executed}: {fault}; {kept} stays as it was")
        return 1
    kept.write_text(text, encoding="utf-8")
    return 0


def clean(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with its sources, outputs and execution counts, and nothing that is of one run or one machine."""
    cells = []
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        kept = {"cell_type": cell["cell_type"], "id": cell["id"], "metadata": {"tags": tags} if tags else {}}
        kept["source"] = "".join(cell["source"]).splitlines(keepends=True)
        if cell["cell_type"] == "code":
            kept |= {"execution_count": cell["execution_count"], "outputs": [_output(o) for o in cell["outputs"]]}
        cells.append(kept)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def wrong(text: str) -> str | None:
    """Why a cleaned notebook cannot be kept; None when it can."""
    outputs = [output for cell in json.loads(text)["cells"] for output in cell.get("outputs", [])]
    if failed := [output for output in outputs if output["output_type"] == "error"]:
        return f"a cell failed with {failed[0]['ename']}"
    for output in outputs:
        shown = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
        if found := ABSOLUTE.search(json.dumps([output.get("text", []), shown])):
            return f"an output holds the path {found[0]}"
    if len(text.encode()) > LARGEST:
        return f"{len(text.encode())} bytes are more than {LARGEST}: show fewer or smaller pictures"
    return None


def _output(output: dict[str, Any]) -> dict[str, Any]:
    """An output whose text names the repository's files from its root."""
    text = json.dumps(output, ensure_ascii=False).replace(f"{ROOT}/", "")
    result: dict[str, Any] = json.loads(text)
    if "metadata" in result:
        picture = result["metadata"].get("image/png", {})
        kept = {key: picture[key] for key in ("width", "height", "alt") if key in picture}
        result["metadata"] = {"image/png": kept} if kept else {}
    return result


if __name__ == "__main__":
    sys.exit(main())
