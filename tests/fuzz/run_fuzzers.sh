#!/usr/bin/env bash
# Runs every fuzz target for a while, starting from its seeds; stops at the first finding.
#   run_fuzzers.sh [seconds per target, default 10] [build folder, default build/fuzz]
# What a run learns is kept in <build folder>/corpus/<target>; a finding is written to <build folder>/findings.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
seconds=${1:-10}
build=${2:-$root/build/fuzz}

if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
  echo "run_fuzzers.sh: seconds per target: got '$seconds', wanted a positive integer" >&2
  exit 2
fi

mkdir -p "$build/findings"
ran=0
for source in "$here"/fuzz_*.cpp; do
  name=$(basename "$source" .cpp)
  program=$build/tests/fuzz/$name
  if [[ ! -x $program ]]; then
    echo "run_fuzzers.sh: $program is missing; try: cmake --preset fuzz && cmake --build --preset fuzz" >&2
    exit 2
  fi
  corpus=$build/corpus/$name
  mkdir -p "$corpus"
  seeds=()
  [[ -d $here/seeds/$name ]] && seeds=("$here/seeds/$name")
  dictionary=()
  [[ -f $here/seeds/$name.dict ]] && dictionary=("-dict=$here/seeds/$name.dict")
  log=$build/findings/$name.log
  if ! "$program" "$corpus" "${seeds[@]}" "${dictionary[@]}" -max_total_time="$seconds" -timeout=10 \
      -rss_limit_mb=2048 -max_len=4096 -artifact_prefix="$build/findings/$name-" -print_final_stats=1 >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "run_fuzzers.sh: $name found a failure; its input is in $build/findings" >&2
    exit 1
  fi
  echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs, no finding"
  ran=$((ran + 1))
done
echo "$ran targets, $seconds seconds each"
