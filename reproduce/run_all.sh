#!/usr/bin/env bash
# The main job: prepare -> pre-train -> fine-tune and evaluate both arms -> first table and figures.
# Makes its environment when none is active; run it again after any stop and it goes on where it was.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<TEXT
usage: reproduce/run_all.sh [--profile NAME] [--out DIR] [--cores N] [--set KEY=VALUE]... [--dry-run]

  --profile NAME   smoke, phantom (default), paper, paper-long, or a YAML file of your own
  --out DIR        folder of results (default: results/NAME in the repository)
  --cores N        jobs side by side, one thread each (default: all cores)
  --set KEY=VALUE  change one setting, for example --set pretrain.steps=1000
  --dry-run        show the jobs that would run, and run none
TEXT
}

fail() {
    echo "run_all.sh: $*" >&2
    exit 2
}

profile=phantom out="" cores=$(nproc) dry="" settings=()
while [ $# -gt 0 ]; do
    case $1 in
        --profile | --out | --cores | --set)
            [ $# -ge 2 ] || fail "$1 needs a value; see --help"
            case $1 in
                --profile) profile=$2 ;;
                --out) out=$2 ;;
                --cores) cores=$2 ;;
                --set) settings+=("$2") ;;
            esac
            shift 2 ;;
        --dry-run) dry=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        *) fail "unknown argument '$1'; see --help" ;;
    esac
done
[[ $cores =~ ^[1-9][0-9]*$ ]] || fail "--cores $cores: give a number of jobs, 1 or more"
case $profile in *.yaml | *.yml | */*) profile=$(realpath -- "$profile") ;; esac

source "$here/setup.sh"

export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONHASHSEED=0 PYDEVD_DISABLE_FILE_VALIDATION=1
export MPLBACKEND=agg TQDM_MININTERVAL=5 PYTHONUNBUFFERED=1
listed=$(python -c 'import json, sys; print(json.dumps(sys.argv[1:]))' ${settings[@]+"${settings[@]}"})
name=$(python -c '
import json, sys
from mixcl.config import InputError, load_profile
try:
    print(load_profile(sys.argv[1], json.loads(sys.argv[2])).profile)
except InputError as error:
    sys.exit(f"run_all.sh: {error}")' "$profile" "$listed") || exit 2
out=$(realpath -m -- "${out:-$here/../results/$name}")
mkdir -p -- "$out"

# One run at a time in a folder of results; a killed run lets go of the lock within seconds.
exec 9>"$out/.lock"
flock --wait 20 9 || fail "another run is at work in $out; wait for it or choose another --out"

echo "mixcl: profile $name, results in $out"
run=(python -m snakemake --snakefile "$here/Snakefile" --directory "$out" --cores "$cores" --nolock
    --rerun-incomplete --keep-going --config "profile=$profile" "out=$out" "settings=$listed")
command -v setpriv >/dev/null && run=(setpriv --pdeathsig TERM "${run[@]}")  # a killed run_all.sh takes it along
if [ -n "$dry" ]; then
    exec "${run[@]}" --dry-run --quiet rules
fi
# The jobs speak on standard output; what the engine says goes to a file.
if ! "${run[@]}" 2>>"$out/workflow.log"; then
    echo "mixcl: not everything could be made; the lines above name the job (the engine's log is $out/workflow.log)" >&2
    echo "mixcl: mend it and run the same command again: what is finished is kept" >&2
    exit 1
fi
echo "mixcl: tables in $out/tables, figures in $out/figures"
