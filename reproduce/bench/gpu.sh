#!/usr/bin/env bash
# Every figure that needs a GPU, at the paper's size, in under 10 minutes on one H200: the step against a bare UNETR and
# against MONAI's tutorial, the data pipeline, scaling, the roofline, patches that fit in memory, compiled or not.
#
#   reproduce/bench/gpu.sh [--work DIR] [--minutes N] [--small] [--again]
#
# Each benchmark has a time limit; what is done is kept in DIR (default results/bench-gpu) and the same command goes on
# from there, so DIR may be carried from one loan of a machine to the next.  At the end, and whenever it stops,
# reproduce/bench/results/<machine>.json and <machine>.png hold what there is.  --small runs each benchmark on the
# processor at a small size, in DIR alone; --again drops what is there.
set -euo pipefail

here=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")")
root=$(realpath -- "$here/../..")
work=$root/results/bench-gpu minutes=9 small="" again=""
while [ $# -gt 0 ]; do
    case $1 in
        --work) work=${2:?--work needs a folder}; shift 2 ;;
        --minutes) minutes=${2:?--minutes needs a number}; shift 2 ;;
        --small) small=yes; shift ;;
        --again) again=yes; shift ;;
        *) echo "gpu.sh: unknown argument '$1'; see the head of this file" >&2; exit 2 ;;
    esac
done
source "$root/reproduce/setup.sh"
[ -z "$again" ] || rm -rf -- "$work/parts"
mkdir -p -- "$work/parts"
end=$((SECONDS + minutes * 60)) failed=()
results=$here/results
[ -z "$small" ] || results=$work/results

if [ -n "$small" ]; then
    on=(--device cpu --profile smoke --repeats 1 --batch 2 --precision no --set run.channels_last=false) workers=0 pipeline=(0) axes=(--batches 1 --classes 1 --budgets 32)
    volumes=1 steps=3 ceiling=(--edge 256 --megabytes 8)
else
    nvidia-smi --query-gpu=name,memory.total --format=csv,noheader || { echo "gpu.sh: no GPU here; --small needs none" >&2; exit 2; }
    cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
    workers=$((cores > 9 ? 8 : cores - 1))
    on=(--device cuda --precision bf16 --repeats 10 --batch 6) pipeline=(0 2 4 "$workers" "$cores")
    axes=(--batches 1 2 6 12 --patches 64 96 128 --classes 1 5 13 --budgets 32 128 512)
    volumes=2 steps=20 ceiling=(--edge 8192 --megabytes 2048)
fi

# part NAME SECONDS BENCHMARK OPTIONS...: one benchmark within its time, unless it is done or the time is over.
part() {
    local name=$1 limit=$2 left=$((end - SECONDS))
    shift 2
    [ -z "$small" ] || limit=$((10 * limit)) # a processor that has other work, too
    [ ! -s "$work/parts/$name.json" ] || { echo "gpu.sh: $name is done"; return 0; }
    [ "$left" -gt 20 ] || { echo "gpu.sh: no time left for $name"; failed+=("$name"); return 0; }
    echo "gpu.sh: $name"
    if timeout --kill-after=10 "$((left < limit ? left : limit))" python "$here/$1.py" "${@:2}" \
        --out "$work/parts/.$name.json" >"$work/parts/$name.log" 2>&1; then
        mv -- "$work/parts/.$name.png" "$work/parts/$name.png"
        mv -- "$work/parts/.$name.json" "$work/parts/$name.json"
        grep '^ratio' "$work/parts/$name.log" || :
    else
        echo "gpu.sh: $name did not finish: $(tail -n 1 "$work/parts/$name.log")" >&2
        failed+=("$name")
    fi
}

scans=(--work "$work/scans" --volumes "$volumes")
part step 90 step "${on[@]}"
part roofline 120 roofline "${on[@]}" "${ceiling[@]}"
part pipeline 180 pipeline "${on[@]}" "${scans[@]}" --workers "${pipeline[@]}" --steps "$steps"
part tutorial 120 tutorial "${on[@]}" "${scans[@]}" --workers "$workers" --steps "$steps"
part scaling 90 scaling "${on[@]}" "${axes[@]}"
if [ -z "$small" ]; then  # the step again, with another setting, and the tutorial's objective on our network
    part step-batch1 60 step "${on[@]}" --batch 1
    part step-channels-first 60 step "${on[@]}" --set run.channels_last=false
    part step-float32 60 step "${on[@]}" --precision no
    part step-compiled 150 step "${on[@]}" --set run.compile=true
    part tutorial-unetr 90 tutorial "${on[@]}" "${scans[@]}" --workers "$workers" --steps "$steps" --network unetr
fi

python "$here/collect.py" "$work/parts" --out "$results"
if [ ${#failed[@]} -gt 0 ]; then
    echo "gpu.sh: not done: ${failed[*]}; the same command goes on from here" >&2
    exit 1
fi
