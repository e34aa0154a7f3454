#!/usr/bin/env python3
"""Compares the registers and spills of every CUDA kernel in a build with the committed table.

usage: tools/check_cuda_resources.py BUILD_DIR TABLE NVCC_VERSION [--update]

A kernel that is not in the table, needs more registers, or has more spills or a larger stack than in the table is a failure:
on the hot kernels that costs more than it seems. Compilers allocate registers differently, so with another version than
the table's nothing is compared. --update rewrites the table; check its diff.
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
    """The name without namespaces and parameters: norm_kernel<float, __nv_bfloat16, 2>."""
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
    folder = pathlib.Path(folder)
    # Objects of sources that were moved or deleted stay in the folder, but the build no longer names them.
    ninja = folder / "build.ninja"
    named = set(re.findall(r"^build (\S+\.o):", ninja.read_text(), re.M)) if ninja.exists() else None
    for path in sorted(folder.rglob("*.resources")):
        object_path = path.with_suffix("")
        if not object_path.exists() or (named is not None and str(object_path.relative_to(folder)) not in named):
            continue
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
    lines = ["# Kernels of the CUDA backend: registers per thread, bytes of stack, bytes spilled. Checked by the tests;",
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
