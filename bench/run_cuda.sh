#!/bin/bash
# The GPU benchmarks of docs/benchmarks.md: bench/run_cuda.sh [--quick] [--peers] [--deepgemm DIR] [FILE]
# Appends one JSON object a line, with the commit, to FILE (default: bench/results/cuda.jsonl). --peers: PyTorch and
# transformers (python3 must have them) at the same work, in turn with ours; --deepgemm: that, too. --quick: a part, for a
# look. EPSMOE_BIN names a folder with a built epsmoe and libepsmoe_cuda.so. Run it on a GPU that does nothing else.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
quick=0 peers=0 deepgemm=
while (($#)); do
  case $1 in
    --quick) quick=1; shift ;;
    --peers) peers=1; shift ;;
    --deepgemm) deepgemm=${2:?--deepgemm wants a folder}; shift 2 ;;
    -h | --help) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
    -*) echo "run_cuda.sh: no such option '$1'; wanted --quick, --peers, --deepgemm DIR" >&2; exit 2 ;;
    *) break ;;
  esac
done
out=${1:-$root/bench/results/cuda.jsonl}
mkdir -p "$(dirname "$out")"
cd "$root"
bin=${EPSMOE_BIN:-}
if [[ -z $bin ]]; then
  tools/setup.sh cuda
  tools/build.sh release epsmoe_cli cuda_backend
  bin=$root/build/release/bin
fi
"$bin/epsmoe" doctor | grep -q '^on   cuda' || { "$bin/epsmoe" doctor | grep cuda >&2; exit 2; }
commit=${EPSMOE_COMMIT:-$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)}
if [[ -n $deepgemm ]]; then peers=1; fi
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

record() {  # runs epsmoe "$@" and appends the JSON that it prints
  echo "epsmoe $*" >&2
  "$bin/epsmoe" "$@" | tee "$temp/last.jsonl" | sed "s/^{/{\"commit\":\"$commit\",/" >>"$out"
}
peer() {  # the same for a program of bench/peers
  echo "bench/peers/$*" >&2
  python3 "bench/peers/$@" | sed "s/^{/{\"commit\":\"$commit\",/" >>"$out"
}

# What the kernel choice goes by; the bundled profile of this card, if there is one, is not asked.
echo "epsmoe tune --device cuda" >&2
"$bin/epsmoe" tune --device cuda $( ((quick)) && echo --quick) -o "$temp/cuda.json" >"$temp/tune.txt"
profile=(--profile "$temp/cuda.json")

# The experts' products of DeepSeek-V2 (20 experts a GPU), kernels of all in turn in one process.
if ((peers)); then
  arms=(expert_gemms.py --epsmoe "$bin/libepsmoe_cuda.so")
  each=64,128,192,256,320,512,1024,2048,4096 rows=3072,6144,12288,24576,49152,98304 draws=3
  if ((quick)); then each=128,1024 rows=6144,49152 draws=1; fi
  peer "${arms[@]}" ${deepgemm:+--deepgemm "$deepgemm"} --each $each --parts gate_up,down --streams 2
  peer "${arms[@]}" --rows $rows --draws $draws --parts ffn --sms 124,116
  peer "${arms[@]}" --each $each --parts ffn
fi

v2=(bench gemm --device cuda --preset deepseek-v2 --num-experts 20 "${profile[@]}" --json)
tokens=(512 1024 2048 4096 8192 16384)  # six rows a token: 3k to 98k rows
((quick)) && tokens=(1024 8192)
for t in "${tokens[@]}"; do record "${v2[@]}" --skew dirichlet:8 --tokens "$t" --loads 2 -r 7; done
# Regret over many loads, skewed and very skewed.
if ((!quick)); then
  for skew in dirichlet:8 dirichlet:1; do
    for t in 256 2048; do record "${v2[@]}" --skew "$skew" --tokens "$t" --loads 60 -r 3; done
  done
fi
for t in 1024 8192; do record bench layer --device cuda --preset deepseek-v2-lite --tokens "$t" "${profile[@]}" --json; done
lite=(bench latency -m deepseek-v2-lite --load-format dummy --device cuda --max-num-batched-tokens 16384 --max-model-len 4096
  "${profile[@]}" --json)
record "${lite[@]}" --batch-size 8 --input-len 2048 --output-len 0 --num-iters-warmup 2 --num-iters 7
record "${lite[@]}" --batch-size 1 --input-len 1024 --output-len 64 --num-iters-warmup 1 --num-iters 3
((quick)) || record "${lite[@]}" --batch-size 32 --input-len 1024 --output-len 64 --num-iters-warmup 1 --num-iters 3
if ((peers && !quick)); then peer transformers_latency.py --cuda-graph; fi
cat "$temp/tune.txt" >&2
cp "$temp/cuda.json" "${out%.jsonl}-profile.json"
echo "written to $out; the profile to ${out%.jsonl}-profile.json" >&2
