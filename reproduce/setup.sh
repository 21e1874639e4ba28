#!/usr/bin/env bash
# The environment of every script here: `source reproduce/setup.sh`, or run it once by itself.
#
# It uses the environment that is active: a virtual environment, a conda environment other than base, or the
# container's own (the image sets MIXCL_CONTAINER=1, and nothing is installed there).  When none is, it makes .venv in
# the repository's root.  What goes in is the lock in reproduce/lock, and mixcl itself, editable.  A second call with
# nothing changed installs nothing and needs no network.  Afterwards `python` and `mixcl` are the environment's own.
#
# torch comes as its CUDA build where nvidia-smi answers; elsewhere as its CPU build if pip finds that one (in a folder
# or an index you have told pip of), else as the CUDA build, which runs on a CPU as well.  A torch that is already in an
# active environment and that pyproject.toml admits is kept.
set -euo pipefail

mixcl_root=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")/..")
mixcl_lock=$mixcl_root/reproduce/lock
mixcl_force=() # what pip is told besides, when the last install was cut off

mixcl_say() { printf 'setup: %s\n' "$*" >&2; }
mixcl_die() { mixcl_say "$*"; exit 2; }

mixcl_supported() { # is $1 an interpreter that pyproject.toml admits?
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}

mixcl_find_python() {
    local name path
    for name in python3.11 python3 python3.12 python3.13; do
        while IFS= read -r path; do
            if mixcl_supported "$path"; then printf '%s\n' "$path"; return; fi
        done < <(type -ap "$name")
    done
    mixcl_die "no Python 3.11, 3.12 or 3.13 found; install one (Debian: apt-get install python3 python3-venv)"
}

mixcl_make_venv() { # makes $1 unless its interpreter and pip work and no install was cut off in it
    local base
    if mixcl_supported "$1/bin/python" && "$1/bin/python" -I -m pip --version >/dev/null 2>&1 &&
        [ ! -e "$1/.mixcl-installing" ]; then
        return
    fi
    [ ! -e "$1" ] || mixcl_say "$1 is incomplete: making it anew"
    base=$(mixcl_find_python) || exit 2
    "$base" -I -c 'import ensurepip, venv' 2>/dev/null ||
        mixcl_die "$base has no module venv or ensurepip; install it (Debian: apt-get install python3-venv)"
    mixcl_say "making $1 with $("$base" --version)"
    "$base" -I -m venv --clear "$1" >&2 || mixcl_die "$1 could not be made; is $mixcl_root writable?"
}

mixcl_pip() { PIP_USER=0 "$mixcl_python" -I -m pip -qq --disable-pip-version-check --no-input "$@"; }

mixcl_locked_install() { # installs the file $1 of the lock, and nothing that is not in the lock, not even to build with
    mixcl_pip install --require-hashes --no-deps --no-build-isolation --use-pep517 \
        ${mixcl_force[@]+"${mixcl_force[@]}"} -r "$mixcl_lock/$1"
}

mixcl_keeps_torch() { # is there a torch that works and is the lock's or, in an environment of the user's, admitted?
    local have
    have=$("$mixcl_python" -I -c 'import torch, importlib.metadata as m; print(m.version("torch"))' 2>/dev/null) || return 1
    if ! grep -qsF "torch==$have \\" "$mixcl_lock"/torch-*.txt; then
        [ "$mixcl_own" = no ] || return 1
        "$mixcl_python" -I - "$have" "$mixcl_root/pyproject.toml" <<'PYTHON' || return 1
import sys, tomllib
from packaging.requirements import Requirement
with open(sys.argv[2], "rb") as file:
    wanted = map(Requirement, tomllib.load(file)["project"]["dependencies"])
sys.exit(not any(w.name == "torch" and w.specifier.contains(sys.argv[1], prereleases=True) for w in wanted))
PYTHON
    fi
    mixcl_say "keeping torch $have, which is there already"
}

mixcl_install_torch() {
    if mixcl_keeps_torch; then return; fi
    if ! nvidia-smi >/dev/null 2>&1; then
        mixcl_say "no NVIDIA driver answers: installing torch's CPU build, if pip finds the one of the lock"
        if mixcl_locked_install "torch-cpu.txt" 2>/dev/null; then return; fi
    fi
    mixcl_say "installing torch's CUDA build (several GB)"
    mixcl_locked_install "torch-cuda.txt"
}

