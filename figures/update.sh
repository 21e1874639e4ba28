#!/usr/bin/env bash
# Copy what a full run drew into this folder: figures/update.sh [results/phantom]
# The figures are drawn by notebooks 10 and 20 to 22; their captions name profile, seed, commit and data.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
from=${1:-$here/../results/phantom}
[ -f "$from/RUN.json" ] || { echo "update.sh: $from has no RUN.json; finish reproduce/run_all.sh first" >&2; exit 2; }
if grep -q '+changes' "$from/RUN.json"; then
    echo "update.sh: $from was made with uncommitted changes; commit and run it again" >&2
    exit 2
fi
cp -- "$from"/figures/*.png "$from"/figures/*.pdf "$here/"
