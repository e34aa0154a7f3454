#!/bin/bash
# Compiler launcher for nvcc: keeps what ptxas says of each kernel's registers and spills in OBJECT.resources, where
# tools/check_cuda_resources.py reads it. Everything else goes on to stderr.
object=
previous=
for argument; do
  [[ $previous == -o ]] && object=$argument
  previous=$argument
done
exec 3>&1
said=$("$@" 2>&1 >&3)
status=$?
if [[ -n $object ]]; then grep -E '^ptxas info|bytes stack frame' <<<"$said" >"$object.resources"; fi
grep -vE '^ptxas info|bytes stack frame|^$' <<<"$said" >&2
exit "$status"
