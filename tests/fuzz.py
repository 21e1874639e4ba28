"""Feed the readers of files with what nobody would write, for as long as is asked.

    pip install atheris
    python tests/fuzz.py 3600                  an hour, shared among all readers
    python tests/fuzz.py 600 yaml weights      ten minutes for two of them

atheris changes the inputs in ``tests/corpus/<reader>`` so that they reach new lines of the readers.  What makes one
fail is kept there as ``crash-...``, to be mended; what reaches the most lines is kept in a small corpus, which the
tests read every time.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
LARGEST, MOST = 2000, 12  # bytes of an input that is kept, and how many of a reader


def main() -> int:
    """Fuzz what the command line names, each in a process of its own; 1 where one failed."""
    if sys.argv[1] == "--reader":
        return _fuzz(sys.argv[2], sys.argv[3:])
    sys.path.insert(0, str(HERE))
    from helpers.readers import READERS

    names = sys.argv[2:] or list(READERS)
    each, failed = max(1, int(sys.argv[1]) // len(names)), []
    for name in names:
        kept = CORPUS / name
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as new:
            shutil.copytree(kept, new, dirs_exist_ok=True)
            limits = [f"-max_total_time={each}", "-rss_limit_mb=2048", "-timeout=10", "-max_len=4096", "-verbosity=1"]
            run = [sys.executable, __file__, "--reader", name, f"-artifact_prefix={kept}/", *limits, new]
            if subprocess.run(run, check=False).returncode:
                failed.append(name)
            _keep(Path(new), kept)
    print(f"fuzz: {', '.join(failed) or 'no reader'} failed")
    return 1 if failed else 0


def _keep(found: Path, kept: Path) -> None:
    """Add some of the smallest inputs that reached new lines."""
    sizes = sorted((path.stat().st_size, path.name) for path in found.iterdir() if path.stat().st_size <= LARGEST)
    for _, name in sizes[:: max(1, len(sizes) // MOST)]:
        if len(list(kept.iterdir())) < MOST:
            shutil.copy(found / name, kept / name)


def _fuzz(name: str, options: list[str]) -> int:
    import atheris

    sys.path.insert(0, str(HERE))
    with atheris.instrument_imports(include=["mixcl", "yaml", "nibabel", "pydicom", "helpers"]):
        from helpers.readers import READERS
    atheris.Setup([__file__, *options], READERS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
