"""Run a notebook as a job of the workflow: check its parameters, execute it, keep the executed copy.

    python reproduce/run_notebook.py NOTEBOOK.ipynb EXECUTED.ipynb '{"PROFILE": "smoke"}' [EXECUTED.ipynb '{...}' ...]

Further notebooks may follow, each with its copies.  Several executed copies come out of one kernel, emptied in between,
because starting one costs more than many a job.  A parameter that the notebook does not know is an error (papermill
alone would only warn).  When a cell fails, the cell's own error and the place of the executed copy are printed, nothing
else, and the next copy is made.  While a job trains, a line every 15 seconds tells how far it is.  SIGTERM and Ctrl-C
let it save its step; the exit code is then 143 or 130.  MIXCL_GPUS names devices, of which each job takes one for
itself.  The kernel is that of the Python which runs this file, and reads no settings of the user's for Jupyter or
IPython.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from papermill.exceptions import PapermillExecutionError

from mixcl.run import gpus, signals

EVERY = 15.0  # seconds between two lines of progress
EMPTY = "get_ipython().reset(new_session=True); __import__('os').chdir({!r})"
USERS = ("JUPYTER", "IPYTHON", "PYTHONSTARTUP", "JPY_SESSION_NAME", "VSCODE_PID")  # the last two: somebody looks on
QUIET = "--IPKernelApp.log_level=40"  # it warns that others on this machine could listen


def main() -> int:
    """Run what the command line names; 0, or 1 when a cell failed, or 2 for wrong parameters."""
    try:
        copies = _copies(sys.argv[1:])
        known = {notebook: _parameters(notebook) for notebook, *_ in copies}
    except (OSError, ValueError, TypeError, IndexError) as error:
        copies, known = [], {}
        print(f"run_notebook.py: {' '.join(str(error).split())}", file=sys.stderr)
    if not copies:
        print("run_notebook.py: give a notebook, and pairs of an executed copy and its parameters as JSON: "
              "NOTEBOOK.ipynb EXECUTED.ipynb '{\"PROFILE\": \"smoke\"}' ...", file=sys.stderr)  # fmt: skip
        return 2
    for notebook, executed, parameters in copies:
        if unknown := set(parameters) - known[notebook]:
            print(f"{_name(executed)}: {notebook} has no parameter {', '.join(sorted(unknown))}")
            return 2
    codes = [0]
    with gpus.held(Path(copies[0][2].get("OUT", "."))), _kernel() as kernel, _stops_passed_on(kernel) as stopped:
        for notebook, executed, parameters in copies:
            if not stopped:
                codes.append(_run(notebook, executed, parameters, kernel))
    return 128 + stopped[0] if stopped else max(codes)


def _copies(words: list[str]) -> list[tuple[Path, Path, dict[str, Any]]]:
    """(notebook, executed copy, its parameters); a notebook is named before the first of its copies."""
    copies: list[tuple[Path, Path, dict[str, Any]]] = []
    rest, notebook = list(words), Path()
    while rest:
        if not copies or not rest[1].lstrip().startswith("{"):
            notebook = Path(rest.pop(0))
        executed, text = rest.pop(0), rest.pop(0)
        copies.append((notebook, Path(executed), dict(json.loads(text))))
    return copies


def _parameters(notebook: Path) -> set[str]:
    """Names that the cell of parameters assigns.  papermill's own reading skips a line with two equals signs."""
    cells = nbformat.read(notebook, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    assigned = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assign)]
    return {target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)}


