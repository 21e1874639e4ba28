#!/usr/bin/env bash
# Tables 1 and 2 by epochs, the map of the gain, and other pre-trainings at two of its points, at the paper's size on one
# GPU, a piece at a time: what is done when the time is over is kept, and the same command goes on from there.
#
#   reproduce/bench/gpu_science.sh [--plan] [--out DIR] [--minutes N] [--data DIR] [--price N] [run_all.sh arguments...]
#
#   --plan        say how many hours and how much money all of it will take, and start nothing
#   --out DIR     folder of results (default: results); may be carried from one loan of a machine to the next
#   --minutes N   when to stop (default: 9)
#   --data DIR    folder of the real collections instead of full-size phantoms: BTCV and MSD Spleen, and what there is of
#                 the five of the pre-training
#   --price N     what an hour costs, for the plan
set -euo pipefail

root=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")/../..")
plan='' out=$root/results minutes=9 price=0 data='' settings=() rest=()
while [ $# -gt 0 ]; do
    case $1 in
        --plan) plan=yes; shift ;;
        --out) out=${2:?gpu_science.sh: --out needs a folder}; shift 2 ;;
        --minutes) minutes=${2:?gpu_science.sh: --minutes needs a number}; shift 2 ;;
        --price) price=${2:?gpu_science.sh: --price needs a number}; shift 2 ;;
        --data) data=${2:?gpu_science.sh: --data needs a folder}; shift 2 ;;
        --set) settings+=("${2:?gpu_science.sh: --set needs KEY=VALUE}"); shift 2 ;;
        *) rest+=("$1"); shift ;;
    esac
done
[ -n "$plan" ] || nvidia-smi --query-gpu=name,memory.total --format=csv,noheader ||
    { echo "gpu_science.sh: no GPU here" >&2; exit 2; }
source "$root/reproduce/setup.sh"
if [ -n "$data" ]; then
    real=(data.source=files "data.root=$data")
    there=$(python "$root/reproduce/bench/gpu_plan.py" --pretrain "$data")
    if [ -n "$there" ]; then
        echo "gpu_science.sh: some collections of the pre-training are not in $data; taking $there" >&2
        real+=("$there")
    fi
    settings=("${real[@]}" ${settings[@]+"${settings[@]}"}) # what is given besides comes after
fi
if [ -n "$plan" ]; then
    for profile in fair-size map-size points-size; do
        python "$root/reproduce/bench/gpu_plan.py" "$profile" "$price" ${settings[@]+"${settings[@]}"}
    done
    exit 0
fi

given=()
for item in ${settings[@]+"${settings[@]}"}; do given+=(--set "$item"); done
end=$((SECONDS + 60 * minutes))
for part in "fair-size table1" "fair-size effects" "map-size map" "points-size map"; do
    read -r profile only <<<"$part"
    left=$((end - SECONDS)) code=0
    [ "$left" -gt 0 ] || break
    timeout --signal=TERM --kill-after=20 "$left" bash "$root/reproduce/run_all.sh" --profile "$profile" --only "$only" \
        --out "$out/$profile" --gpus 1 ${given[@]+"${given[@]}"} ${rest[@]+"${rest[@]}"} || code=$?
    if [ "$code" = 124 ] || [ "$code" = 137 ]; then
        finished=$(find "$out/$profile/runs" -name model.safetensors 2>/dev/null | wc -l)
        echo "gpu_science.sh: time is over with $finished trained models of $profile; the same command goes on from here"
        exit 0
    fi
    [ "$code" = 0 ] || exit "$code"
done
