#!/usr/bin/env bash
# Everything that wants a GPU, once, in under 8 minutes: the device tests, the speed table, NCCL with one process.
#
#     benchmarks/gpu.sh [OUT]          # OUT/gpu.json (default: gpu-results); SMALL=1 does it in short, on a CPU too
#
# It needs nothing but the checkout, torch and timm; images are made. What fails or takes too long is written down, and
# the rest goes on.
set -u
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" benchmarks/gpu.py "${1:-gpu-results}" ${SMALL:+--small}
