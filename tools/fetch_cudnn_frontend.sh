#!/bin/bash
# Puts the cuDNN frontend's headers, which come as a PyPI wheel, into a folder: tools/fetch_cudnn_frontend.sh DIR
set -euo pipefail
dir=${1:?usage: tools/fetch_cudnn_frontend.sh DIR}
version=1.32.0
sha256=c6006556017a4d1c914c52a556c71b1267f2d6a0500f742e7b4edef539878df0
stamp="$dir/version"
if [[ -f $stamp && $(<"$stamp") == "$version" ]]; then exit 0; fi

temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
# Any of the version's wheels would do: the headers in them are the same. It is one, so that its hash can be known.
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 -d "$temp" "nvidia-cudnn-frontend==$version"
sha256sum --check --status <<<"$sha256  $(echo "$temp"/*.whl)" ||
  { echo "fetch_cudnn_frontend.sh: the wheel is not the one expected" >&2; exit 1; }
python3 - "$temp"/*.whl "$dir" <<'PYTHON'
import pathlib
import sys
import zipfile

wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    names = [n for n in archive.namelist() if n.startswith("include/") and ".." not in pathlib.PurePosixPath(n).parts]
    archive.extractall(target, names)
PYTHON
[[ -f $dir/include/cudnn_frontend.h ]] || { echo "fetch_cudnn_frontend.sh: the wheel has no cudnn_frontend.h" >&2; exit 1; }
echo "$version" >"$stamp"
