#!/usr/bin/env bash
# What the image does with the arguments of `docker run IMAGE ...`:
#
#   none, or options (--profile paper)   run_all.sh with them, then `mixcl verify` of what came out
#   lab [...]                            JupyterLab on port 8888, with its token, on copies of the notebooks in ~
#   anything else                        that command
set -euo pipefail

root=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")/../..")
source "$root/reproduce/bits.sh" # threads and instruction set

case ${1:-} in
    lab)
        shift
        mkdir -p "$HOME/notebooks"
        for book in "$root"/notebooks/*.ipynb; do # what was saved there before stays
            [ -e "$HOME/notebooks/${book##*/}" ] || cp -- "$book" "$HOME/notebooks/"
        done
        for place in results figures reproduce; do ln -sfn "$root/$place" "$HOME/$place"; done # as notebooks find them
        exec jupyter lab --ip=0.0.0.0 --no-browser --ServerApp.root_dir="$HOME" "$@" ;;
    '' | -*) ;;
    *) exec "$@" ;;
esac

profile=phantom out="" verify=yes settings=()
for ((i = 1; i <= $#; i++)); do
    next=$((i + 1))
    case ${!i} in
        --profile) profile=${!next:-} i=$next ;;
        --out) out=${!next:-} i=$next ;;
        --set) settings+=("${!next:-}") i=$next ;;
        --only | --dry-run | -h | --help) verify=no ;; # not everything is made that could be verified
    esac
done

# The profile's name, whether there is something to compare it with, and the settings that a container needs, a line each.
plan=$(python - "$profile" ${settings[@]+"${settings[@]}"} <<'PYTHON'
import os
import sys

from mixcl.cli.shared import has_expected
from mixcl.config import load_profile
from mixcl.errors import InputError

try:
    config = load_profile(sys.argv[1], sys.argv[2:])
except InputError:
    sys.exit(1)
print(config.profile)
print(has_expected(config.profile))
if config.data.source == "files" and not config.data.root:
    print("data.root=/data")
# Worker processes hand patches over in shared memory, of which a container has 64 MB unless told otherwise; a training
# that runs out of it dies of a bus error.  The patches are the same for any number of workers.
shared = os.statvfs("/dev/shm")
if config.run.workers != 0 and shared.f_blocks * shared.f_frsize < 1e9:
    print("run.workers=0")
PYTHON
) || exec bash "$root/reproduce/run_all.sh" "$@" # it says what is wrong with the arguments
mapfile -t plan <<<"$plan"
changes=()
[ "${plan[1]}" = True ] || verify=no
for setting in "${plan[@]:2}"; do
    echo "docker: adding --set $setting" >&2
    changes+=(--set "$setting")
done
set -- ${changes[@]+"${changes[@]}"} "$@" # the user's own settings come later, so they win
[ "$verify" = yes ] || exec bash "$root/reproduce/run_all.sh" "$@"

# The first process of a container ignores the signals of `docker stop` and Ctrl-C unless it asks for them.
bash "$root/reproduce/run_all.sh" "$@" &
job=$! status=0
trap 'kill -TERM "$job" 2>/dev/null' INT TERM
wait "$job" || status=$?
while kill -0 "$job" 2>/dev/null; do wait "$job" || status=$?; done # a signal ended the first wait
[ "$status" -eq 0 ] || exit "$status"

for setting in ${settings[@]+"${settings[@]}"}; do changes+=(--set "$setting"); done
exec mixcl verify --profile "$profile" --out "${out:-$root/results/${plan[0]}}" ${changes[@]+"${changes[@]}"}
