#!/usr/bin/env python3
"""Writes src/report/profiles/h200.json and h800.json: what was measured or published, and the arithmetic in between.

The files are committed; this is where their numbers come from. Every rule that turns a figure into another one stands
here once and, in words, in the profile's "sources".
"""
import json
import pathlib

EXPERTS = 20  # groups of the measured calls
GATE_UP = (3072, 5120)  # n, k of DeepSeek-V2's experts
DOWN = (5120, 1536)

# TFLOP/s by rows per expert. One H200 (132 SMs, 700 W), CUDA 13.0, random data, equal rows, median of 12 or more.
CUBLAS_LOOP = {
    GATE_UP: {8: 19, 32: 70, 128: 287, 256: 448, 512: 657, 1024: 648, 2048: 657, 4096: 665},
    DOWN: {128: 206, 256: 387, 512: 521, 1024: 623, 2048: 650, 4096: 586},
}
CUBLAS_GROUPED_GATE_UP = {8: 29, 32: 114}
DEEPGEMM_BF16 = {
    GATE_UP: {128: 429, 256: 646, 512: 718, 1024: 748, 2048: 692, 4096: 684},
    DOWN: {128: 362, 256: 555, 512: 666, 1024: 730, 2048: 771, 4096: 682},
}
DEEPGEMM_FP8 = {
    GATE_UP: {128: 600, 256: 1032, 512: 1209, 1024: 1230, 2048: 1279, 4096: 1248},
    DOWN: {128: 494, 256: 773, 512: 987, 1024: 1139, 2048: 1197, 4096: 1114},
}
# H800, DeepGEMM's README: (n, k): 4 groups of 8192 rows, TFLOP/s.
DEEPGEMM_FP8_H800 = {(4096, 7168): 1346, (7168, 2048): 1214}
H200_GBPS, H800_GBPS = 4800.0, 3350.0

RUN = "one H200 (132 SMs, 700 W), CUDA 13.0, random data, 20 experts with equal rows, median of 12 or more, 2026-11-23"


def group_us(shape, rows, tflops):
    """Microseconds of one expert's share of a call, from the call's rate."""
    return 2.0 * rows * shape[0] * shape[1] / (tflops * 1e6)


def rising(points):
    """Pools neighbours that fall: rates carry three digits, so times of equal height may seem to."""
    blocks = []
    for rows, us in sorted(points.items()):
        blocks.append(([rows], us))
        while len(blocks) > 1 and blocks[-2][1] > blocks[-1][1]:
            (right, b), (left, a) = blocks.pop(), blocks.pop()
            blocks.append((left + right, (a * len(left) + b * len(right)) / (len(left) + len(right))))
    return {rows: us for block, us in blocks for rows in block}


def h200_curves():
    best8 = group_us(GATE_UP, 8, CUBLAS_GROUPED_GATE_UP[8])
    best32 = group_us(GATE_UP, 32, CUBLAS_GROUPED_GATE_UP[32])
    # A call's own cost: at 8 rows both stream the same weights, the loop with 20 launches and the grouped call with one.
    launch = (group_us(GATE_UP, 8, CUBLAS_LOOP[GATE_UP][8]) - best8) * EXPERTS / (EXPERTS - 1)
    grouped, dense, fp8, fp8_dense = {}, {}, {}, {}
    for shape in (GATE_UP, DOWN):
        weights = shape[0] * shape[1] / (GATE_UP[0] * GATE_UP[1])
        small = {8: (best8 - launch / EXPERTS) * weights, 32: (best32 - launch / EXPERTS) * weights}
        share = launch / EXPERTS
        grouped[shape] = rising({**small, **{m: group_us(shape, m, t) - share for m, t in DEEPGEMM_BF16[shape].items()}})
        loop = {m: group_us(shape, m, t) - launch for m, t in CUBLAS_LOOP[shape].items()}
        dense[shape] = rising({**small, **loop} if shape == DOWN else loop)
        halved = {m: us / 2 for m, us in small.items()}
        fp8[shape] = rising({**halved, **{m: group_us(shape, m, t) - share for m, t in DEEPGEMM_FP8[shape].items()}})
        fp8_dense[shape] = rising({m: us * dense[shape][m] / grouped[shape][m] for m, us in fp8[shape].items()})
    return launch, {("dense", "bf16"): dense, ("grouped", "bf16"): grouped, ("dense", "fp8"): fp8_dense,
                    ("grouped", "fp8"): fp8}


