#!/usr/bin/env bash
# The ceiling of the fair test: what could an encoder bring at most?  A network learns the 13 organs from every label of
# 38 other phantoms, once a seed, and is handed over like a pre-trained one.  Its arms stand beside the others in the
# effects' table.
#
#   reproduce/bench/ceiling.sh OUT [PROFILE PERCENT] [mixcl's --set arguments...]
#
# OUT is the folder of a run of PROFILE, fair unless named (run_all.sh --profile PROFILE --only effects); give the same
# settings as there.  PERCENT of BTCV's labels, 15 unless named, are then used.  The same command goes on after a stop.
# Three arms, five folds, three seeds: about an hour of a core.
set -euo pipefail

root=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")/../..")
out=$(realpath -- "${1:?ceiling.sh: name the folder of a run of profile fair}")
shift
profile=fair percent=15
case ${1:-} in
    "" | -*) ;;
    *) profile=$1 percent=${2:?ceiling.sh: name the share of the labels in percent after the profile} && shift 2 ;;
esac
[[ $percent =~ ^[0-9]{1,3}$ ]] || { echo "ceiling.sh: $percent is no share of the labels in percent; give a whole number" >&2; exit 2; }
[ -d "$out/data/store" ] || { echo "ceiling.sh: $out holds no prepared phantoms; run run_all.sh --profile $profile first" >&2; exit 2; }
source "$root/reproduce/setup.sh"
source "$root/reproduce/bits.sh"

teacher=$out/ceiling seeds="0 1 2"
other=(--profile "$profile" --out "$teacher" "$@" --set phantom.seed=1001 --set phantom.counts.btcv=40
    --set data.pretrain_sees_test=true --set 'data.pretrain=[btcv]' --set 'data.finetune=[btcv]' --set grid.n_folds=20 --set 'grid.folds=[0]'
    --set 'grid.percents={}' --set 'grid.ablation={}' --set 'grid.compare=[]' --set 'grid.variants={}'
    --set finetune.steps=3000 --set finetune.epochs=null)
mixcl prepare "${other[@]}"
for seed in $seeds; do
    mixcl finetune "${other[@]}" --task btcv --arm ceiling --seed "$seed"
    mixcl evaluate "${other[@]}" --run "finetune-btcv-p100-ceiling-f0-s$seed"
done

arms=""
for arm in "ceiling finetune.transfer=encoder" "ceiling-frozen finetune.freeze=true" "ceiling-all finetune.transfer=all"; do
    read -r name how <<<"$arm"
    arms+="${arms:+, }\"$name\": [\"$how\"]"
    mine=(--profile "$profile" --out "$out" "$@" --set 'grid.compare=[]' --set 'grid.variants={}' --set "grid.variants={$name: [$how]}" --set "$how")
    for seed in $seeds; do
        init=$teacher/runs/finetune-btcv-p100-ceiling-f0-s$seed
        for fold in 0 1 2 3 4; do
            mixcl finetune "${mine[@]}" --task btcv --percent "$percent" --fold "$fold" --seed "$seed" --arm "$name" --init "$init"
            mixcl evaluate "${mine[@]}" --run "finetune-btcv-p$(printf %03g "$percent")-$name-f$fold-s$seed"
        done
    done
done
given=$(python -c 'import json, sys
from mixcl.config import load_profile
profile, out, percent, arms, *rest = sys.argv[1:]
settings = [word for word in rest if word != "--set"]
variants = load_profile(profile, settings).grid.variants | json.loads(arms)  # a setting of arms replaces all
settings += [f"grid.variants={json.dumps(variants)}", f"grid.ablation.btcv={percent}"]
print(json.dumps({"PROFILE": profile, "OUT": out, "SETTINGS": settings}))' "$profile" "$out" "$percent" "{$arms}" "$@")
python "$root/reproduce/run_notebook.py" "$root/notebooks/30_what_matters.ipynb" "$out/tables/30_what_matters.ipynb" "$given"
