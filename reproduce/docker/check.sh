#!/usr/bin/env bash
# Builds the image and tries what the Dockerfile promises: a line a check, and exit status 1 when one fails.
#
#   reproduce/docker/check.sh [FOLDER]     FOLDER keeps storage and logs (default: a new temporary one)
#   TORCH=cuda reproduce/docker/check.sh   the default image instead of the one for the CPU alone
#
# With a docker or podman that can pull and run the pinned base, that base is tested.  Elsewhere (in a container, say)
# the image is built by buildah on a stand-in: the packages of Debian bookworm with its own Python 3.11.  That tests the
# Dockerfile's instructions, not the pinned base.  It wants root and, on Debian:
#   apt-get install buildah podman runc mmdebstrap curl
set -euo pipefail

root=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")/../..")
if [ $# -gt 0 ]; then mkdir -p -- "$1"; work=$(realpath -- "$1"); else work=$(mktemp -d); fi
torch=${TORCH:-cpu}
image=localhost/mixcl-check:$torch
pinned=$(sed -n 's/^ARG BASE_IMAGE=//p' "$root/Dockerfile")
commit=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)
results=mixcl-check-$$ # a volume, and the name of the container in the background
failed=""

say() { printf 'docker: %s\n' "$*"; }
check() { # NAME COMMAND...: one line, and the end of what the command said when it fails
    local name=$1 log
    log=$work/$(tr -cs '[:alnum:]\n' _ <<<"$1").log
    shift
    if "$@" >"$log" 2>&1; then
        say "ok      $name"
    else
        say "FAILED  $name ($log)"
        tail -n 15 "$log" | sed 's/^/        /'
        failed=yes
        return 1
    fi
}

