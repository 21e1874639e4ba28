#!/usr/bin/env bash
# The fair test at the paper's size on one GPU, a piece at a time: what is done when the time is over is kept, and the
# same command goes on from there.
#
#   reproduce/bench/gpu_science.sh [OUT] [MINUTES] [run_all.sh arguments...]
#
# OUT (default results/fair-size) may be carried from one loan of a machine to the next; MINUTES (default 9) is when to stop.
set -euo pipefail

root=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")/../..")
out=${1:-$root/results/fair-size} minutes=${2:-9}
shift $(($# < 2 ? $# : 2))
nvidia-smi --query-gpu=name,memory.total --format=csv,noheader || { echo "gpu_science.sh: no GPU here" >&2; exit 2; }

code=0
timeout --signal=TERM --kill-after=20 "${minutes}m" \
    bash "$root/reproduce/run_all.sh" --profile fair-size --out "$out" --gpus 1 "$@" || code=$?
finished=$(find "$out/runs" -name model.safetensors 2>/dev/null | wc -l)
if [ "$code" = 124 ] || [ "$code" = 137 ]; then
    echo "gpu_science.sh: time is over with $finished trained models; the same command goes on from here"
    exit 0
fi
exit "$code"
