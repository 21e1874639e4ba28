"""The command line: how it starts and ends; what it does is in :mod:`.commands`, what all share in :mod:`.shared`.

Nothing heavy is imported before it is needed, so that help and mistakes are quick.
"""

import io
import os
import sys
import traceback
from typing import NoReturn

from mixcl.cli.commands import app
from mixcl.errors import InputError, enough_memory
from mixcl.run import signals

LONGEST = 500  # characters of a path or name that is shown


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit code 2 and one sentence for bad input, 130 for an interruption, 143 for SIGTERM."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words  # wherever it stands
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8, a name that is
    try:
        with signals.leaving(), enough_memory():
            app(args=[word for word in words if word != "--debug"], prog_name="mixcl")
    except InputError as error:
        _fail(str(error), 2, debug)
    except signals.Stopped as stop:
        _fail(str(stop), stop.code, False)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            place = f"{str(error.filename)[:200]}: " if error.filename else ""
            _fail(f"{place}{os.strerror(error.errno)}; mend it, or choose another path", 2, debug)
        _fail(f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)", 1, debug)


def _fail(message: str, code: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    items = [" ".join(map(_shortened, item.split())) for item in message.split("\n- ")]  # faulty cases, a line each
    print("mixcl: " + "\n- ".join(items), file=sys.stderr)
    sys.exit(code)


def _shortened(word: str) -> str:
    return word if len(word) <= LONGEST else f"{word[:LONGEST]}..."
