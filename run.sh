#!/bin/bash
# Installs missing packages, builds epsmoe and generates text with the bundled model, on two expert-parallel ranks of this
# CPU that overlap communication with computation. Arguments are passed on: ./run.sh -p "Mr. Darcy" --ep 4
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# The CUDA backend takes minutes to build: only where there is a GPU to run it.
if [[ -e /dev/nvidia0 ]] && { command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; }; then
  "$root/tools/setup.sh" cuda
  "$root/tools/build.sh" release epsmoe_cli cuda_backend
else
  "$root/tools/setup.sh" run
  "$root/tools/build.sh" release epsmoe_cli
fi

given() {  # whether one of the flags named before -- is among the arguments after it
  local flags=() flag
  while [[ $1 != -- ]]; do flags+=("$1"); shift; done
  shift
  for argument; do
    for flag in "${flags[@]}"; do
      case $flag in
        --*) [[ $argument == "$flag" || $argument == "$flag="* ]] && return 0 ;;
        *) [[ $argument == "$flag"* ]] && return 0 ;;  # -mDIR is -m DIR
      esac
    done
  done
  return 1
}

# Defaults apply only to flags that were not given.
defaults=()
given -m --model -- "$@" || defaults+=(-m "$root/models/austen-moe")
given -p --prompt -f --file -- "$@" ||
  defaults+=(-p "It was a truth which no one in the neighbourhood could deny, that Miss Elliot had")
# Not with --device: one GPU is one rank.
if ! given --device -- "$@"; then
  given --ep -- "$@" || defaults+=(--ep 2)
  given --eps-pipeline -- "$@" || defaults+=(--eps-pipeline 2)
fi

exec "$root/build/release/bin/epsmoe" generate "${defaults[@]}" "$@"
