"""Run one notebook as one job of the workflow: check its parameters, execute it, keep the executed copy.

    python reproduce/run_notebook.py NOTEBOOK.ipynb EXECUTED.ipynb '{"PROFILE": "smoke"}'

A parameter that the notebook does not know is an error (papermill alone would only warn).  When a cell fails, the
cell's own error and the place of the executed copy are printed, nothing else.  While the job trains, a line every 15
seconds tells how far it is.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import papermill
from papermill.exceptions import PapermillExecutionError

EVERY = 15.0  # seconds between two lines of progress


def main() -> int:
    """Run the notebook named on the command line; 0, or 1 when a cell failed, or 2 for wrong parameters."""
    notebook, executed, parameters = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    name, started = executed.parent.name if executed.parent.parent.name == "runs" else executed.stem, time.monotonic()
    unknown = set(parameters) - set(papermill.inspect_notebook(str(notebook)))
    if unknown:
        print(f"{name}: {notebook} has no parameter {', '.join(sorted(unknown))}")
        return 2
    executed.parent.mkdir(parents=True, exist_ok=True)
    print(f"{name}: started", flush=True)
    stop = threading.Event()
    threading.Thread(target=_report, args=(name, executed.parent, stop), daemon=True).start()
    try:
        papermill.execute_notebook(
            str(notebook), str(executed), parameters, kernel_name="python3", progress_bar=False, log_output=False,
            cwd=str(notebook.parent),
        )  # fmt: skip
    except PapermillExecutionError as error:
        print(f"{name}: cell {error.exec_count} failed with {error.ename}: {error.evalue}")
        print(f"{name}: the executed notebook is {executed}")
        return 1
    finally:
        stop.set()
    print(f"{name}: done in {time.monotonic() - started:.0f} s", flush=True)
    return 0


def _report(name: str, folder: Path, stop: threading.Event) -> None:
    """Say now and then how far the training in ``folder`` is, from the metrics it writes."""
    seen: tuple[float, int] | None = None
    while not stop.wait(EVERY):
        record, steps = _progress(folder)
        if not record or not steps:
            continue
        now, step = time.monotonic(), int(record["step"])
        text = f"{name}: step {step} of {steps}"
        if seen and step > seen[1]:
            rate = (step - seen[1]) / (now - seen[0])
            text += f", {rate:.1f} steps/s, {(steps - step) / rate:.0f} s left"
        if seen and step == seen[1]:
            text += ", evaluating" if step == steps else ""
        losses = [f"{k} {record[k]:.3g}" for k in ("total", "identity", "label", "recon") if k in record]
        print(f"{text}, {', '.join(losses)}", flush=True)
        seen = (now, step) if seen is None or step > seen[1] else seen


def _progress(folder: Path) -> tuple[dict[str, Any], int]:
    """Last record of metrics.jsonl and the number of steps, or nothing while there is none."""
    try:
        record = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        card = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        section = "finetune" if "task" in card else "pretrain"
        return record, int(card["config"][section]["steps"])
    except (OSError, ValueError, IndexError, KeyError):
        return {}, 0


if __name__ == "__main__":
    sys.exit(main())