mixcl_fingerprint() { # of what the installed environment follows from
    {
        cat -- "$mixcl_root/pyproject.toml" "$mixcl_lock"/*.txt
        "$mixcl_python" -I -c 'import sys; print(sys.version, sys.prefix, sys.argv[1])' "$mixcl_root"
    } | sha256sum | cut -d ' ' -f 1
}

mixcl_install() { # installs into $mixcl_env unless its stamp tells that this very state is there
    local stamp="$mixcl_env/.mixcl-stamp" busy="$mixcl_env/.mixcl-installing" fingerprint
    fingerprint=$(mixcl_fingerprint)
    if [ "$(cat -- "$stamp" 2>/dev/null)" = "$fingerprint" ]; then return; fi
    [ "$(uname -sm)" = "Linux x86_64" ] ||
        mixcl_die "the lock is for Linux on x86-64, not $(uname -sm); without the lock: pip install -e '.[workflow,tensorboard,dev]'"
    "$mixcl_python" -I -m pip --version >/dev/null 2>&1 || mixcl_die "$mixcl_env has no pip; add it to the environment"
    [ -w "$mixcl_env" ] || mixcl_die "$mixcl_env cannot be written; make an environment of your own, or leave this one"
    if [ -e "$busy" ]; then # what pip believes to be there may be there in part
        mixcl_say "the last install was cut off: installing everything again"
        mixcl_force=(--force-reinstall)
    fi
    rm -f -- "$stamp"
    : >"$busy"
    mixcl_say "installing the packages of the lock (some minutes the first time)"
    mixcl_locked_install build.txt || mixcl_give_up "$busy"
    mixcl_locked_install base.txt || mixcl_give_up "$busy"
    mixcl_locked_install dev.txt || mixcl_give_up "$busy"
    mixcl_install_torch || mixcl_give_up "$busy"
    mixcl_pip install --no-deps --no-build-isolation -e "$mixcl_root" || mixcl_give_up "$busy"
    "$mixcl_python" -I -m pip check --disable-pip-version-check >&2 || mixcl_complain "$busy"
    rm -f -- "$busy"
    printf '%s\n' "$fingerprint" >"$stamp"
    mixcl_say "ready"
}

mixcl_give_up() { # pip ended by itself, so nothing is there in part
    rm -f -- "$1"
    mixcl_die "the install failed (see above); mend that and run the same command again"
}

mixcl_complain() { # in an environment that others fill, their packages may disagree with each other
    [ "$mixcl_own" = no ] || mixcl_give_up "$1"
    mixcl_say "warning: some packages of this environment do not fit together (see above)"
}

mixcl_alone() { # runs "$2 ..." while no other set-up works on the folder $1
    local folder=$1
    shift
    (
        flock --nonblock 9 || { mixcl_say "another set-up is at work here: waiting for it"; flock 9; }
        "$@" # its children hold the lock too: an orphaned pip still counts as at work
    ) 9<"$folder"
}

mixcl_set_up_own() {
    mixcl_make_venv "$mixcl_env"
    mixcl_install
}

mixcl_choose() { # sets mixcl_env, mixcl_python and mixcl_own
    mixcl_own=no
    if [ -n "${VIRTUAL_ENV:-}" ] && [ "$VIRTUAL_ENV" != "$mixcl_root/.venv" ]; then
        mixcl_env=$VIRTUAL_ENV
        mixcl_say "using the active virtual environment, $mixcl_env"
    elif [ -z "${VIRTUAL_ENV:-}" ] && [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; then
        mixcl_env=$CONDA_PREFIX
        mixcl_say "using the active conda environment, $mixcl_env"
    else
        mixcl_own=yes
        mixcl_env=$mixcl_root/.venv
        mixcl_say "using $mixcl_env"
    fi
    mixcl_python=$mixcl_env/bin/python
}

mixcl_use_container() {
    local python
    python=$(type -p python) || mixcl_die "this container has no python"
    (cd / && "$python" -c 'import mixcl, torch' 2>/dev/null) || mixcl_die "mixcl is not installed in this container"
    mixcl_say "using the container's own environment"
}

mixcl_forget() { # what would change how the shell, Python, git, pip or accelerate work here, from the user's own shell
    local name
    while read -r _ _ name; do unset -f "$name"; done < <(declare -Fx)
    set +o noclobber +o noglob
    export -n SHELLOPTS BASHOPTS
    unset BASH_ENV ENV CDPATH GLOBIGNORE GREP_OPTIONS POSIXLY_CORRECT PIP_TARGET PIP_PREFIX PIP_ROOT
    unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_OBJECT_DIRECTORY # of a hook around this
    for name in "${!PYTHON@}" "${!ACCELERATE_@}" "${!OMPI_@}" "${!PMI_@}" "${!MV2_@}"; do
        case $name in PYTHONDONTWRITEBYTECODE | PYTHONPYCACHEPREFIX) ;; *) unset "$name" ;; esac
    done
    unset RANK LOCAL_RANK GROUP_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT # of a torchrun around this
    export LC_ALL=C PYTHONUTF8=1 PYTHONNOUSERSITE=1 PYTHONPATH="$mixcl_root"
}

mixcl_set_up() {
    mixcl_forget
    if [ "${MIXCL_CONTAINER:-}" = 1 ]; then
        mixcl_use_container
        return
    fi
    mixcl_choose
    if [ "$mixcl_own" = yes ]; then
        mixcl_alone "$mixcl_root" mixcl_set_up_own
        if [ "${VIRTUAL_ENV:-}" != "$mixcl_env" ]; then
            MIXCL_ACTIVATE="source $(printf %q "$mixcl_env")/bin/activate"
            export MIXCL_ACTIVATE
            mixcl_say "to have mixcl and jupyter in your own shell: $MIXCL_ACTIVATE"
        fi
        export VIRTUAL_ENV="$mixcl_env"
    else
        [ -x "$mixcl_python" ] || mixcl_die "$mixcl_env has no bin/python; leave that environment or make it anew"
        mixcl_supported "$mixcl_python" ||
            mixcl_die "$mixcl_env has $("$mixcl_python" --version 2>&1), but mixcl needs Python 3.11, 3.12 or 3.13"
        mixcl_alone "$mixcl_env" mixcl_install
    fi
    export PATH="$mixcl_env/bin:$PATH"
    hash -r
}

mixcl_set_up
