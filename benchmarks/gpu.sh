#!/usr/bin/env bash
# The conformance suite and the benchmark's tables on an NVIDIA GPU, in 25 minutes at most once .venv stands:
#
#   THRESHER_DATA=folder benchmarks/gpu.sh [folder for figures]
#
# The environment is .venv, which `make` sets up where there is none. THRESHER_DEVICE=cpu runs every step on the CPU,
# with a tiny model and a few of the tests: that is for the script itself, and says nothing about speed.
set -euo pipefail

stop() {
    echo "$1" >&2
    exit 2
}

cd "$(dirname "$0")/.."
device=${THRESHER_DEVICE:-cuda}
python=.venv/bin/python
[[ $device == cpu || $device == cuda* ]] || stop "THRESHER_DEVICE is '$device'; choose cuda or cpu."
if [[ $device != cpu ]] && ! nvidia-smi >/dev/null 2>&1; then
    stop "There is no NVIDIA GPU here: nvidia-smi finds none."
fi
[[ -f ${THRESHER_DATA:-}/imdb/test.jsonl.gz ]] || stop "Name the folder that holds imdb/test.jsonl.gz in THRESHER_DATA."
work=${1:-runs/gpu-$(date +%Y%m%d-%H%M%S)}
mkdir -p "$work"
echo "Figures: $work"
[[ -x $python && -f .venv/dev.stamp ]] || make venv
if [[ $device != cpu ]] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    stop "PyTorch finds no CUDA device: install a build of it for CUDA in .venv, or mend the driver."
fi

tests=(tests/test_conformance.py tests/test_routes.py)
few=(-n 4) tiny=()
if [[ $device == cpu ]]; then
    few=(-n 2 -k "routes or (bert and threshold and not modernbert and not camembert and not roberta)")
    tiny=(--tiny)
else
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >"$work/gpu.csv"
fi
export THRESHER_DEVICE=$device HF_HUB_OFFLINE=1

# A failed test is told at the end: figures are wanted anyway.
failed=0
timeout 540 "$python" -m pytest -q "${few[@]}" "${tests[@]}" 2>&1 | tee "$work/tests.txt" || failed=1
timeout 840 "$python" benchmarks/gpu.py --work "$work" --device "$device" "${tiny[@]}" 2>&1 | tee "$work/log.txt"
((!failed)) || echo "Some tests failed: $work/tests.txt"
echo "Figures: $work/figures.md"
exit "$failed"
