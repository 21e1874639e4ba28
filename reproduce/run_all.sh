#!/usr/bin/env bash
# The whole companion: prepare -> pre-train -> fine-tune and evaluate every arm and fold -> tables, figures, site.
# Makes its environment when none is active; run it again after any stop and it goes on where it was.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<TEXT
usage: reproduce/run_all.sh [--profile NAME] [--out DIR] [--cores N] [--gpus N] [--only WHAT] [--set KEY=VALUE]...
                            [--dry-run] [--slurm DIR]

  --profile NAME   smoke, phantom (default), paper, paper-steps, or a YAML file of your own
  --out DIR        folder of results (default: results/NAME in the repository)
  --cores N        processor cores to use (default: all); a job takes run.threads of them
  --gpus N         GPUs to use, one a job (default: all that nvidia-smi lists; 0 stays on the processor)
  --only WHAT      prepare, pretrain, table1, table2, effects or figures, with what it needs
  --set KEY=VALUE  change one setting, for example --set finetune.epochs=500
  --dry-run        show the jobs that would run and how long they would take, and run none
  --slurm DIR      send the jobs to SLURM, as DIR/config.yaml says (see reproduce/slurm); --cores is then jobs at a time
TEXT
}

fail() {
    echo "run_all.sh: $*" >&2
    exit 2
}

profile=phantom out="" cores=$(nproc) gpus="" only=all slurm="" dry="" settings=()
while [ $# -gt 0 ]; do
    case $1 in
        --profile | --out | --cores | --gpus | --only | --slurm | --set)
            [ $# -ge 2 ] || fail "$1 needs a value; see --help"
            case $1 in
                --profile) profile=$2 ;;
                --out) out=$2 ;;
                --cores) cores=$2 ;;
                --gpus) gpus=$2 ;;
                --only) only=$2 ;;
                --slurm) slurm=$(realpath -- "$2") ;;
                --set) settings+=("$2") ;;
            esac
            shift 2 ;;
        --dry-run) dry=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        *) fail "unknown argument '$1'; see --help" ;;
    esac
done
[[ $cores =~ ^[1-9][0-9]*$ ]] || fail "--cores $cores: give a number of cores, 1 or more"
[[ $gpus =~ ^[0-9]*$ ]] || fail "--gpus $gpus: give a number of GPUs, 0 or more"
case $only in all | prepare | pretrain | table1 | table2 | effects | figures) ;; *)
    fail "--only $only: choose prepare, pretrain, table1, table2, effects or figures" ;; esac
[ -z "$slurm" ] || [ -f "$slurm/config.yaml" ] || fail "--slurm $slurm: no config.yaml there; copy reproduce/slurm"
case $profile in *.yaml | *.yml | */*) profile=$(realpath -- "$profile") ;; esac
[ -n "$gpus" ] || gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || :)

source "$here/setup.sh"
source "$here/bits.sh"
export PYDEVD_DISABLE_FILE_VALIDATION=1 MPLBACKEND=agg TQDM_MININTERVAL=5 PYTHONUNBUFFERED=1 MIXCL_GPUS=$gpus

listed=$(python -c 'import json, sys; print(json.dumps(sys.argv[1:]))' ${settings[@]+"${settings[@]}"})
name=$(python -c '
import json, sys
from mixcl.config import load_profile
from mixcl.errors import InputError
try:
    print(load_profile(sys.argv[1], json.loads(sys.argv[2])).profile)
except InputError as error:
    sys.exit(f"run_all.sh: {error}")' "$profile" "$listed") || exit 2
out=$(realpath -m -- "${out:-$here/../results/$name}")
mkdir -p -- "$out" || fail "$out cannot be made; choose another --out"

# One run at a time in a folder of results; a killed run lets go of the lock within seconds.
exec 9>"$out/.lock"
flock --wait 20 9 || fail "another run is at work in $out; wait for it or choose another --out"

echo "mixcl: profile $name, results in $out"
run=(python -m snakemake --snakefile "$here/Snakefile" --directory "$out" --nolock --rerun-incomplete --keep-going
    --config "profile=$profile" "out=$out" "settings=$listed" "gpus=$gpus")
if [ -n "$dry" ]; then
    exec python "$here/dry_run.py" "$profile" "$listed" "$cores" "$gpus" "$only" "${run[@]}"
fi
if [ -n "$slurm" ]; then
    run+=(--workflow-profile "$slurm" --jobs "$cores")
else
    run+=(--cores "$cores")
    [ "$gpus" = 0 ] || run+=(--resources "gpu=$gpus")
    [ "$gpus" != 0 ] || python -m mixcl.run.determinism
fi
command -v setpriv >/dev/null && run=(setpriv --pdeathsig TERM "${run[@]}")  # a killed run_all.sh takes it along
# The jobs speak on standard output; what the engine says goes to a file.
if ! "${run[@]}" -- "$only" 2>>"$out/workflow.log"; then
    echo "mixcl: not everything could be made; the lines above name the job (the engine's log is $out/workflow.log)" >&2
    echo "mixcl: mend it and run the same command again: what is finished is kept" >&2
    exit 1
fi
case $only in
    all | figures) echo "mixcl: the page is $out/site/index.html; compare the numbers with: mixcl verify --profile $profile --out $out" ;;
    table*) echo "mixcl: tables in $out/tables" ;;
    *) echo "mixcl: done, in $out" ;;
esac