# Where this machine's pip looks.  A build gets these settings as a secret, and one on the stand-in the certificates and
# folders they name at the same places.
pip_settings() {
    {
        for name in PIP_FIND_LINKS PIP_EXTRA_INDEX_URL; do # TORCH=cpu needs one of them, or a setting of pip's
            if [ -n "${!name:-}" ]; then
                tr '[:upper:]_' '[:lower:]-' <<<"${name#PIP_}" | tr -d '\n'
                echo " = ${!name}"
            fi
        done
        python3 -m pip config list 2>/dev/null |
            sed -nE "s/^[^.]+\.(cert|find-links|index-url|extra-index-url|proxy|timeout)='(.*)'$/\1 = \2/p" |
            sed 's/\\n/ /g'
        if [ -n "${SSL_CERT_FILE:-}" ]; then echo "cert = $SSL_CERT_FILE"; fi
    } | awk -F ' = ' 'BEGIN { print "[global]" } !seen[$1]++'
}
pip_mounts() {
    local place
    mounts=()
    # shellcheck disable=SC2013 # words are meant: a setting may name several places
    for place in $(sed -n 's/^[a-z-]* = //p' "$work/pip.conf"); do
        case $place in
            file://*) place=$(dirname "${place#file://}") ;; # an index may keep its files beside its pages
            /*) ;;
            *) continue ;;
        esac
        if [ -e "$place" ]; then mounts+=(-v "$place:$place:ro"); fi
    done
}

stand_in() { # makes $1, unless it is there
    podman "${storage[@]}" image exists "$1" && return
    mmdebstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$work/base.tar" &&
        podman "${storage[@]}" import \
            --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$work/base.tar" "$1"
}

(umask 077 && pip_settings >"$work/pip.conf")
arguments=(--build-arg "TORCH=$torch" --build-arg "COMMIT=$commit" --secret "id=pip,src=$work/pip.conf")
if docker info >/dev/null 2>&1; then
    engine=(docker) build=(docker build)
elif podman run --rm "$pinned" true >/dev/null 2>&1; then
    engine=(podman) build=(podman build)
else
    storage=(--root "$work/storage" --runroot "$work/run" --storage-driver overlay)
    # chroot and the limits: what works where namespaces, control groups and higher limits are not to be had
    engine=(podman "${storage[@]}" --runtime runc)
    build=(buildah "${storage[@]}" build --isolation chroot --network host --layers)
    limits=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024)
    say "no engine can run the pinned base: testing the Dockerfile's instructions on a stand-in, NOT the pinned base"
    check "a stand-in for the base" stand_in localhost/stand-in:bookworm || exit 1
    pip_mounts
    arguments+=(--build-arg BASE_IMAGE=localhost/stand-in:bookworm ${mounts[@]+"${mounts[@]}"})
fi
run() { "${engine[@]}" run --rm --network host ${limits[@]+"${limits[@]}"} "$@"; }
inside() { run "$image" "$@"; }

not_root() { [ "$(inside id -u)" -ne 0 ]; }
no_compiler() { # by any of the usual names, with or without a target or version around it
    local found
    found=$(inside bash -c 'compgen -c; find / -xdev -type f -perm -1 -printf "%f\n" 2>/dev/null || :') || return 1
    ! grep -E '(^|-)(cc|gcc|g\+\+|c\+\+|c89|c99|clang|clang\+\+|tcc|cc1|icx|nvcc)(-?[0-9.]+)?$' <<<"$found"
}
knows_its_commit() { [ "$(inside python -c 'from mixcl.run.record import commit; print(commit())')" = "$commit" ]; }
no_litter() { inside bash -c '! ls -d /mixcl/.git /mixcl/data /results/* 2>/dev/null'; }
keeps_the_status() {
    local status=0
    inside bash -c 'exit 7' || status=$?
    [ "$status" -eq 7 ] || return 1
    status=0
    inside --profile no-such || status=$?
    [ "$status" -eq 2 ]
}
no_test_tools() { ! inside python -c 'import pytest' && ! inside bash -c 'type -p ruff || type -p mypy'; }
keeps_its_notebooks() { ! inside bash -c 'touch /mixcl/notebooks/x || echo >>/mixcl/notebooks/11_finetune.ipynb'; }
tells_no_secret() { # where pip looks, with or without a password; that it keeps no cache is none
    ! "${engine[@]}" history --no-trunc "$image" |
        grep -iE 'pip_(index|extra|find|cert|proxy|client|trusted|config)|index-url|find-links|://[^ ]*@'
}
any_user() { run --user 12345:12345 "$image" bash -c 'touch /results/x ~/x && mixcl --help >/dev/null'; }
smoke() {
    run -v "$results:/results" "$image" --profile smoke && return
    run -v "$results:/results" "$image" cat /results/smoke/workflow.log >"$work/workflow.log" || :
    return 1
}
bits_are_pinned() { # for a plain command too, not for the main job alone
    local name
    for name in $(sed -n 's/^export //p' "$root/reproduce/bits.sh" | grep -o '[A-Z_]*=' | tr -d =); do
        # shellcheck disable=SC2016 # expanded inside
        inside bash -c '[ -n "${!1}" ] && echo "$1=${!1}"' - "$name" || return 1
    done
}
left_results() {
    run -v "$results:/results" "$image" bash -c 'test -s /results/smoke/tables/table1.csv && cat /results/smoke/RUN.md' |
        grep -F "$commit"
}
lab_answers() { # on an address that is not the loopback, only to those who have the token, and with a kernel
    local token port address status=0
    token=$(tr -d - </proc/sys/kernel/random/uuid) port=$(shuf -i 20000-60000 -n 1)
    address=http://$(hostname -I | cut -d ' ' -f 1):$port
    run --detach --name "$results" -e "JUPYTER_TOKEN=$token" "$image" lab --port="$port"
    lab_talk "$address" "$token" || status=1
    "${engine[@]}" logs "$results"
    "${engine[@]}" stop "$results" || status=1
    return "$status"
}
answer() { curl --noproxy '*' --silent --output /dev/null --write-out '%{http_code}' "$@"; }
lab_talk() {
    local try
    for ((try = 0; try < 90; try++)); do
        if [ "$(answer "$1/lab?token=$2")" = 200 ]; then break; fi
        sleep 1
    done
    echo "lab: $(answer "$1/lab"), with token $(answer "$1/lab?token=$2")"
    [ "$(answer "$1/lab")" = 302 ] && [ "$(answer "$1/lab?token=$2")" = 200 ] &&
        [ "$(answer "$1/api/contents")" = 403 ] && [ "$(answer "$1/api/contents?token=$2")" = 200 ] &&
        [ "$(answer -X POST "$1/api/kernels?token=$2")" = 201 ]
}

tidy() {
    "${engine[@]}" rm -f "$results"
    "${engine[@]}" volume rm -f "$results"
}
trap 'tidy >/dev/null 2>&1 || :' EXIT
say "building $image for TORCH=$torch; storage and logs are in $work"
check "the image builds" "${build[@]}" "${arguments[@]}" --tag "$image" "$root" || exit 1
say "        $("${engine[@]}" image inspect --format '{{.Size}}' "$image" | awk '{ printf "%.2f GB", $1 / 1e9 }')"
check "the user is not root" not_root || :
check "no compiler is inside" no_compiler || :
check "pip check" inside pip check || :
check "it knows its commit" knows_its_commit || :
check "what decides the bits is pinned" bits_are_pinned || :
check "neither .git nor data nor results are inside" no_litter || :
check "exit statuses are kept" keeps_the_status || :
check "no test tools are inside" no_test_tools || :
check "notebooks that a run executes cannot be written" keeps_its_notebooks || :
check "its history tells no setting of pip" tells_no_secret || :
check "any other user can write results" any_user || :
check "lab: refused without the token, open with it" lab_answers || :
check "--profile smoke, verified" smoke || :
check "its results are in the volume" left_results || :
[ -z "$failed" ] || exit 1
say "all passed"
