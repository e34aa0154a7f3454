#!/usr/bin/env python3
"""Compares the registers and spills of every CUDA kernel in a build with the committed table.

usage: tools/check_cuda_resources.py BUILD_DIR TABLE NVCC_VERSION [--update]

A kernel that is not in the table, takes more registers, or spills or keeps more on its stack than the table says is a
failure: on the hot kernels that costs more than it looks. Another compiler than the table's allocates as it likes, so then
nothing is compared. --update writes the table anew, for you to look at the diff.
"""
import argparse
import pathlib
import re
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\S+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")


def demangle(names):
    out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return dict(zip(names, out.splitlines()))


def short(name):
    """Without the namespaces and parameters that say nothing: rms_norm_kernel<float, __nv_bfloat16>."""
    name = re.sub(r"\(anonymous namespace\)::|eps::cuda::|^void ", "", name)
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            return name[:i]
    return name


def read_build(folder):
    """{kernel: (registers, stack bytes, spill bytes)}; the largest of equal names."""
    found = {}
    for path in sorted(pathlib.Path(folder).rglob("*.resources")):
        if not path.with_suffix("").exists():
            continue  # of a file that is gone
        name, stack = None, None
        for line in path.read_text().splitlines():
            if match := ENTRY.search(line):
                name, stack = match.group(1), None
            elif match := STACK.search(line):
                stack = tuple(map(int, match.groups()))
            elif (match := USED.search(line)) and name and stack:
                found[name] = (int(match.group(1)), stack[0], stack[1] + stack[2])
                name = None
    names = demangle(list(found))
    out = {}
    for name, values in found.items():
        key = short(names[name])
        out[key] = tuple(map(max, values, out.get(key, (0, 0, 0))))
    return out


def read_table(path):
    out = {}
    for line in pathlib.Path(path).read_text().splitlines():
        if line and not line.startswith("#"):
            registers, stack, spills, name = line.split(maxsplit=3)
            out[name] = (int(registers), int(stack), int(spills))
    return out


def table_version(path):
    match = re.search(r"^# nvcc (\S+)$", pathlib.Path(path).read_text(), re.M)
    return match.group(1) if match else ""


def write_table(path, kernels, version):
    lines = ["# Kernels of the CUDA backend: registers a thread, bytes of stack, bytes spilled. Checked by the tests;",
             "# written by tools/check_cuda_resources.py --update.", f"# nvcc {version}"]
    lines += [f"{r:4d} {stack:4d} {spills:4d} {name}" for name, (r, stack, spills) in sorted(kernels.items())]
    pathlib.Path(path).write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("table")
    parser.add_argument("nvcc_version")
    parser.add_argument("--update", action="store_true")
    args = parser.parse_args()
    kernels = read_build(args.build)
    if not kernels:
        sys.exit(f"{args.build}: no kernels were built there (wanted *.resources files from tools/nvcc_resources.sh)")
    if args.update:
        write_table(args.table, kernels, args.nvcc_version)
        print(f"{args.table}: {len(kernels)} kernels")
        return 0
    if table_version(args.table) != args.nvcc_version:
        print(f"the table is of nvcc {table_version(args.table)}, this is {args.nvcc_version}: not compared")
        return 0
    table = read_table(args.table)
    worse = []
    for name, values in sorted(kernels.items()):
        allowed = table.get(name)
        if allowed is None:
            worse.append(f"{name}: not in the table")
        else:
            worse += [f"{name}: {got} {what}, the table has {most}"
                      for what, got, most in zip(("registers", "bytes of stack", "bytes spilled"), values, allowed)
                      if got > most]
    for line in worse:
        print(line, file=sys.stderr)
    for name in sorted(set(table) - set(kernels)):
        print(f"note: {name} is in the table, but not in the build", file=sys.stderr)
    print(f"{len(kernels)} kernels, {len(worse)} worse than {args.table}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
