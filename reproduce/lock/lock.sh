#!/usr/bin/env bash
# Writes the lock from pyproject.toml (with its extra `dev`) and requirements.in:
#
#   base.txt        every package but torch and its CUDA libraries, each with the hashes of its files
#   build.txt       the one of them that packages without a wheel are built with, installed before the others
#   torch-cuda.txt  torch from the package registry, with the CUDA libraries and triton it asks for
#   torch-cpu.txt   torch's CPU build, where pip finds one (a folder or an index that you have told pip of)
#   cpu.txt, cuda.txt   two lines each: base and one of the two
#
# Usage: reproduce/lock/lock.sh [--upgrade | --upgrade-package NAME ...]
# Without an argument versions stay as they are unless pyproject.toml or requirements.in asks for others.
# Needs `uv` on the path (pip install uv).  The resolution is for Python 3.11.0 and later patches on Linux x86-64.
set -euo pipefail

here=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")")
root=$(realpath -- "$here/../..")
command -v uv >/dev/null || { echo "lock: the command uv is missing; install it with: pip install uv" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

cat "$here/base.txt" "$here/torch-cuda.txt" >"$work/all.txt" 2>/dev/null || : # versions so far are preferred
(cd "$root" && uv pip compile pyproject.toml reproduce/lock/requirements.in --extra dev \
    --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
    --generate-hashes --no-header --quiet --output-file "$work/all.txt" "$@" >/dev/null)

# The CPU build is published beside the registry, under a version that ends in +cpu.
torch=$(sed -n 's/^torch==\([^ ;]*\).*/\1/p' "$work/all.txt")
if python3 -m pip download --quiet --no-deps --dest "$work/cpu" "torch==$torch+cpu" >/dev/null 2>&1; then
    hash=$(sha256sum "$work"/cpu/torch-*.whl | cut -d ' ' -f 1)
    {
        echo "# Written by lock.sh: torch's CPU build, which pip finds only where you have told it of a place that has it."
        printf 'torch==%s+cpu \\\n    --hash=sha256:%s\n' "$torch" "$hash"
    } >"$here/torch-cpu.txt"
elif ! grep -q "^torch==$torch+cpu " "$here/torch-cpu.txt"; then
    echo "lock: pip finds no CPU build of torch $torch, so torch-cpu.txt cannot be written; nothing was changed" >&2
    exit 1
fi

python3 - "$work/all.txt" "$here" <<'PYTHON'
import re
import sys
from pathlib import Path

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
blocks = re.split(r"^(?=[A-Za-z0-9])", source.read_text(), flags=re.MULTILINE)
packages = [block for block in blocks if "==" in block.split("\n", 1)[0]]
with_torch = [block for block in packages if re.match(r"(torch|triton|nvidia-\S+|cuda-\S+)==", block)]
base = [block for block in packages if block not in with_torch]
build = [block for block in base if block.startswith("setuptools==")]
heads = {
    "base.txt": "# Written by lock.sh: every package but torch and its CUDA libraries.\n",
    "build.txt": "# Written by lock.sh: what packages without a wheel are built with.\n",
    "torch-cuda.txt": "# Written by lock.sh: torch as the registry has it, with its CUDA libraries.\n",
}
for name, chosen in (("base.txt", base), ("build.txt", build), ("torch-cuda.txt", with_torch)):
    (folder / name).write_text(heads[name] + "".join(chosen))
for kind in ("cpu", "cuda"):
    (folder / f"{kind}.txt").write_text(f"-r base.txt\n-r torch-{kind}.txt\n")
print(f"locked {len(base)} packages, and torch with {len(with_torch) - 1} more for CUDA")
PYTHON
