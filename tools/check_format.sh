#!/bin/bash
# Checks the layout of all C++ and CUDA files against .clang-format; with --fix, rewrites them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mapfile -t files < <(find src include tests bench -path tests/architecture/fixture -prune -o -name '*.h' -print -o -name '*.cpp' -print \
  -o -name '*.cu' -print -o -name '*.cuh' -print | LC_ALL=C sort)
if [[ ${1:-} == --fix ]]; then
  clang-format -i "${files[@]}"
elif ! output=$(clang-format --dry-run --Werror "${files[@]}" 2>&1); then
  printf '%s\n' "$output" | grep 'error:' | cut -d: -f1 | sort | uniq -c >&2
  echo "lines to reformat in the files above; try: tools/check_format.sh --fix" >&2
  exit 1
else
  echo "clang-format: ${#files[@]} files are in shape"
fi
