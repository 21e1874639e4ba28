#!/usr/bin/env bash
# Copy what a full run drew into this folder, with its tables: figures/update.sh [results/phantom]
# The figures are drawn by notebooks 10, 20 to 22 and 30; their captions name profile, seed, commit and data.
# Of a run with --only effects or map, such as results/map, they go into a folder of its name, with their tables.
# Then pages.py writes the README.md of every folder; it needs the environment in which mixcl is installed.
set -euo pipefail
here=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")")
from=${1:-$here/../results/phantom}
made=$from/RUN.json
[ -f "$made" ] || made=$from/tables/effects.md
[ -f "$made" ] || made=$from/tables/map.md
[ -f "$made" ] || { echo "update.sh: $from has no RUN.json; finish reproduce/run_all.sh first" >&2; exit 2; }
if grep -q '+changes' "$made"; then
    echo "update.sh: $from was made with uncommitted changes; commit and run it again" >&2
    exit 2
fi
if [ "$made" = "$from/RUN.json" ]; then
    for name in table1 table2 organs statistics effects effects_organs effects_trainings; do
        [ -f "$from/tables/$name.csv" ] || { echo "update.sh: $from/tables has no $name.csv; this folder shows runs with all of them, such as of profile phantom" >&2; exit 2; }
    done
    to=$here
    cp -- "$from"/figures/*.{png,pdf} "$from"/tables/{table1,table2,organs,statistics}.csv "$from"/tables/table{1,2}.md "$to/"
else
    to=$here/$(basename -- "$from")
    mkdir -p -- "$to"
fi
if [ "$made" = "$from/tables/map.md" ]; then
    shopt -s nullglob # a run has maps, or arms at a point
    rm -f -- "$to/tuned.csv" # which one rate alone has not
    cp -- "$from"/figures/{map,arms}*.{png,pdf} "$from"/tables/{map,found,features,trainings}.csv "$from"/tables/tuned*.csv "$made" "$to/"
else
    [ "$to" = "$here" ] || cp -- "$from"/figures/effects.{png,pdf} "$to/"
    cp -- "$from"/tables/effects{,_organs}.{csv,md} "$from"/tables/effects_trainings.csv "$to/"
    # without two arms that differ in the label term alone the table by organ has a head and no row
    [ "$(wc -l < "$to/effects_organs.csv")" -gt 1 ] || rm -- "$to"/effects_organs.{csv,md}
fi
python "$here/pages.py"
python "$here/../reproduce/fill_readme.py"    # the numbers of all pages
