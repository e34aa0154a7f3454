#!/bin/bash
# compute-sanitizer on the GPU tests: tools/gpu_sanitize.sh [BIN_DIR]
# memcheck finds reads and writes out of bounds, racecheck races in shared memory. Kernels run many times slower under
# them, so the tests leave out their large cases: meant to take some three minutes in all.
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then sed -n '2,4s/^# //p' "$0"; exit 0; fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=${1:-$root/build/release/bin}

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
check() {  # check TOOL PROGRAM FILTER [OPTION...]
  local tool=$1 program=$2 filter=$3 begin=$SECONDS rc=0
  shift 3
  "$sanitizer" --tool "$tool" "${exclude[@]}" --error-exitcode 97 --launch-timeout 120 "$@" \
    "$bin/$program" --gtest_brief=1 --gtest_filter="$filter" >"$log" 2>&1 || rc=$?
  echo "$tool $program: $([[ $rc == 0 ]] && echo clean || echo "exit $rc") ($((SECONDS - begin)) s)"
  if [[ $rc != 0 ]]; then
    failed+=("$tool $program")
    head -n 60 "$log"
  fi
}
# Kernels that cuDNN makes are its own to check: racecheck finds fault with them and takes minutes for it.
exclude=()
options=$("$sanitizer" --help 2>&1 || true)
for flag in --kernel-name-exclude --kernel-regex-exclude; do
  if [[ $options == *"$flag"* ]]; then exclude=("$flag" kns=cudnn); break; fi
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT

for tool in memcheck racecheck; do
  check $tool cuda_ops_test '-*MemoryMovesWhole:*ToCompute*'
  check $tool cuda_linear_test '*'
  check $tool cuda_gate_test '*'
  check $tool cuda_attention_test '-*LongContext'
  check $tool cuda_local_moe_test '-*V2Lite:*ManyExperts'
done
if ((${#failed[@]})); then
  printf 'not clean: %s\n' "${failed[@]}" >&2
  exit 1
fi
