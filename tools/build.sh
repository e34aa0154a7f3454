#!/bin/bash
# Configures (only when needed) and builds a CMake preset quietly: tools/build.sh [--tests] PRESET [TARGET...]
# One progress line on stderr, everything else in build/PRESET.log, whose telling part is shown when something fails.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

tests=
if [[ ${1:-} == --tests ]]; then tests=ON; shift; fi
preset=${1:?usage: tools/build.sh [--tests] PRESET [TARGET...]}
shift
dir=build/$preset
log=build/$preset.log
cache=$dir/CMakeCache.txt
begin=$SECONDS

show_progress() {  # copies the tools' output to the log; on a terminal, shows ninja's [n/m] on one line
  local line
  while IFS= read -r line; do
    printf '%s\n' "$line"
    if [[ -t 2 && $line == \[*/*\]* ]]; then printf '\r\033[K%s: building %s]' "$preset" "${line%%]*}" >&2; fi
  done >>"$log"
  if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
}

give_up() {
  grep -m 1 -A 40 -E '^FAILED|error:|CMake Error' "$log" | cut -c 1-400 >&2 || tail -n 40 "$log" >&2
  echo "build of $preset failed (whole log: $root/$log)" >&2
  exit 1
}

# Why a configuration is needed: there is none, the presets changed, the tests are wanted but left out so far, what the
# CUDA backend needs has come since, or the build folder came along with a checkout that was copied or moved and still points at the old place.
configure=()
if [[ ! -f $dir/build.ninja || CMakePresets.json -nt $dir/build.ninja ]]; then configure=(--preset "$preset"); fi
if [[ -n $tests ]] && ! grep -qsxF 'EPSMOE_BUILD_TESTS:BOOL=ON' "$cache"; then configure=(--preset "$preset"); fi
if [[ -f $cache && .cache/cudnn-frontend/version -nt $cache ]]; then configure=(--preset "$preset"); fi
if [[ -f $cache ]] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$cache"; then
  configure=(--fresh --preset "$preset")
fi

mkdir -p build
: >"$log"
if ((${#configure[@]})); then
  # Without --tests a first configuration leaves them out: they need packages that only `tools/setup.sh test` installs.
  if [[ -n $tests ]]; then
    configure+=(-DEPSMOE_BUILD_TESTS=ON)
  elif [[ ! -f $cache || ${configure[0]} == --fresh ]]; then
    configure+=(-DEPSMOE_BUILD_TESTS=OFF)
  fi
  if [[ -t 2 ]]; then printf '%s: configuring' "$preset" >&2; fi
  cmake "${configure[@]}" 2>&1 | show_progress || give_up
fi

targets=()
if (($#)); then targets=(--target "$@"); fi
cmake --build "$dir" "${targets[@]}" 2>&1 | show_progress || give_up
if grep '^\[[0-9]*/[0-9]*\] ' "$log" | grep -qv 'Re-checking globbed'; then echo "$preset: built in $((SECONDS - begin)) s (log: $log)" >&2; fi
