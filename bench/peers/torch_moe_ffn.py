#!/usr/bin/env python3
"""The experts' FFN of one MoE layer in PyTorch: a peer to compare epsmoe's CUDA backend with.

Rows lie sorted by expert, as after a dispatch; there is no gate, gather or combine. Each load (rows per expert) gives
one JSON line for each of:

    ffn                  gate_up -> silu(gate) * up -> down; both projections through torch._grouped_mm, in bf16
    gemms                the two grouped products back to back, without what is between them
    silu_mul             what is between them, as eager PyTorch runs it (two kernels)
    grouped_mm gate_up   --gemm: one projection alone
    grouped_mm down
    mm_loop gate_up      --gemm: the same products as one torch.mm (cuBLAS) an expert
    mm_loop down

Times are CUDA-event times of single runs in a queue the host is ahead of, so launch costs show only where the GPU waits
for them. Inputs are random: x ~ N(0, 1), weights ~ 0.02 N(0, 1). Every product is checked against float32 first.
limit_tflops is an 8192 x 8192 x 8192 bf16 torch.mm on random data, measured the same way in the same run.

    torch_moe_ffn.py --rows 3072,24576 --equal
    torch_moe_ffn.py --rows 24576 --alpha 8 --seed 3 --gemm
    torch_moe_ffn.py --hidden 2048 --inner 1408 --experts 64 --loads loads.jsonl

--loads: one {"rows": [r0, r1, ...]} a line with a number for each expert; other keys are ignored. Rows may be any
number: in this layout torch._grouped_mm asks for aligned rows of the matrices (16 bytes), not for aligned groups.
"""

import argparse
import json
import random
import statistics
import sys

