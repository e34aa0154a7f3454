#!/usr/bin/env python3
"""The expert products of one MoE layer, epsmoe's kernels beside others in one process, in turn.

    expert_gemms.py --epsmoe build/release/bin/libepsmoe_cuda.so --deepgemm DIR
    expert_gemms.py --epsmoe LIB --rows 3072,24576 --alpha 8 --draws 4 --sms 124,116
    expert_gemms.py --epsmoe LIB --hidden 2048 --inner 1408 --experts 64 --each 64,256

What is timed, for each load (rows of every expert):

    gate_up   x [rows, hidden] . w [2 * inner, hidden]^T of the row's expert
    down      [rows, inner] . w [hidden, inner]^T
    ffn       gate_up -> silu(gate) * up -> down

and by whom, as far as it is there and takes the load:

    epsmoe            the grouped kernel; gate_up with silu * up on the way, which the others leave out
    epsmoe N SMs      --sms: the same on N of the GPU's SMs
    epsmoe RxC        --tiles: the same with tiles of R rows and C columns, not those that the load chooses
    NAME              --also NAME=LIB: the same by another build of the library, to see what a change does
    deepgemm          m_grouped_bf16_gemm_nt_contiguous, every expert's rows padded to 128; padding is no work
    torch             torch._grouped_mm; ffn with silu and product as eager PyTorch runs them
    torch bmm         equal rows only: strided-batched cuBLAS products
    torch mm          one cuBLAS product an expert, in one stream; torch mm xN: in N streams

All arms of a load take turns in random order, in slices of some milliseconds without a pause between them, so that all
see the same clock: a GPU at its power limit runs what comes after a pause faster. Each result is checked against float32
first. One JSON line for each arm; limit_tflops is an 8192 x 8192 x 8192 bf16 torch.mm that takes its turn, too.

DIR is where `import deep_gemm` finds the package: a checkout of https://github.com/deepseek-ai/DeepGEMM built in place,
or the folder that it was installed to. It compiles its kernels at the first call, so nvcc must be there as well.
"""

import argparse
import ctypes
import json
import os
import random
import statistics
import sys

from torch_moe_ffn import (FFN_TOLERANCE, GEMM_TOLERANCE, HEAD_START_CYCLES, LIMIT_SIZE, Layer, Parser, check,
                           check_fits, concentration, dirichlet_rows, ends_of, fail, note, positive, positives,
                           rates, read_loads, require_grouped_mm, spread)

WHERE_FROM = "build https://github.com/deepseek-ai/DeepGEMM as its README says, then name its folder"
SLICE_US = 6000.0
LIMIT = "limit"


class Epsmoe:
    """libepsmoe_cuda.so's C interface (src/ops/cuda/grouped_gemm_c.h)."""

    class Call(ctypes.Structure):
        _fields_ = [("x", ctypes.c_void_p), ("w", ctypes.c_void_p), ("y", ctypes.c_void_p),
                    ("offsets", ctypes.c_void_p), ("rows", ctypes.c_void_p), ("workspace", ctypes.c_void_p),
                    ("n", ctypes.c_int64), ("k", ctypes.c_int64), ("num_groups", ctypes.c_int32), ("silu_mul", ctypes.c_int32),
                    ("num_sms", ctypes.c_int32), ("tile_rows", ctypes.c_int32),
                    ("tile_cols", ctypes.c_int32), ("stream", ctypes.c_void_p)]

    def __init__(self, path):
        try:
            self.library = ctypes.CDLL(os.path.abspath(path))
            self.library.epsmoe_grouped_gemm_error.restype = ctypes.c_char_p
        except (OSError, AttributeError) as error:
            fail(f"{path}: {error}; wanted libepsmoe_cuda.so, which ./run.sh builds where nvcc is")

    def bind(self, torch, x, w, y, rows, silu_mul, num_sms, tile):
        """A function that runs the product; it keeps what the call points at."""
        offsets = torch.tensor([0, *rows], device="cuda").cumsum(0).to(torch.int32)
        workspace = torch.zeros(1, device="cuda", dtype=torch.int32)
        host_rows = (ctypes.c_int64 * len(rows))(*rows)
        call = self.Call(x.data_ptr(), w.data_ptr(), y.data_ptr(), offsets.data_ptr(), ctypes.addressof(host_rows),
                         workspace.data_ptr(), w.shape[1], w.shape[2], len(rows), silu_mul, num_sms,
                         *tile, torch.cuda.current_stream().cuda_stream)

        def run(_keep=(offsets, host_rows, workspace, x, w, y)):
            if self.library.epsmoe_grouped_gemm(ctypes.byref(call)):
                raise SystemExit(self.library.epsmoe_grouped_gemm_error().decode())
            return y

        return run


