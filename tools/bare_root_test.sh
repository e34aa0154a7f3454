#!/bin/bash
# Proves that a clone works on a Debian 12 that has nothing: runs ./run.sh (twice) and ./test.sh in a chroot there.
# Usage (as root): tools/bare_root_test.sh FOLDER [BASE]
#   FOLDER  becomes the root file system; it must not exist yet, and is left for inspection
#   BASE    a minbase root to copy (only read); without it, debootstrap makes one
# The chroot uses this machine's package sources and name servers. Tests what git knows: HEAD plus uncommitted changes.
set -euo pipefail
source_tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${1:?usage: tools/bare_root_test.sh FOLDER [BASE]}
base=${2:-}
[[ $(id -u) == 0 ]] || { echo "bare_root_test.sh: needs root, for chroot" >&2; exit 2; }
[[ ! -e $target ]] || { echo "bare_root_test.sh: $target exists; try another folder, or remove it" >&2; exit 2; }

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

begin=$EPOCHREALTIME
if [[ -n $base ]]; then
  cp -a "$base" "$target"
else
  # The mirror of this machine's own sources; debootstrap's default if there is none.
  mirror=$(grep -rhoE '^(deb|URIs:).*' /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null |
    grep -oE 'https?://[^ ]*/debian/?( |$)' | head -n 1) || true
  debootstrap --variant=minbase bookworm "$target" $mirror >/dev/null
  chroot "$target" apt-get clean
fi
target=$(cd "$target" && pwd)
echo "bare root ready after $(seconds_since "$begin") s, $(chroot "$target" dpkg-query -f . -W | wc -c) packages"

# What this machine needs to reach its mirror, the root needs, too (without credentials: sources and keys only).
if [[ ! -s $target/etc/apt/sources.list ]]; then
  cp -a /etc/apt/sources.list "$target/etc/apt/" 2>/dev/null || true
  cp -a /etc/apt/sources.list.d "$target/etc/apt/" 2>/dev/null || true
  cp -a /etc/apt/keyrings "$target/etc/apt/" 2>/dev/null || true
fi
cp /etc/resolv.conf "$target/etc/resolv.conf"

mounted=()
cleanup() {
  for ((i = ${#mounted[@]} - 1; i >= 0; --i)); do umount "${mounted[i]}" || true; done
}
trap cleanup EXIT
for folder in proc dev; do
  mount --bind "/$folder" "$target/$folder"
  mounted+=("$target/$folder")
done

# The files that git would put into a clone, as they are now.
mkdir -p "$target/opt/epsmoe"
git -C "$source_tree" ls-files -z --cached --others --exclude-standard |
  (cd "$source_tree" && xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' _) |
  tar -C "$source_tree" --null -T - -cf - | tar -C "$target/opt/epsmoe" --no-same-owner -xf -

in_root() { chroot "$target" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8 "$@" </dev/null; }

failed=0
names=() results=() times=()
measure() {
  local name=$1 start=$EPOCHREALTIME result=ok
  shift
  printf '\n--- %s\n' "$name"
  in_root "$@" || { result=FAILED; failed=1; }
  names+=("$name") results+=("$result") times+=("$(seconds_since "$start")")
}
measure "run.sh, first time" /opt/epsmoe/run.sh
measure "run.sh, again" /opt/epsmoe/run.sh
measure "test.sh" /opt/epsmoe/test.sh

printf '\n%-20s %-8s %s\n' step result seconds
for i in "${!names[@]}"; do printf '%-20s %-8s %8s\n' "${names[i]}" "${results[i]}" "${times[i]}"; done
exit "$failed"