# A GPU spin that lets the host queue all repetitions before the first one starts; about 10 ms at 1.98 GHz.
HEAD_START_CYCLES = 20_000_000
LIMIT_SIZE = 8192
WARM_UPS = 3
# bf16 operands, float32 accumulation, bf16 result: 2^-9 for the rounding, the rest for the order of the sum.
GEMM_TOLERANCE = 4e-3
# Of a whole FFN: the roundings of gate, up, silu, their product and the result.
FFN_TOLERANCE = 1.5e-2


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2."""

    def error(self, message):
        fail(f"{message}; see --help")


def fail(message):
    print(f"{sys.argv[0].rsplit('/', 1)[-1]}: {message}", file=sys.stderr)
    raise SystemExit(2)


def note(message):
    print(message, file=sys.stderr, flush=True)


def positive(text):
    value = int(text) if text.isdecimal() else 0
    if not 0 < value < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return value


def positives(text):
    return [positive(part) for part in text.split(",")]


def concentration(text):
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1e-3 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.001 (one expert gets most) to 1e6 (even)")
    return value


def require_cuda():
    """torch, once it is certain that it has a GPU to run on."""
    try:
        import torch
    except ImportError as error:
        fail(f"PyTorch is missing ({error}): pip install torch")
    if not torch.cuda.is_available():
        fail(f"no CUDA GPU that PyTorch {torch.__version__} can use")
    return torch


def require_grouped_mm():
    torch = require_cuda()
    if not hasattr(torch, "_grouped_mm"):
        fail(f"PyTorch {torch.__version__} has no _grouped_mm: 2.8 or newer is needed")
    if torch.cuda.get_device_capability() < (8, 0):
        fail(f"{torch.cuda.get_device_name()} is too old for bf16 grouped products")
    return torch


def event_times_us(torch, run, repetitions):
    """Times of single runs in µs, as CUDA events see them."""
    for _ in range(WARM_UPS):
        run()
    torch.cuda.synchronize()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repetitions + 1)]
    torch.cuda._sleep(HEAD_START_CYCLES)
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return [1e3 * begin.elapsed_time(end) for begin, end in zip(marks, marks[1:])]


def spread(times_us):
    """The keys that all records share; p10 and p90 are the samples nearest to those ranks."""
    ordered = sorted(times_us)
    last = len(ordered) - 1
    return {"median_us": round(statistics.median(ordered), 2), "p10_us": round(ordered[round(0.1 * last)], 2),
            "p90_us": round(ordered[round(0.9 * last)], 2), "repetitions": len(ordered)}


def rates(flops, median_us, limit_tflops):
    tflops = flops / median_us * 1e-6
    return {"tflops": round(tflops, 1), "limit_tflops": round(limit_tflops, 1),
            "percent_of_limit": round(100 * tflops / limit_tflops, 1)}


def matmul_limit(torch, repetitions=10):
    """TFLOP/s of a large square bf16 product: what the other rates are in percent of."""
    a = torch.randn(LIMIT_SIZE, LIMIT_SIZE, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(LIMIT_SIZE, LIMIT_SIZE, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(a)
    times = event_times_us(torch, lambda: torch.mm(a, b, out=out), repetitions)
    return 2 * LIMIT_SIZE**3 / statistics.median(times) * 1e-6


def dirichlet_rows(total, experts, alpha, seed):
    """`total` rows over the experts in Dirichlet(alpha) shares; largest remainders get what rounding leaves."""
    draw = random.Random(seed)
    weights = [draw.gammavariate(alpha, 1) for _ in range(experts)]
    whole = sum(weights)
    shares = [total * weight / whole if whole else total / experts for weight in weights]
    rows = [int(share) for share in shares]
    by_remainder = sorted(range(experts), key=lambda expert: rows[expert] - shares[expert])
    for expert in by_remainder[:total - sum(rows)]:
        rows[expert] += 1
    return rows


def read_loads(path, experts):
    """Rows per expert, one list a line of `path`; `experts` None: as many as the first line has."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [(number, line) for number, line in enumerate(file, 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--loads {path}: {error.strerror if isinstance(error, OSError) else error}")
    loads = []
    for number, line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            fail(f"--loads {path}, line {number}: {error}")
        rows = record.get("rows") if isinstance(record, dict) else None
        if not isinstance(rows, list) or not all(type(count) is int and count >= 0 for count in rows) or not sum(rows):
            fail(f'--loads {path}, line {number}: wanted {{"rows": [...]}}, whole numbers that are not all 0')
        experts = experts or len(rows)
        if len(rows) != experts:
            fail(f"--loads {path}, line {number}: rows of {len(rows)} experts, wanted {experts}")
        loads.append(({"source": f"{path}:{number}"}, rows))
    return loads or fail(f"--loads {path} holds no loads")


def check_fits(torch, needed_bytes):
    free = torch.cuda.mem_get_info()[0]
    if needed_bytes > free:
        fail(f"needs {needed_bytes / 1e9:.1f} GB of GPU memory, {free / 1e9:.1f} GB are free")


def ends_of(torch, rows):
    return torch.tensor(rows, device="cuda").cumsum(0).to(torch.int32)


class Layer:
    """Weights of one layer's experts and the ways to multiply with them."""

    def __init__(self, torch, hidden, inner, experts):
        self.torch = torch

        def random_weight(*shape):  # a randn of the whole tensor scaled in place: no second copy
            return torch.randn(*shape, device="cuda", dtype=torch.bfloat16).mul_(0.02)

        self.gate_up = random_weight(experts, 2 * inner, hidden)  # [experts, 2 * inner, hidden]: gate, then up
        self.down = random_weight(experts, hidden, inner)         # [experts, hidden, inner]

    def grouped(self, x, weight, ends):
        return self.torch._grouped_mm(x, weight.transpose(-2, -1), offs=ends)

    def looped(self, x, weight, rows, out):
        begin = 0
        for expert, count in enumerate(rows):
            if count:
                self.torch.mm(x[begin:begin + count], weight[expert].t(), out=out[begin:begin + count])
            begin += count
        return out

    def silu_mul(self, gate_up):
        gate, up = gate_up.chunk(2, dim=-1)
        return self.torch.nn.functional.silu(gate) * up

    def ffn(self, x, ends):
        return self.grouped(self.silu_mul(self.grouped(x, self.gate_up, ends)), self.down, ends)

    def float_ffn(self, x, expert):
        return self.silu_mul(x.float() @ self.gate_up[expert].float().t()) @ self.down[expert].float().t()