class DeepGemm:

    def __init__(self, folder):
        if not os.path.isdir(os.path.join(folder, "deep_gemm")):
            fail(f"--deepgemm {folder}: no package deep_gemm in it; {WHERE_FROM}")
        sys.path.insert(0, os.path.abspath(folder))
        try:
            import deep_gemm
            self.grouped = deep_gemm.m_grouped_bf16_gemm_nt_contiguous
            self.alignment = deep_gemm.get_mk_alignment_for_contiguous_layout()
            self.version = getattr(deep_gemm, "__version__", "unknown")
        except (ImportError, AttributeError, AssertionError, OSError) as error:
            fail(f"--deepgemm {folder}: {' '.join(str(error).split())[:200]}; {WHERE_FROM}")

    def bind(self, torch, x, w, rows):
        """(run, where the unpadded rows of its result are)."""
        owners, positions, at = [], [], 0
        for expert, count in enumerate(rows):
            padding = -count % self.alignment
            owners += [torch.full((count,), expert, dtype=torch.int32), torch.full((padding,), -1, dtype=torch.int32)]
            positions.append(torch.arange(at, at + count))
            at += count + padding
        owners, positions = torch.cat(owners).cuda(), torch.cat(positions).cuda()
        padded = x.new_zeros(at, x.shape[1])
        padded[positions] = x
        out = padded.new_full((at, w.shape[1]), float("nan"))

        def run():
            self.grouped(padded, w, out, owners)
            return out

        return run, positions


class LoopInStreams:
    """One product for each expert, distributed over streams."""

    def __init__(self, torch, count):
        self.torch = torch
        self.streams = [torch.cuda.Stream() for _ in range(count)]

    def bind(self, x, w, rows):
        torch = self.torch
        out = torch.full((x.shape[0], w.shape[1]), float("nan"), device="cuda", dtype=torch.bfloat16)
        bounds, at = [], 0
        for count in rows:
            bounds.append((at, at + count))
            at += count

        def run():
            begun = torch.cuda.current_stream().record_event()
            for stream in self.streams:
                stream.wait_event(begun)
            for expert, (begin, end) in enumerate(bounds):
                if begin == end:
                    continue
                with torch.cuda.stream(self.streams[expert % len(self.streams)]):
                    torch.mm(x[begin:end], w[expert].t(), out=out[begin:end])
            for stream in self.streams:
                torch.cuda.current_stream().wait_stream(stream)
            return out

        return run


def take_turns(torch, arms, rounds, seed):
    """{name: [µs of one call, one a round]}; arms: {name: function}."""
    draw = random.Random(seed)
    calls = {}
    for name, run in arms.items():  # how many calls a slice has
        for _ in range(2):
            run()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(HEAD_START_CYCLES)
        begin.record()
        for _ in range(3):
            run()
        end.record()
        torch.cuda.synchronize()
        calls[name] = max(2, min(200, round(SLICE_US / (1e3 * begin.elapsed_time(end) / 3))))
    times = {name: [] for name in arms}
    marks = []
    torch.cuda._sleep(HEAD_START_CYCLES)
    for turn in range(rounds + 1):
        order = list(arms)
        draw.shuffle(order)
        for name in order:
            arms[name]()  # finds the caches as its own kind leaves them
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(calls[name]):
                arms[name]()
            end.record()
            if turn > 0:  # the first one brings the GPU to its working heat
                marks.append((name, begin, end))
    torch.cuda.synchronize()
    for name, begin, end in marks:
        times[name].append(1e3 * begin.elapsed_time(end) / calls[name])
    return times


