#!/usr/bin/env bash
# Builds the extension with address and undefined-behaviour sanitizers into build/sanitize, and runs the kernels' tests
# against it. Usage: native/sanitize.sh [python]
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${1:-.venv/bin/python}")
stage=build/sanitize/stage

cmake -S native -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=Release -DSLALOM_SANITIZE=ON \
  -DPython_EXECUTABLE="$python" -DCMAKE_MAKE_PROGRAM="$(dirname "$python")/ninja" >/dev/null
cmake --build build/sanitize -j 2
rm -rf "$stage"
mkdir -p "$stage"
cp -r src/slalom "$stage/slalom"
find "$stage" -name '_native*.so' -delete
cp build/sanitize/_native*.so "$stage/slalom/"

# Python itself leaks by design at exit, so leaks are not reported; OpenBLAS threads only slow the run down.
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 OPENBLAS_NUM_THREADS=1 \
  PYTHONPATH="$stage:." "$python" -m pytest -q -p no:cacheprovider tests/arithmetic --timeout 1200