def _run(notebook: Path, executed: Path, parameters: dict[str, Any], kernel: KernelManager) -> int:
    name, started = _name(executed), time.monotonic()
    executed.parent.mkdir(parents=True, exist_ok=True)
    print(f"{name}: started", flush=True)
    stop = threading.Event()
    threading.Thread(target=_report, args=(name, executed.parent, stop), daemon=True).start()
    try:
        _empty(kernel, notebook.parent)
        papermill.execute_notebook(
            _plain(notebook), _plain(executed), parameters, kernel_name="python3", progress_bar=False, log_output=False,
            cwd=str(notebook.parent), km=kernel,
        )  # fmt: skip
    except PapermillExecutionError as error:
        print(f"{name}: cell {error.exec_count} failed with {error.ename}: {' '.join(str(error.evalue).split())}")
        print(f"{name}: the executed notebook is {executed}")
        return 1
    except OSError as error:
        print(f"{name}: {error}; mend it, or choose another --out")
        return 1
    except RuntimeError as error:  # nbclient's DeadKernelError is one
        print(f"{name}: the notebook's process ended ({error}); was it killed, or out of memory?")
        print(f"{name}: the notebook as far as it came is {executed}")
        return 1
    finally:
        stop.set()
    print(f"{name}: done in {time.monotonic() - started:.0f} s", flush=True)
    return 0


def _name(executed: Path) -> str:
    return executed.parent.name if executed.parent.parent.name == "runs" else executed.stem


def _plain(path: Path) -> str:
    """A path for papermill, which puts parameters into the braces of one."""
    return str(path).replace("{", "{{").replace("}", "}}")


@contextmanager
def _kernel() -> Iterator[KernelManager]:
    """A kernel of this very Python, whatever others are called python3, with folders of its own for Jupyter."""
    for name in [name for name in os.environ if name.startswith(USERS)]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="mixcl-", ignore_cleanup_errors=True) as folder:
        places = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
        os.environ |= {name: str(Path(folder, name.lower())) for name in places}
        kernel = KernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
        try:
            yield kernel
        finally:
            if kernel.has_kernel:
                kernel.shutdown_kernel(now=True)


@contextmanager
def _stops_passed_on(kernel: KernelManager) -> Iterator[list[int]]:
    """Hand SIGTERM and Ctrl-C to the notebook, where a training saves its step; gives the signal, once sent.

    What has not ended after `signals.GRACE` seconds is ended: schedulers wait no longer.
    """
    stopped: list[int] = []

    def ask(number: int, _: object) -> None:
        if not stopped:
            stopped.append(number)
            watch = threading.Timer(signals.GRACE, os._exit, [128 + number])
            watch.daemon = True
            watch.start()
            if kernel.has_kernel:
                os.kill(kernel.provisioner.pid, signal.SIGINT)

    with signals.handled(ask):
        yield stopped


def _empty(kernel: KernelManager, folder: Path) -> None:
    """Start the kernel in the notebook's folder, or take all names from it and count from 1 again."""
    if not kernel.has_kernel or not kernel.is_alive():
        kernel.start_kernel(cwd=str(folder), extra_arguments=[QUIET])
        return
    client = kernel.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        client.execute_interactive(EMPTY.format(str(folder.absolute())), silent=True, store_history=False, timeout=60)
    finally:
        client.stop_channels()


def _report(name: str, folder: Path, stop: threading.Event) -> None:
    """Say now and then how far the training in ``folder`` is, from the metrics it writes; each step once."""
    begin: tuple[float, int] | None = None
    told: tuple[int, bool] | None = None  # the step, and whether it was said that the training is over
    while not stop.wait(EVERY):
        record, steps = _progress(folder)
        if not record or not steps:
            continue
        now, step = time.monotonic(), int(record["step"])
        over = step == steps and told is not None and told[0] == step
        if told == (step, over):
            continue
        told = (step, over)
        begin = begin or (now, step)
        rate = (step - begin[1]) / max(now - begin[0], 1e-9)
        speed = [f"{rate:.1f} steps/s, {(steps - step) / rate:.0f} s left"] if rate and not over else []
        losses = [f"{k} {record[k]:.3g}" for k in ("total", "identity", "label", "recon") if k in record]
        print(", ".join([f"{name}: step {step} of {steps}", *speed, *(["evaluating"] if over else losses)]), flush=True)


def _progress(folder: Path) -> tuple[dict[str, Any], int]:
    """Last record of metrics.jsonl and the number of steps, or nothing while there is none."""
    try:
        record = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        card = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return record, int(card["steps"])
    except (OSError, ValueError, IndexError, KeyError):
        return {}, 0


if __name__ == "__main__":
    sys.exit(main())