def tiles(text):
    """[(rows, columns)] of "128x256,256x128"."""
    try:
        return [(int(rows), int(cols)) for rows, cols in (tile.split("x") for tile in text.split(","))]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: wanted ROWSxCOLUMNS, … such as 128x256,256x128") from None


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epsmoe", metavar="LIB", help="libepsmoe_cuda.so")
    parser.add_argument("--also", metavar="NAME=LIB", action="append", default=[],
                        help="another build with the same C interface; may be given again")
    parser.add_argument("--deepgemm", metavar="DIR", help="the folder that holds the built package deep_gemm")
    parser.add_argument("--hidden", type=positive, default=5120, help="hidden size (default: 5120, DeepSeek-V2)")
    parser.add_argument("--inner", type=positive, default=1536, help="size inside an expert (default: 1536)")
    parser.add_argument("--experts", type=positive, default=20, help="experts on this GPU (default: 20 = 160 on 8 GPUs)")
    parser.add_argument("--each", type=positives, metavar="N,N,…",
                        help="rows of EACH expert (default without --rows and --loads: 128,256,512,1024,2048,4096)")
    parser.add_argument("--rows", type=positives, metavar="N,N,…", help="rows of all experts together, Dirichlet shares")
    parser.add_argument("--alpha", type=concentration, default=8.0, help="of the shares (default: 8)")
    parser.add_argument("--draws", type=positive, default=1, help="loads for each number of --rows (default: 1)")
    parser.add_argument("--loads", metavar="FILE", help='one {"rows": [...]} a line, a number for each expert')
    parser.add_argument("--parts", default="gate_up,down,ffn", help="of gate_up, down, ffn (default: all)")
    parser.add_argument("--sms", type=positives, metavar="N,N,…", default=[], help="SMs for more arms of epsmoe")
    parser.add_argument("--tiles", type=tiles, metavar="RxC,…", default=[],
                        help="tiles for more arms of epsmoe: 128x256, 128x192, 256x128, 224x128, 160x128, 128x128")
    parser.add_argument("--streams", type=positives, metavar="N,N,…", default=[], help="streams for arms of torch mm")
    parser.add_argument("--seed", type=int, default=1, help="of shares, data and turns (default: 1)")
    parser.add_argument("-r", "--repetitions", type=positive, default=9, help="slices of each arm (default: 9)")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if not set(parts) <= {"gate_up", "down", "ffn"}:
        fail(f"--parts {options.parts}: wanted some of gate_up,down,ffn")
    if not (options.epsmoe or options.also) and (options.sms or options.tiles):
        fail("--sms and --tiles are for the arms of --epsmoe LIB, which is missing")
    named = [build.split("=", 1) for build in options.also if "=" in build]
    names = ["epsmoe", "deepgemm", *(name for name, _ in named)]
    if len(named) < len(options.also) or len(set(names)) < len(names) or any(n.startswith("torch") for n in names):
        fail(f"--also {' '.join(options.also)}: wanted NAME=LIB, each time another name and no other arm's")
    if options.hidden % 64 or options.inner % 64:
        fail("--hidden and --inner must be multiples of 64, the depth of a DeepGEMM tile")
    loads = []
    if options.loads:
        loads += read_loads(options.loads, None)
    for total in options.rows or []:
        for i in range(options.draws):
            loads.append(({"source": f"dirichlet:{options.alpha:g}", "seed": options.seed + i},
                          dirichlet_rows(total, options.experts, options.alpha, options.seed + i)))
    each = options.each or ([128, 256, 512, 1024, 2048, 4096] if not loads else [])
    loads += [({"source": "equal"}, [rows] * options.experts) for rows in each]
    experts, most = len(loads[0][1]), max(sum(rows) for _, rows in loads)
    if any(len(rows) != experts for _, rows in loads):
        fail(f"--loads: {experts} experts in its first line, {options.experts} in other loads; --experts {experts}?")
    torch = require_grouped_mm()
    builds = {"epsmoe": Epsmoe(options.epsmoe)} if options.epsmoe else {}
    builds |= {name: Epsmoe(path) for name, path in named}
    deepgemm = DeepGemm(options.deepgemm) if options.deepgemm else None
    check_fits(torch, 6 * experts * options.hidden * options.inner +
               10 * (most + 128 * experts) * (options.hidden + 2 * options.inner) + 4e9)
    torch.manual_seed(options.seed)
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    if deepgemm:
        versions["deepgemm"] = deepgemm.version
    layer = Layer(torch, options.hidden, options.inner, experts)
    square = [torch.randn(LIMIT_SIZE, LIMIT_SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    looped = [(n, LoopInStreams(torch, n)) for n in options.streams]

    def arms_of(part, rows):
        """{name: (run, relative error)} of one part."""
        ends = ends_of(torch, rows)
        num_rows, equal = sum(rows), len(set(rows)) == 1
        weight = layer.down if part == "down" else layer.gate_up
        x = torch.randn(num_rows, weight.shape[2], device="cuda", dtype=torch.bfloat16)
        if part == "down":
            x *= 0.5
        arms = {}

        def plain(at, expert):
            return x[at].float() @ weight[expert].float().t()

        def gated(at, expert):
            return layer.silu_mul(plain(at, expert))

        def ffn(at, expert):
            return layer.float_ffn(x[at], expert)

        def batched(x, weight):  # the experts' rows as one strided-batched product
            return torch.bmm(x.view(experts, rows[0], -1), weight.transpose(1, 2))

        def add(name, run, expected, tolerance, positions=None):
            out = run()
            out = out.view(-1, out.shape[-1])
            error = check(f"{name} {part}", torch, out if positions is None else out[positions], expected, rows,
                          tolerance)
            arms[name] = (run, error)

        for build, epsmoe in builds.items():
            variants = [(build, 0, (0, 0))] + [(f"{build} {n} SMs", n, (0, 0)) for n in options.sms]
            variants += [(f"{build} {tile[0]}x{tile[1]}", 0, tile) for tile in options.tiles]
            for name, sms, tile in variants:
                wide = torch.full((num_rows, options.inner), float("nan"), device="cuda", dtype=torch.bfloat16)
                out = torch.full((num_rows, options.hidden), float("nan"), device="cuda", dtype=torch.bfloat16)
                up = epsmoe.bind(torch, x, layer.gate_up, wide, rows, 1, sms, tile) if part != "down" else None
                down = epsmoe.bind(torch, x if part == "down" else wide, layer.down, out, rows, 0, sms, tile)
                if part == "gate_up":
                    add(name, up, gated, GEMM_TOLERANCE * 2)
                elif part == "down":
                    add(name, down, plain, GEMM_TOLERANCE)
                else:
                    add(name, lambda up=up, down=down: (up(), down())[1], ffn, FFN_TOLERANCE)

        if part == "ffn":
            add("torch", lambda: layer.ffn(x, ends), ffn, FFN_TOLERANCE)
            if equal:
                add("torch bmm", lambda: batched(layer.silu_mul(batched(x, layer.gate_up)), layer.down), ffn,
                    FFN_TOLERANCE)
            return arms
        add("torch", lambda: layer.grouped(x, weight, ends), plain, GEMM_TOLERANCE)
        if deepgemm:
            run, positions = deepgemm.bind(torch, x, weight, rows)
            add("deepgemm", run, plain, GEMM_TOLERANCE, positions)
        if equal:
            add("torch bmm", lambda: batched(x, weight), plain, GEMM_TOLERANCE)
        out_of_loop = torch.full((num_rows, weight.shape[1]), float("nan"), device="cuda", dtype=torch.bfloat16)
        add("torch mm", lambda: layer.looped(x, weight, rows, out_of_loop), plain, GEMM_TOLERANCE)
        for count, loop in looped:
            add(f"torch mm x{count}", loop.bind(x, weight, rows), plain, GEMM_TOLERANCE)
        return arms

    with torch.inference_mode():
        for origin, rows in loads:
            for part in parts:
                arms = arms_of(part, rows)
                runs = {name: run for name, (run, _) in arms.items()}
                runs[LIMIT] = lambda: torch.mm(square[0], square[1], out=square[2])
                times = take_turns(torch, runs, options.repetitions, options.seed)
                limit_tflops = 2 * LIMIT_SIZE**3 / statistics.median(times.pop(LIMIT)) * 1e-6
                flops = (6 if part == "ffn" else 4 if part == "gate_up" else 2) * sum(rows)
                flops *= options.hidden * options.inner
                line = []
                for name, samples in times.items():
                    summary = spread(samples)
                    record = {
                        "bench": "expert_gemms", "part": part, "arm": name, "device": torch.cuda.get_device_name(),
                        **versions, "dtype": "bfloat16", "hidden": options.hidden, "inner": options.inner,
                        "experts": experts, "rows_total": sum(rows), "rows": rows, **origin, **summary,
                        **rates(flops, summary["median_us"], limit_tflops), "relative_error": arms[name][1]}
                    print(json.dumps(record), flush=True)
                    line.append(f"{name} {record['tflops']:.0f}")
                note(f"{part}, {sum(rows)} rows ({origin['source']}), TFLOP/s of {limit_tflops:.0f}: {', '.join(line)}")
                del arms, runs


if __name__ == "__main__":
    main()
