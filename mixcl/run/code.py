"""The name of the code that runs, by its content: a commit tells nothing of what was changed since."""

import hashlib
import json
from functools import cache
from pathlib import Path

from mixcl.run import jobs

PACKAGE = Path(__file__).resolve().parents[1]
NOTEBOOKS = PACKAGE.parent / "notebooks"
EXECUTED = ("10_pretrain", "11_finetune", *jobs.NOTEBOOKS.values())  # by a run


@cache
def code_id() -> str:
    """SHA-256 over the package's own files and the code cells of the notebooks that a run executes, where they are.

    Taken once a process, at the first call.  Outputs and texts of notebooks, profiles and caches do not count.
    """
    return code_of(PACKAGE, NOTEBOOKS)


def code_of(package: Path, notebooks: Path) -> str:
    """`code_id` of a package's folder and of a folder of notebooks, which may not be there."""
    contents: dict[str, bytes] = {}
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package)
        own = name.parts[0] != "profiles" and not any(part.startswith(".") for part in name.parts)  # wheels carry those
        if own and path.suffix in (".py", ".yaml", ".html", ".txt"):
            contents[name.as_posix()] = path.read_bytes()
    for notebook in EXECUTED:
        path = notebooks / f"{notebook}.ipynb"
        if path.is_file():
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
            contents[notebook] = json.dumps(code).encode()
    parts = (json.dumps([name, hashlib.sha256(content).hexdigest()]) for name, content in contents.items())
    return hashlib.sha256("".join(parts).encode()).hexdigest()
