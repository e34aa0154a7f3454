#!/bin/bash
# compute-sanitizer on the GPU tests: tools/gpu_sanitize.sh [BIN_DIR [TEST…]], TEST as in cuda_TEST_test; default: all
# memcheck finds reads and writes out of bounds, racecheck races in shared memory. Kernels run many times slower under
# them, so the tests leave out their large cases: some three minutes in all.
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then sed -n '2,4s/^# //p' "$0"; exit 0; fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=${1:-$root/build/release/bin}
if (($#)); then shift; fi
wanted=("$@")

sanitizer=$(command -v compute-sanitizer || true)
for place in /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer; do
  if [[ -z $sanitizer && -x $place/compute-sanitizer ]]; then sanitizer=$place/compute-sanitizer; fi
done
if [[ -z $sanitizer ]]; then
  echo "compute-sanitizer: not found on the PATH nor in /usr/local/cuda; it is part of the CUDA toolkit" >&2
  exit 2
fi
if [[ ! -x $bin/cuda_ops_test ]]; then
  echo "$bin/cuda_ops_test: no such program; build the tests first, or name the folder they are in" >&2
  exit 2
fi

export EPSMOE_REQUIRE_GPU=1   # a skipped test would look like a clean one
export EPSMOE_TEST_BRIEF=1    # the smaller cases of each table
failed=()
check() {  # check TOOL TEST FILTER
  local tool=$1 program=cuda_${2}_test filter=$3 begin=$SECONDS rc=0
  if ((${#wanted[@]})) && [[ " ${wanted[*]} " != *" $2 "* ]]; then return; fi
  "$sanitizer" --tool "$tool" "${exclude[@]}" --error-exitcode 97 --launch-timeout 120 \
    "$bin/$program" --gtest_brief=1 --gtest_filter="$filter" >"$log" 2>&1 || rc=$?
  local verdict=clean
  if [[ $rc == 97 ]] && grep -q '^=* Error: ' "$log" && ! grep '^=* \(Error\|Warning\|Internal\)' "$log" | grep -qv ' at nvjet_'; then
    rc=0 verdict="clean but for $(grep -c '^=* Error: ' "$log") reports on kernels of cuBLAS"
  fi
  echo "$tool $program: $([[ $rc == 0 ]] && echo "$verdict" || echo "exit $rc") ($((SECONDS - begin)) s)"
  if [[ $rc != 0 ]]; then
    failed+=("$tool $program")
    head -n 60 "$log"
  fi
}
# Kernels of cuDNN and cuBLAS are theirs to check: racecheck finds fault with them. cuDNN's take minutes and are left out;
# without cuBLAS's (nvjet…) the tool itself fails, so what it says of them is not counted.
exclude=()
options=$("$sanitizer" --help 2>&1 || true)
if [[ $options == *--kernel-name-exclude* ]]; then exclude=(--kernel-name-exclude kns=cudnn); fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT

for tool in memcheck racecheck; do
  check $tool ops '*'
  check $tool grouped_gemm '*'
  check $tool local_moe '-*V2Lite:*ManyExperts'
  check $tool peer_layer '*TwoRanks:*ARankWithoutTokens'
done
if ((${#failed[@]})); then
  printf 'not clean: %s\n' "${failed[@]}" >&2
  exit 1
fi
