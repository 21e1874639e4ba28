"""A stop that reaches a job of the workflow reaches the training in its notebook."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAINS = """
import time
from pathlib import Path
from mixcl.run import signals
with signals.stopping() as stop:
    Path(MARK).touch()
    while not stop.number:
        time.sleep(0.05)
    Path(MARK).write_text("saved")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_job_saves_and_starts_no_other(tmp_path: Path, number: signal.Signals, code: int) -> None:
    cells = [
        nbformat.v4.new_code_cell('MARK = ""', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(TRAINS),
    ]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(book, tmp_path / "train.ipynb")
    words = [sys.executable, str(ROOT / "reproduce/run_notebook.py"), str(tmp_path / "train.ipynb")]
    for name in ("first", "second"):
        words += [str(tmp_path / f"{name}.ipynb"), json.dumps({"MARK": str(tmp_path / name)})]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as process:
        end = time.monotonic() + 120
        while not (tmp_path / "first").is_file() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(number)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert (tmp_path / "first").read_text() == "saved"
    assert "failed with Stopped: stopped by SIGINT; the same command goes on where it was" in told
    assert not (tmp_path / "second").exists()
