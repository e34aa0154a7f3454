#!/bin/bash
# The CPU benchmarks of docs/benchmarks.md: bench/run_cpu.sh [--quick] [FILE]
# Appends one JSON object a line, with the commit, to FILE (default: bench/results/cpu.jsonl). --quick: a small part, for
# a look within a few minutes. Run it on a machine that does nothing else.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
quick=0
if [[ ${1:-} == --quick ]]; then
  quick=1
  shift
fi
out=${1:-$root/bench/results/cpu.jsonl}
mkdir -p "$(dirname "$out")"

"$root/tools/build.sh" release epsmoe_cli
epsmoe=$root/build/release/bin/epsmoe
commit=$(git -C "$root" describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)

record() {  # runs epsmoe bench "$@" and appends what it prints
  echo "epsmoe bench $*" >&2
  "$epsmoe" bench "$@" | sed "s/^{/{\"commit\":\"$commit\",/" >>"$out"
}

layer() { record layer --preset deepseek-v2-lite --json "$@"; }

cd "$root"
if ((quick)); then
  layer --num-experts 16 --tokens 256 -r 3
  record sweep -m models/austen-moe -p 128 -n 16 -r 2 -o jsonl
  exit
fi

# One rank: the kernels alone. Few tokens are decoding, where weights come from memory; many are a prompt.
for tokens in 1 16 128 512 2048 8192; do layer --tokens "$tokens"; done
for skew in dirichlet:1 dirichlet:0.3; do layer --tokens 2048 --skew "$skew"; done
# Ranks: what the pipeline hides.
for ep in 2 4; do
  for pipeline in off 2 4 all; do layer --tokens 2048 --ep "$ep" --eps-pipeline "$pipeline"; done
done
record sweep -m models/austen-moe -p 128,512 -n 128 -o jsonl
record sweep -m models/austen-moe -p 128,512 -n 128 --ep 2 --eps-pipeline off -o jsonl
record sweep -m models/austen-moe -p 128,512 -n 128 --ep 2 -o jsonl