def h800_curves(h200):
    """The same tensor cores behind a slower memory: never below the streaming time of the weights."""
    out = {}
    for key, shapes in h200.items():
        out[key] = {}
        for shape, points in shapes.items():
            floor = points[8] * H200_GBPS / H800_GBPS
            out[key][shape] = {m: max(us, floor) for m, us in points.items()}
    fp8 = out[("grouped", "fp8")]
    for (shape, tflops), like in zip(DEEPGEMM_FP8_H800.items(), (GATE_UP, DOWN)):
        size = shape[0] * shape[1] / (like[0] * like[1])
        fp8[shape] = rising({**{m: us * size for m, us in fp8[like].items()}, 8192: group_us(shape, 8192, tflops)})
    return out


SMS = [66, 92, 100, 108, 116, 124, 132]
SM_FACTOR = [[s, round(132 / s, 4)] for s in SMS]


def gemms(launch, curves):
    return [{
        "kind": kind, "weight_dtype": dtype, "call_us": round(launch, 2),
        "shapes": [{"n": n, "k": k, "us_of_rows": [[m, round(us, 2)] for m, us in sorted(points.items())]}
                   for (n, k), points in shapes.items()],
        "sm_factor": SM_FACTOR,
    } for (kind, dtype), shapes in curves.items()]


def contention():
    """From the overlap runs: a GEMM of 837 us alone beside a paced copy kernel of 909 us alone."""
    gemm, comm = 837.0, 909.0
    capped = [962 / (gemm * 132 / 116) - 1, 1054 / (gemm * 132 / 108) - 1]  # the GEMM ends last in these two
    beside = 924 / comm - 1  # the copy ends last at 124 SMs
    starved = 9.0  # the copy moves at a tenth of its rate until the GEMM is done
    # 2060 us in all = the GEMM, then what is left of the copy, alone.
    uncapped = (2060 - comm) / (1 - 1 / (1 + starved)) / gemm - 1
    return {"compute": round(sum(capped) / 2, 3), "comm": round(beside, 3), "uncapped_compute": round(uncapped, 2),
            "uncapped_comm": starved}


OPS = ["gather", "silu_mul", "reduce", "finish", "pack", "norm", "quantize", "other"]
FIXED_US = 3.0
EFFICIENCY = 0.75


def sources(memory, gpu):
    h800 = gpu == "H800"
    scaled = (" Not measured on an H800: it has the tensor cores of the H100 SXM and of the H200 but %g TB/s of memory, so "
              "a time is the H200's, and not less than the H200's weight streaming time (its point at 8 rows) x 4.8/%g."
              % (memory / 1000, memory / 1000)) if h800 else ""
    small = ("8 and 32 rows: cuBLAS grouped (29, 114 TFLOP/s), the best kernel there, weight streaming; for down scaled by "
             "weight bytes.")
    out = {
        "num_sms": "NVIDIA H100 architecture whitepaper: 132 SMs in the SXM5 form, which H200 and H800 share",
        "ranks_per_node": "HGX board of 8 GPUs; a rank is a GPU",
        "memory_gb": "NVIDIA data sheet, %s SXM" % gpu,
        "memory_gbps": "NVIDIA data sheet, %s SXM; peak" % gpu,
        "gemms.dense.bf16": "cuBLAS, one call an expert, DeepSeek-V2's gate+up and down, measured on " + RUN +
                            "; a call's time less call_us. Times that fell within the rates' three digits are averaged. "
                            "Down at 8 and 32 rows: as grouped." + scaled,
        "gemms.grouped.bf16": "DeepGEMM (June 2026) contiguous layout from 128 rows on, measured on " + RUN + ". " + small +
                              scaled,
        "gemms.grouped.fp8": "DeepGEMM (June 2026) fp8, from 128 rows on, measured on " + RUN +
                             ". 8 and 32 rows: half of bf16, as half the bytes stream." + scaled,
        "gemms.dense.fp8": "derived, no figure found: grouped fp8 x dense bf16 / grouped bf16 at the same shape and rows" +
                           scaled,
        "links": "",
        "inter_links": "one 400 Gb/s NIC a GPU: 50 GB/s (48-49 reached, NVIDIA in nccl-tests issue 267). alpha_us: assumption",
        "contention": "measured on one H200 with a paced copy kernel as the link; GEMM alone 837 us, copy alone 909 us. "
                      "Capped at 116 / 108 SMs 962 / 1054 us: over 132/SMs x 837 that is the slowdown of compute (mean). At "
                      "124 SMs the copy ends last, after 924 us: the slowdown of comm. Uncapped, GEMM first, 16 blocks: "
                      "2060 us (serial 1746): with the copy at a tenth of its rate until the GEMM ends (assumption: it gets "
                      "no SM but now and then), the GEMM takes so much longer that the sum comes out",
        "handoff_us": "assumption: an event wait between two streams plus a launch",
        "ops": "assumption: fused elementwise kernels at %g %% of peak memory bandwidth, %g us a launch; torch's unfused "
               "silu x mul reached 43 %% on an H200" % (100 * EFFICIENCY, FIXED_US),
        "attention_tflops": "FlashAttention-3 on H100, bf16, head 128, 16k tokens a batch: 517 (1k) to 590 (4k) TFLOP/s "
                            "(pytorch/benchmark PR 2391); assumed to hold for latent attention's 192/128 heads, too",
    }
    for kind, dtype in (("dense", "bf16"), ("grouped", "bf16"), ("dense", "fp8"), ("grouped", "fp8")):
        out["gemms.%s.%s.call_us" % (kind, dtype)] = (
            "derived: at 8 rows of gate+up the cuBLAS loop's expert takes 13.2 us, the grouped call's 8.7 us for the same "
            "weights; the difference is launches, 20 against 1. Assumed alike for all kernels")
        out["gemms.%s.%s.sm_factor" % (kind, dtype)] = (
            "132 / SMs: compute-bound GEMMs scale with SMs, as the overlap runs confirm within 3 % (837 us alone; with 8, 16 "
            "and 24 SMs taken away 924, 962 and 1054 us beside the copy)")
    if h800:
        out["gemms.grouped.fp8"] += (" n=4096 k=7168 and n=7168 k=2048: 1346 and 1214 TFLOP/s at 8192 rows on H800 "
                                     "(DeepGEMM's README); fewer rows scaled from gate+up and down by n x k")
        out["links"] = ("NVLink at 160 GB/s usable, of which DeepEP V1 reached 153 (dispatch) and 158 (combine) with 24 SMs; 8 "
                        "blocks moved 313 GB/s on an H200, so 8 suffice. alpha_us: assumption, no published figure of an "
                        "empty all-to-all found")
        out["memory_gb"] = "NVIDIA data sheet, H100 SXM, which the H800 shares"
        out["memory_gbps"] = "NVIDIA data sheet, H100 SXM, which the H800 shares; peak"
    else:
        out["links"] = ("NVLink 4: 370 of 450 GB/s usable (NVIDIA in nccl-tests issue 212; UCCL's EP8 dispatch reaches 320). 8 "
                        "blocks of a copy kernel took 0.72 ms where more took 0.61 ms, measured on one H200: x 0.85. "
                        "alpha_us: assumption, no published figure of an empty all-to-all found")
    return out


