"""Read volumes of every format with 1 to 4 bytes of the header changed, and list what was no volume and no sentence.

python tests/faults/headers.py 2000        # of each format, some minutes
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from helpers.fuzz import fuzz, write_seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="headers of each format")
    parser.add_argument("--number", type=int, default=0, help="another number, other headers")
    given = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as name:
        for form, seed in write_seeds(Path(name)).items():
            start = time.monotonic()
            new = fuzz(Path(name), form, seed, given.count, given.number)
            print(f"{form}: {len(new)} unexpected of {given.count}, {time.monotonic() - start:.0f} s", flush=True)
            found += new
    print("\n".join(found))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
