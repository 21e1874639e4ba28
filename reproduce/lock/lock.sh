#!/usr/bin/env bash
# Writes the lock from pyproject.toml (with its extras `workflow`, `tensorboard` and `dev`) and requirements.in:
#
#   base.txt        every package that a run needs but torch and its CUDA libraries, each with the hashes of its files
#   dev.txt         what the tests and checks need besides; the image does without
#   build.txt       the one of them that packages without a wheel are built with, installed before the others
#   torch-cuda.txt  torch from the package registry, with the CUDA libraries and triton it asks for
#   torch-cpu.txt   torch's CPU build, where pip finds one (a folder or an index that you have told pip of)
#   cpu.txt, cuda.txt   three lines each: base, dev and one of the two
#   sbom.cdx.json   all of cuda.txt as a CycloneDX bill of materials, by cyclonedx-py, which uv fetches
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

cat "$here/base.txt" "$here/dev.txt" "$here/torch-cuda.txt" >"$work/all.txt" 2>/dev/null || : # versions so far are preferred
(cd "$root" && uv pip compile pyproject.toml reproduce/lock/requirements.in --extra workflow --extra tensorboard --extra dev \
    --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
    --generate-hashes --no-header --quiet --output-file "$work/all.txt" "$@" >/dev/null)

cp "$work/all.txt" "$work/run.txt" # the same versions, without what only `dev` asks for
(cd "$root" && uv pip compile pyproject.toml reproduce/lock/requirements.in --extra workflow --extra tensorboard \
    --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
    --generate-hashes --no-header --quiet --output-file "$work/run.txt" >/dev/null)

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

python3 - "$work/all.txt" "$work/run.txt" "$here" <<'PYTHON'
import re
import sys
from pathlib import Path

folder = Path(sys.argv[3])


def blocks(name):
    """The packages of a file, each with its hashes."""
    found = re.split(r"^(?=[A-Za-z0-9])", Path(name).read_text(), flags=re.MULTILINE)
    return [block for block in found if "==" in block.split("\n", 1)[0]]


packages, run = blocks(sys.argv[1]), {block.split()[0] for block in blocks(sys.argv[2])}
with_torch = [block for block in packages if re.match(r"(torch|triton|nvidia-\S+|cuda-\S+)==", block)]
base = [block for block in packages if block not in with_torch and block.split()[0] in run]
dev = [block for block in packages if block not in with_torch and block.split()[0] not in run]
build = [block for block in base if block.startswith("setuptools==")]
heads = {
    "base.txt": "# Written by lock.sh: every package that a run needs but torch and its CUDA libraries.\n",
    "dev.txt": "# Written by lock.sh: what the tests and checks need besides.\n",
    "build.txt": "# Written by lock.sh: what packages without a wheel are built with.\n",
    "torch-cuda.txt": "# Written by lock.sh: torch as the registry has it, with its CUDA libraries.\n",
}
for name, chosen in (("base.txt", base), ("dev.txt", dev), ("build.txt", build), ("torch-cuda.txt", with_torch)):
    (folder / name).write_text(heads[name] + "".join(chosen))
for kind in ("cpu", "cuda"):
    (folder / f"{kind}.txt").write_text(f"-r base.txt\n-r dev.txt\n-r torch-{kind}.txt\n")
print(f"locked {len(base)} packages, {len(dev)} more for tests, and torch with {len(with_torch) - 1} more for CUDA")
PYTHON

# The bill of materials says what, in which version, with which hashes; where each comes from is left to pip.
uv tool run --quiet --from "cyclonedx-bom>=7" cyclonedx-py requirements "$here/cuda.txt" --output-reproducible \
    --output-file "$work/sbom.json" 2>/dev/null
python3 - "$work/sbom.json" "$here/sbom.cdx.json" <<'PYTHON'
import json
import sys
from pathlib import Path

bill = json.loads(Path(sys.argv[1]).read_text())
bill["metadata"].pop("tools", None)
for part in bill["components"]:
    part.pop("description", None)
    references = part.pop("externalReferences", [])
    part["hashes"] = [digest for reference in references for digest in reference.get("hashes", [])]
bill["components"].sort(key=lambda part: part["name"])
Path(sys.argv[2]).write_text(json.dumps(bill, indent=0, sort_keys=True) + "\n")
print(f"listed {len(bill['components'])} packages in sbom.cdx.json")
PYTHON
