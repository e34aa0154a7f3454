#!/usr/bin/env python3
"""DeepGEMM's grouped bf16 product against PyTorch's: a peer to compare epsmoe's grouped GEMM with.

    deepgemm_grouped.py --deepgemm DIR
    deepgemm_grouped.py --deepgemm DIR --rows 128,1024 --hidden 2048 --inner 1408 --experts 64
    deepgemm_grouped.py --deepgemm DIR --loads loads.jsonl

DIR is where `import deep_gemm` finds the package: a checkout of https://github.com/deepseek-ai/DeepGEMM built in place,
or the folder that it was installed to. DeepGEMM compiles its kernels at the first call, so nvcc must be there as well.

Every load and both projections of an expert's FFN (gate_up: [2 * inner, hidden], down: [hidden, inner]) give two JSON
lines: DeepGEMM's m_grouped_bf16_gemm_nt_contiguous, and torch._grouped_mm on the same numbers. DeepGEMM wants each
expert's rows padded to a multiple of 128 in this layout; padding counts as time, not as work. Results are checked
against float32 before they are timed. How times and limit are measured: torch_moe_ffn.py --help.
"""

import argparse
import json
import os
import statistics
import sys

from torch_moe_ffn import (GEMM_TOLERANCE, Layer, Parser, check, check_fits, ends_of, event_times_us, fail,
                           matmul_limit, note, positive, positives, rates, read_loads, require_grouped_mm, spread)

WHERE_FROM = "build https://github.com/deepseek-ai/DeepGEMM as its README says, then name its folder"


def import_deepgemm(folder):
    sys.path.insert(0, os.path.abspath(folder))
    try:
        import deep_gemm
        return (deep_gemm, deep_gemm.m_grouped_bf16_gemm_nt_contiguous,
                deep_gemm.get_mk_alignment_for_contiguous_layout())
    except (ImportError, AttributeError, AssertionError, OSError) as error:
        fail(f"--deepgemm {folder}: {' '.join(str(error).split())[:200]}; {WHERE_FROM}")


class PaddedLayout:
    """Where DeepGEMM wants rows: each expert's from a multiple of `alignment` on."""

    def __init__(self, torch, rows, alignment):
        owners, positions = [], []
        for expert, count in enumerate(rows):
            positions.append(torch.arange(len_of(owners), len_of(owners) + count))
            owners.append(torch.full((count,), expert, dtype=torch.int32))
            owners.append(torch.full((-count % alignment,), -1, dtype=torch.int32))
        self.num_rows = len_of(owners)
        self.owners = torch.cat(owners).cuda()        # [num_rows] int32: the expert, -1 for padding
        self.positions = torch.cat(positions).cuda()  # [rows] int64: where the unpadded rows went

    def padded(self, x):
        out = x.new_zeros(self.num_rows, x.shape[1])
        out[self.positions] = x
        return out


def len_of(parts):
    return sum(part.numel() for part in parts)


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deepgemm", metavar="DIR", help="the folder that holds the built package deep_gemm")
    parser.add_argument("--hidden", type=positive, default=5120, help="hidden size (default: 5120, DeepSeek-V2)")
    parser.add_argument("--inner", type=positive, default=1536, help="size inside an expert (default: 1536)")
    parser.add_argument("--experts", type=positive, help="experts on this GPU (default: 20 = 160 on 8 GPUs)")
    parser.add_argument("--rows", type=positives, metavar="N,N,…",
                        help="rows of EACH expert (default: 128,256,512,1024,2048,4096)")
    parser.add_argument("--loads", metavar="FILE", help='instead: one {"rows": [...]} a line, a number for each expert')
    parser.add_argument("--seed", type=int, default=1, help="of the data (default: 1)")
    parser.add_argument("-r", "--repetitions", type=positive, default=25, help="samples of each time (default: 25)")
    options = parser.parse_args()
    if not options.deepgemm:
        fail(f"--deepgemm DIR is missing: {WHERE_FROM}")
    if not os.path.isdir(os.path.join(options.deepgemm, "deep_gemm")):
        fail(f"--deepgemm {options.deepgemm}: no package deep_gemm in it; {WHERE_FROM}")
    if options.loads and options.rows:
        fail("--loads says the rows: --rows does not go with it")
    if options.hidden % 64 or options.inner % 64:
        fail("--hidden and --inner must be multiples of 64, the depth of a DeepGEMM tile")
    experts = options.experts or 20
    loads = (read_loads(options.loads, options.experts) if options.loads else
             [({"source": "equal"}, [rows] * experts) for rows in options.rows or [128, 256, 512, 1024, 2048, 4096]])
    experts, most = len(loads[0][1]), max(sum(rows) for _, rows in loads)
    torch = require_grouped_mm()
    deep_gemm, deepgemm_grouped, alignment = import_deepgemm(options.deepgemm)
    weight_bytes = 6 * experts * options.hidden * options.inner
    check_fits(torch, weight_bytes + 6 * (most + 128 * experts) * (options.hidden + 2 * options.inner) + 2e9)
    torch.manual_seed(options.seed)
    limit_tflops = matmul_limit(torch)
    note(f"limit: {limit_tflops:.0f} TFLOP/s")
    layer = Layer(torch, options.hidden, options.inner, experts)
    versions = {"deepgemm": getattr(deep_gemm, "__version__", "unknown"), "torch": torch.__version__}

    def report(what, weight, origin, rows, run, error):
        times = spread(event_times_us(torch, run, options.repetitions))
        flops = 2 * sum(rows) * weight.shape[1] * weight.shape[2]
        note(f"{what}, {sum(rows)} rows: {times['median_us']:.1f} us")
        print(json.dumps({
            "peer": what.split()[0], "what": what, "device": torch.cuda.get_device_name(), **versions,
            "cuda": torch.version.cuda, "dtype": "bfloat16", "n": weight.shape[1], "k": weight.shape[2],
            "experts": experts, "rows_per_expert": round(statistics.mean(rows), 1), "rows_total": sum(rows),
            "rows": rows, **origin, **times, **rates(flops, times["median_us"], limit_tflops),
            "relative_error": error,
        }), flush=True)

    with torch.inference_mode():
        for origin, rows in loads:
            layout = PaddedLayout(torch, rows, alignment)
            ends = ends_of(torch, rows)
            for name, weight in (("gate_up", layer.gate_up), ("down", layer.down)):
                x = torch.randn(sum(rows), weight.shape[2], device="cuda", dtype=torch.bfloat16)
                padded = layout.padded(x)
                out = padded.new_full((layout.num_rows, weight.shape[1]), float("nan"))

                def expected(at, expert):
                    return x[at].float() @ weight[expert].float().t()

                deepgemm_grouped(padded, weight, out, layout.owners)
                error = check(f"deepgemm {name}", torch, out[layout.positions], expected, rows, GEMM_TOLERANCE)
                report(f"deepgemm {name}", weight, origin, rows,
                       lambda: deepgemm_grouped(padded, weight, out, layout.owners), error)
                error = check(f"torch {name}", torch, layer.grouped(x, weight, ends), expected, rows, GEMM_TOLERANCE)
                report(f"torch {name}", weight, origin, rows, lambda: layer.grouped(x, weight, ends), error)


if __name__ == "__main__":
    main()
