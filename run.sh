#!/bin/bash
# Installs what is missing, builds epsmoe and lets the bundled model write: two expert-parallel ranks on this CPU, their
# communication hidden under computation. Arguments go on to `epsmoe generate`, e.g. ./run.sh -p "Mr. Darcy" --ep 4
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

# Only what the user did not say himself gets a default.
defaults=()
given -m --model -- "$@" || defaults+=(-m "$root/models/austen-moe")
given -p --prompt -f --file -- "$@" ||
  defaults+=(-p "It was a truth which no one in the neighbourhood could deny, that Miss Elliot had")
# A device that was asked for may have its own idea of ranks: a GPU is one.
if ! given --device -- "$@"; then
  given --ep -- "$@" || defaults+=(--ep 2)
  given --eps-pipeline -- "$@" || defaults+=(--eps-pipeline 2)
fi

exec "$root/build/release/bin/epsmoe" generate "${defaults[@]}" "$@"
