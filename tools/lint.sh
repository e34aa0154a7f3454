#!/bin/bash
# clang-tidy, two files at a time: tools/lint.sh [FILE...] (default: all of src/; the tests are left to the compilers).
# A file whose text, headers and rules have not changed since it was last clean is skipped (stamps in build/lint/stamps/).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
preset=lint
database=build/$preset/compile_commands.json
stamps=build/$preset/stamps
mkdir -p "$stamps"
cmake --preset $preset >build/$preset.log || { echo "lint.sh: cannot configure (build/$preset.log)" >&2; exit 2; }

# Any header may matter to any file, so one changed header re-checks them all: simple, and never wrongly clean.
common=$( (clang-tidy --version; cat .clang-tidy; find src include -name '*.h' | LC_ALL=C sort | xargs cat) | cksum)

if (($#)); then
  files=("$@")
else
  mapfile -t files < <(sed -n "s|^ *\"file\": \"$root/\(.*\)\",\{0,1\}$|\1|p" "$database" | grep '^src/.*\.cpp$' | LC_ALL=C sort -u)
fi

todo=()
for file in "${files[@]}"; do
  stamp=$stamps/${file//\//_}.stamp
  [[ -f $stamp && $(<"$stamp") == "$common $(cksum <"$file")" ]] || todo+=("$file")
done
echo "clang-tidy: ${#todo[@]} of ${#files[@]} files to check"
((${#todo[@]})) || exit 0

export common stamps preset
check_one() {
  local output
  # The compile commands are g++'s: clang does not know all of their warning flags, and one has false alarms there.
  if output=$(clang-tidy -p "build/$preset" --quiet --extra-arg=-Wno-unknown-warning-option \
    --extra-arg=-Wno-zero-as-null-pointer-constant "$1" 2>&1); then
    echo "$common $(cksum <"$1")" >"$stamps/${1//\//_}.stamp"
  else
    printf '%s\n' "$output" | grep -vE '^[0-9]+ warnings? (and [0-9]+ errors? )?(generated|treated)' >&2
    return 1
  fi
}
export -f check_one
printf '%s\0' "${todo[@]}" | xargs -0 -n 1 -P 2 bash -c 'check_one "$1"' _ ||
  { echo "clang-tidy: findings above" >&2; exit 1; }
