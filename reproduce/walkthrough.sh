#!/usr/bin/env bash
# Runs the notebooks that are committed executed, the articles 0* and 31, and keeps the executed copies in their place.
#
# Usage: reproduce/walkthrough.sh [NAME ...]     all of them, or those named, such as 02_label_consistency
#        reproduce/walkthrough.sh --train        train the weights that they show, mixcl/lessons/weights; 6 quiet minutes
#
# The folders of results that they name (OUT) are emptied first, so that every picture is of this code.
# Each copy is cleaned of times and paths; one that still holds a path of this machine, or is too large, is refused.
set -euo pipefail

case ${1:-} in -h | --help) sed -n '2,/^set /{s/^# \{0,1\}//;/^set /!p}' "${BASH_SOURCE[0]}"; exit ;; esac
here=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")")
root=$(realpath -- "$here/..")
cd -- "$root"
source reproduce/setup.sh
source reproduce/bits.sh
export PYDEVD_DISABLE_FILE_VALIDATION=1 MPLBACKEND=agg
MIXCL_COMMIT=$(python -c 'from mixcl.run.record import commit; print(commit())') # before the notebooks change
export MIXCL_COMMIT

if [ "${1:-}" = --train ]; then # taken up where it was stopped
    python -c 'from pathlib import Path; from mixcl.lessons import networks; networks.make(Path("results/shown"))'
    python figures/framework.py # the README's first picture is of these weights
    exec python figures/pages.py
fi
names=("$@")
if [ ${#names[@]} = 0 ]; then
    for path in notebooks/0*.ipynb notebooks/31_*.ipynb; do names+=("$(basename -- "$path" .ipynb)"); done
fi
for name in "${names[@]}"; do
    [ -f "notebooks/$name.ipynb" ] || { echo "walkthrough: there is no notebooks/$name.ipynb" >&2; exit 2; }
done
for name in "${names[@]}"; do
    while read -r out; do rm -rf -- "results/$out"; done < <(grep -oP '"OUT = \\"\.\./results/\Kwalkthrough[\w-]*' "notebooks/$name.ipynb")
done
made=$(mktemp -d)
trap 'rm -rf -- "$made"' EXIT
copies=()
for name in "${names[@]}"; do copies+=("notebooks/$name.ipynb" "$made/$name.ipynb" '{}'); done
python reproduce/run_notebook.py "${copies[@]}"
for name in "${names[@]}"; do
    python reproduce/clean_notebook.py "$made/$name.ipynb" "notebooks/$name.ipynb"
done
