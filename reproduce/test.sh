#!/usr/bin/env bash
# Runs the tests, with an environment made first where none is active: reproduce/test.sh [pytest arguments]
#
#   reproduce/test.sh                          everything
#   reproduce/test.sh tests/test_losses.py     one file
#   reproduce/test.sh -m "not slow"            the quick ones
set -euo pipefail

root=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")/..")
source "$root/reproduce/setup.sh"
cd -- "$root"

# One thread a process, and one more than a small machine has cores, since some tests wait for others.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg
printf 'test: %s, three processes of one thread each\n' "$(python --version)" >&2
exec python -m pytest -n 3 --dist loadfile --no-loadscope-reorder "$@"
