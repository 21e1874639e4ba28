#!/usr/bin/env bash
# Asks pip-audit for known weaknesses of every locked package: exit status 1 where there is one.
# Where pip-audit is not installed (pip install pip-audit) or its data cannot be reached, it says so and passes.
set -euo pipefail

here=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")")
skip() { echo "audit: skipped: $*"; exit 0; }

command -v pip-audit >/dev/null || skip "pip-audit is not installed"
python3 -c 'import sys, urllib.error as e, urllib.request as u
try:
    u.urlopen("https://api.osv.dev/", timeout=10)
except e.HTTPError:  # it answers
    sys.exit(0)
except OSError:
    sys.exit(1)' || skip "the data of pip-audit (osv.dev) cannot be reached from here"
for name in base dev torch-cuda; do
    pip-audit --vulnerability-service osv --disable-pip --require-hashes --requirement "$here/$name.txt"
done