def profile(name, gpu, memory_gb, memory, launch, curves, links):
    return {
        "epsmoe_profile": 1, "name": name, "device": "NVIDIA %s SXM" % gpu,
        "origin": "published figures and GEMM times of one H200" if gpu == "H200" else
                  "published figures, GEMM times scaled from one H200",
        "made": "tools/make_published_profiles.py", "num_sms": 132, "ranks_per_node": 8, "memory_gb": memory_gb,
        "memory_gbps": memory, "gemms": gemms(launch, curves),
        "links": [{"sms": sms, "gbps": gbps, "alpha_us": 15.0} for sms, gbps in links],
        "inter_links": [{"sms": 16, "gbps": 50.0, "alpha_us": 30.0}],
        "contention": contention(), "handoff_us": 4.0,
        "ops": {op: {"fixed_us": FIXED_US, "gbps": memory * EFFICIENCY} for op in OPS},
        "attention_tflops": 550.0, "sources": sources(memory, gpu),
    }


def tidy(value):
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [tidy(v) for v in value]
    return {k: tidy(v) for k, v in value.items()} if isinstance(value, dict) else value


def lay_out(value, indent=0):
    line = json.dumps(value)
    if not isinstance(value, (dict, list)) or indent + len(line) <= 118:
        return line
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        items = ["%s%s: %s" % (pad, json.dumps(k), lay_out(v, indent + 2)) for k, v in value.items()]
        return "{\n" + ",\n".join(items) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + lay_out(v, indent + 2) for v in value) + "\n" + " " * indent + "]"


def main():
    launch, h200 = h200_curves()
    folder = pathlib.Path(__file__).resolve().parent.parent / "src/report/profiles"
    nvlink8 = round(370 * 0.61 / 0.72)
    made = {
        "h200": profile("h200", "H200", 141, H200_GBPS, launch, h200, [(8, nvlink8), (16, 370), (24, 370)]),
        "h800": profile("h800", "H800", 80, H800_GBPS, launch, h800_curves(h200), [(8, 160), (16, 160), (24, 160)]),
    }
    for name, value in made.items():
        (folder / (name + ".json")).write_text(lay_out(tidy(value)) + "\n")


if __name__ == "__main__":
    main()
