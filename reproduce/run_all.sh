#!/usr/bin/env bash
# The whole companion: prepare -> pre-train -> fine-tune and evaluate every arm and fold -> tables, figures, site.
# Makes its environment when none is active; run it again after any stop and it goes on where it was.
set -euo pipefail

here=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")")

parts="prepare, pretrain, table1, table2, effects, map or figures"

usage() {
    cat <<TEXT
usage: reproduce/run_all.sh [--profile NAME] [--out DIR] [--cores N] [--gpus N] [--only WHAT] [--set KEY=VALUE]...
                            [--dry-run] [--slurm DIR]

  --profile NAME   phantom (default), another of these, or a YAML file of your own:
$(basename -s .yaml "$here"/profiles/*.yaml | paste -sd" " | fold -sw 96 | sed "s/^/                   /")
  --out DIR        folder of results (default: results/NAME in the repository)
  --cores N        processor cores to use (default: all); a job takes run.threads of them
  --gpus N         GPUs to use, one a job (default: all that CUDA_VISIBLE_DEVICES leaves visible; 0: the processor)
  --only WHAT      $parts, with what it needs
  --set KEY=VALUE  change one setting, for example --set finetune.epochs=500
  --dry-run        show the jobs that would run and how long they would take, and run none
  --slurm DIR      send the jobs to SLURM, as DIR/config.yaml says (see reproduce/slurm); --cores is then jobs at a time
TEXT
}

fail() {
    echo "run_all.sh: $*" >&2
    exit 2
}

profile=phantom out="" cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) gpus="" only=all slurm="" dry="" settings=()
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
                --slurm) slurm=$(realpath -m -- "$2") ;;
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
case $only in all | prepare | pretrain | table1 | table2 | effects | map | figures) ;; *)
    fail "--only $only: choose $parts" ;; esac
[ -z "$slurm" ] || [ -f "$slurm/config.yaml" ] || fail "--slurm $slurm: no config.yaml there; copy reproduce/slurm"

source "$here/setup.sh"
source "$here/bits.sh"
export PYDEVD_DISABLE_FILE_VALIDATION=1 MPLBACKEND=agg TQDM_MININTERVAL=5 PYTHONUNBUFFERED=1
exec python "$here/workflow.py" --profile="$profile" --out="$out" --cores="$cores" --gpus="$gpus" --only="$only" \
    --slurm="$slurm" --dry="$dry" -- ${settings[@]+"${settings[@]}"}
