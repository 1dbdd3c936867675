#!/usr/bin/env bash
# Runs the tests of counting with other versions of Python and PyTorch, each in a virtual environment of its own.
#
#     bench/other_versions.sh [PYTHON=TORCH ...]     by default: python3.12=2.13.0 python3.13=2.13.0 python3=newest
#
# Outside of .ci/run, since pip may fetch several GB for each. The exit code is that of the first version that fails.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -gt 0 ] || set -- python3.12=2.13.0 python3.13=2.13.0 python3=newest
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
for pair in "$@"; do
    python=${pair%%=*} torch=${pair#*=} venv="$work/venv"
    printf '\n=== %s, PyTorch %s\n' "$python" "$torch"
    rm -rf "$venv"
    "$python" -m venv "$venv" &&
        "$venv/bin/pip" install --quiet "torch${torch:+$([ "$torch" = newest ] || echo "==$torch")}" &&
        "$venv/bin/pip" install --quiet onnxscript -e ".[test,counters,onnx]" &&
        "$venv/bin/python" -c 'import sys, torch; print("Python", sys.version.split()[0], "PyTorch", torch.__version__)' &&
        NUMBA_CACHE_DIR="$work/numba" "$venv/bin/python" -m pytest -q -p no:cacheprovider tests/macs
    status=$?
    [ "$failed" -ne 0 ] || failed=$status
done
exit "$failed"