def check(name, torch, out, expected_of, rows, tolerance):
    """Compares the first, middle and last rows of each expert with `expected_of(row indices, expert)` in float32."""
    if not torch.isfinite(out).all():
        raise SystemExit(f"{name}: the result holds numbers that are not finite")
    begin, error, norm = 0, 0.0, 0.0
    for expert, count in enumerate(rows):
        if count:
            at = torch.tensor(sorted({begin, begin + count // 2, begin + count - 1}), device="cuda")
            expected = expected_of(at, expert)
            error += (out[at].float() - expected).square().sum().item()
            norm += expected.square().sum().item()
        begin += count
    relative = (error / norm)**0.5
    if not relative <= tolerance:
        raise SystemExit(f"{name}: relative error {relative:.2e} of the checked rows, {tolerance:.2e} allowed")
    return float(f"{relative:.2e}")


def arms_of(torch, layer, rows, x, with_gemm):
    """(what, run, flops or 0, bytes or 0, relative error) of everything that is timed for one load."""
    num_rows, hidden = x.shape
    inner = layer.down.shape[2]
    ends = ends_of(torch, rows)
    middle = layer.grouped(x, layer.gate_up, ends)
    gated = layer.silu_mul(middle)
    up_flops, down_flops = 4 * num_rows * hidden * inner, 2 * num_rows * hidden * inner
    up_error = check("grouped_mm gate_up", torch, middle,
                     lambda at, expert: x[at].float() @ layer.gate_up[expert].float().t(), rows, GEMM_TOLERANCE)
    down_error = check("grouped_mm down", torch, layer.grouped(gated, layer.down, ends),
                       lambda at, expert: gated[at].float() @ layer.down[expert].float().t(), rows, GEMM_TOLERANCE)
    error = check("ffn", torch, layer.ffn(x, ends), lambda at, expert: layer.float_ffn(x[at], expert), rows,
                  FFN_TOLERANCE)

    def gemms():
        layer.grouped(x, layer.gate_up, ends)
        layer.grouped(gated, layer.down, ends)

    yield "ffn", lambda: layer.ffn(x, ends), up_flops + down_flops, 0, error
    yield "gemms", gemms, up_flops + down_flops, 0, max(up_error, down_error)
    yield "silu_mul", lambda: layer.silu_mul(middle), 0, 2 * num_rows * 3 * inner, None
    if not with_gemm:
        return
    yield "grouped_mm gate_up", lambda: layer.grouped(x, layer.gate_up, ends), up_flops, 0, up_error
    yield "grouped_mm down", lambda: layer.grouped(gated, layer.down, ends), down_flops, 0, down_error
    for name, inputs, weight, flops in (
            ("gate_up", x, layer.gate_up, up_flops), ("down", gated, layer.down, down_flops)):
        out = torch.empty(num_rows, weight.shape[1], device="cuda", dtype=torch.bfloat16).fill_(float("nan"))
        error = check(f"mm_loop {name}", torch, layer.looped(inputs, weight, rows, out),
                      lambda at, expert: inputs[at].float() @ weight[expert].float().t(), rows, GEMM_TOLERANCE)
        yield f"mm_loop {name}", lambda: layer.looped(inputs, weight, rows, out), flops, 0, error


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=positive, default=5120, help="hidden size (default: 5120, DeepSeek-V2)")
    parser.add_argument("--inner", type=positive, default=1536, help="size inside an expert (default: 1536)")
    parser.add_argument("--experts", type=positive, help="experts on this GPU (default: 20 = 160 on 8 GPUs)")
    parser.add_argument("--rows", type=positives, metavar="N,N,…", help="rows of all experts together (default: 24576)")
    parser.add_argument("--equal", action="store_true", help="the same number of rows for each expert")
    parser.add_argument("--alpha", type=concentration, help="Dirichlet(ALPHA) shares instead; lower is more uneven")
    parser.add_argument("--seed", type=int, default=1, help="of the shares and the data (default: 1)")
    parser.add_argument("--loads", metavar="FILE", help="rows per expert from a JSONL file instead")
    parser.add_argument("--gemm", action="store_true", help="each projection alone too, grouped and as a loop of mm")
    parser.add_argument("-r", "--repetitions", type=positive, default=25, help="samples of each time (default: 25)")
    options = parser.parse_args()
    if options.loads and (options.rows or options.equal or options.alpha):
        fail("--loads says the rows: --rows, --equal and --alpha do not go with it")
    if options.equal and options.alpha:
        fail("--equal and --alpha are two ways to share rows out: choose one")
    if options.hidden % 8 or options.inner % 8:
        fail("--hidden and --inner must be multiples of 8: torch._grouped_mm wants rows of whole 16 bytes")
    if options.loads:
        loads = read_loads(options.loads, options.experts)
    else:
        experts = options.experts or 20
        alpha = None if options.equal else options.alpha or 8.0
        loads = []
        for total in options.rows or [24576]:
            if options.equal and total % experts:
                fail(f"--equal: {total} rows are not a multiple of {experts} experts")
            if options.equal:
                loads.append(({"source": "equal"}, [total // experts] * experts))
            else:
                loads.append(({"source": f"dirichlet:{alpha:g}", "seed": options.seed},
                              dirichlet_rows(total, experts, alpha, options.seed)))
    torch = require_grouped_mm()
    experts, most = len(loads[0][1]), max(sum(rows) for _, rows in loads)
    weight_bytes = 6 * experts * options.hidden * options.inner
    # Bytes a row: x, gate_up twice (one is timed while one is kept), gated, the result twice; 2 GB for the rest.
    check_fits(torch, weight_bytes + most * 2 * (3 * options.hidden + 7 * options.inner) + 2e9)
    torch.manual_seed(options.seed)
    limit_tflops = matmul_limit(torch)
    note(f"limit: {limit_tflops:.0f} TFLOP/s")
    l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    if weight_bytes < 4 * l2_bytes:
        note(f"note: {weight_bytes / 1e6:.0f} MB of weights partly stay in {l2_bytes / 1e6:.0f} MB of L2 between runs")
    layer = Layer(torch, options.hidden, options.inner, experts)
    with torch.inference_mode():
        for origin, rows in loads:
            x = torch.randn(sum(rows), options.hidden, device="cuda", dtype=torch.bfloat16)
            for what, run, flops, num_bytes, error in arms_of(torch, layer, rows, x, options.gemm):
                times = spread(event_times_us(torch, run, options.repetitions))
                note(f"{what}, {sum(rows)} rows: {times['median_us']:.1f} us")
                print(json.dumps({
                    "peer": "torch", "what": what, "device": torch.cuda.get_device_name(), "torch": torch.__version__,
                    "cuda": torch.version.cuda, "dtype": "bfloat16", "hidden": options.hidden, "inner": options.inner,
                    "experts": experts, "rows_total": sum(rows), "rows": rows, **origin, **times,
                    **(rates(flops, times["median_us"], limit_tflops) if flops else
                       {"tflops": None, "limit_tflops": round(limit_tflops, 1), "percent_of_limit": None,
                        "gbps": round(num_bytes / times["median_us"] * 1e-3, 1)}),
                    "relative_error": error,
                }), flush=True)


if __name__ == "__main__":
    main()
