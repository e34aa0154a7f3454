#!/usr/bin/env python3
"""Speed of transformers on a CPU beside `epsmoe bench sweep`, in turns in one run.

    transformers_cpu.py -m models/austen-qwen3 [--epsmoe build/release/bin/epsmoe] [-p 128,512] [-n 128] [--rounds 5]
    transformers_cpu.py -m DIR --dummy      DIR has a config.json and no weights: both programs make random ones

pp512 is a prompt of 512 random tokens with an empty cache and the logits of the last token, tg128 is 128 tokens decoded
one by one from an empty context with a DynamicCache. transformers runs each test (decoding: 16 tokens of it) in every
combination of --dtypes, --experts and --peer-threads once, after a warm-up; the fastest one is its representative. Then
the two programs take turns, and each result is the median over the rounds, with the 10th and 90th percentiles. One JSON
line for each test, with all combinations and the ratio of the rates. --cpu-time counts seconds of CPU time in place of
elapsed ones, both programs with one thread: for a machine that does other work meanwhile.
"""

import argparse
import itertools
import json
import os
import pathlib
import resource
import statistics
import subprocess
import time

from torch_moe_ffn import Parser, fail, note, positive

CPU_TIME_RUNS = 20  # of epsmoe, whose start is subtracted
TRIAL_TOKENS = 16  # of decoding, where some combinations are very slow
EXPERTS = ("eager", "batched_mm", "grouped_mm")


def sizes(text):
    return [int(part) for part in text.split(",") if part != "0"]


def make_model(torch, transformers, options, dtype):
    kind = {"dtype": getattr(torch, dtype)}
    if not options.dummy:
        return transformers.AutoModelForCausalLM.from_pretrained(options.model, **kind).eval()
    return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(options.model),
                                                         **kind).eval()


def timed_rate(torch, transformers, model, clock, what, count):
    """Tokens per second of one prompt of `count` tokens, or of `count` decoded ones."""
    ids = torch.randint(0, model.config.vocab_size, (1, count))
    cache = transformers.DynamicCache(config=model.config)
    with torch.inference_mode():
        begin = clock()
        for part in [ids] if what == "pp" else ids.split(1, 1):
            model(part, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return count / (clock() - begin)


def run_epsmoe(options, what, count, repetitions):
    """What the command prints, and the CPU time that it took."""
    command = [str(options.epsmoe), "bench", "sweep", "-m", str(options.model), "-o", "jsonl", "-r", str(repetitions),
               "--threads", str(options.threads), "-p", str(count if what == "pp" else 0),
               "-n", str(count if what == "tg" else 0)]
    if options.dummy:
        command += ["--load-format", "dummy"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        fail(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(done.stdout), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def epsmoe_rate(options, what, count):
    result, few = run_epsmoe(options, what, count, 1)
    if not options.cpu_time:
        return result["avg_ts"], result["op_set"]
    many = run_epsmoe(options, what, count, 1 + CPU_TIME_RUNS)[1]
    return CPU_TIME_RUNS * count / (many - few), result["op_set"]


def spread(rates):
    rates = sorted(rates)
    last = len(rates) - 1
    return {"median": round(statistics.median(rates), 1), "p10": round(rates[round(0.1 * last)], 1),
            "p90": round(rates[round(0.9 * last)], 1)}


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=pathlib.Path, required=True)
    parser.add_argument("--dummy", action="store_true", help="random weights: only config.json is read")
    parser.add_argument("--epsmoe", type=pathlib.Path, default=pathlib.Path("build/release/bin/epsmoe"))
    parser.add_argument("-p", "--n-prompt", type=sizes, default=[128, 512])
    parser.add_argument("-n", "--n-gen", type=sizes, default=[128])
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time; implies one thread")
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--experts", default=",".join(EXPERTS), help="implementations in transformers")
    parser.add_argument("--peer-threads", type=sizes, help="of transformers (default: 1 and as many as --threads)")
    parser.add_argument("--rounds", type=positive, default=5)
    options = parser.parse_args()
    clock = time.perf_counter
    if options.cpu_time:
        clock, options.threads, options.peer_threads = time.process_time, 1, [1]
    import torch
    import transformers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    peer_threads = options.peer_threads or sorted({1, options.threads})
    torch.manual_seed(1)
    tests = [("pp", count) for count in options.n_prompt] + [("tg", count) for count in options.n_gen]
    tried = {test: {} for test in tests}
    for dtype in options.dtypes.split(","):
        model = make_model(torch, transformers, options, dtype)
        for experts, threads, (what, count) in itertools.product(options.experts.split(","), peer_threads, tests):
            model.set_experts_implementation(experts)
            torch.set_num_threads(threads)
            trial = min(count, TRIAL_TOKENS) if what == "tg" else count
            timed_rate(torch, transformers, model, clock, what, trial)
            rate = timed_rate(torch, transformers, model, clock, what, trial)
            name = f"{dtype}, {experts}, {threads} threads"
            tried[what, count][name] = round(rate, 1)
            note(f"transformers, {name}: {what}{count} {rate:.1f} tokens/s")
        del model
    for what, count in tests:
        best = max(tried[what, count], key=tried[what, count].get)
        dtype, experts, threads = best.split(", ")
        model = make_model(torch, transformers, options, dtype)
        model.set_experts_implementation(experts)
        torch.set_num_threads(int(threads.split()[0]))
        timed_rate(torch, transformers, model, clock, what, min(count, TRIAL_TOKENS) if what == "tg" else count)
        ours, theirs = [], []
        for _ in range(options.rounds):
            rate, op_set = epsmoe_rate(options, what, count)
            ours.append(rate)
            theirs.append(timed_rate(torch, transformers, model, clock, what, count))
        del model
        ratio = statistics.median(ours) / statistics.median(theirs)
        note(f"{what}{count}: epsmoe {statistics.median(ours):.1f}, transformers {statistics.median(theirs):.1f} "
             f"tokens/s, {ratio:.2f} times as fast")
        print(json.dumps({
            "what": f"{what}{count}", "model": options.model.name, "threads": options.threads,
            "clock": "cpu time" if options.cpu_time else "elapsed", "op_set": op_set,
            "epsmoe_tokens_per_s": spread(ours), "transformers_tokens_per_s": spread(theirs), "transformers_as": best,
            "ratio": round(ratio, 2), "tried": tried[what, count], "rounds": options.rounds,
            "torch": torch.__version__, "transformers": transformers.__version__}), flush=True)


if __name__ == "__main__":
    main()
