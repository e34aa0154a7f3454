#!/usr/bin/env python3
"""Perplexity and speed of transformers on a model folder: a peer to compare `epsmoe perplexity` with.

    transformers_ppl.py -m DIR -f FILE [--window 512] [--dtype float32] [--batch 8] [--threads N] [--device cpu|cuda]

Same definition as epsmoe: FILE is encoded without special tokens and cut into consecutive windows, each predicted after
the begin-of-text token; the last, shorter window is included. Prints one JSON line.
"""

import argparse
import json
import math
import time

import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer


def windows_of(ids, bos, window, batch):
    """Batches (inputs, labels); the last window, if shorter, is a batch of its own, so nothing is padded."""
    full = len(ids) // window * window
    rows = [ids[begin:begin + window] for begin in range(0, full, window)]
    groups = [rows[begin:begin + batch] for begin in range(0, len(rows), batch)]
    if full < len(ids):
        groups.append([ids[full:]])
    for group in groups:
        labels = torch.tensor(group)
        yield torch.cat((torch.full((len(group), 1), bos), labels[:, :-1]), 1), labels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-f", "--file", required=True)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    tokenizer = Tokenizer.from_file(arguments.model + "/tokenizer.json")
    with open(arguments.file, encoding="utf-8", newline="") as file:
        ids = tokenizer.encode(file.read(), add_special_tokens=False).ids
    if not ids:
        raise SystemExit(f"transformers_ppl: {arguments.file} holds no tokens")
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=getattr(torch, arguments.dtype))
    model = model.to(arguments.device).eval()
    batches = list(windows_of(ids, model.config.bos_token_id, arguments.window, arguments.batch))
    nll, start = 0.0, None
    with torch.inference_mode():
        model(batches[0][0].to(arguments.device))  # warm-up, not timed
        start = time.perf_counter()
        for inputs, labels in batches:
            logits = model(inputs.to(arguments.device)).logits.float()
            nll += F.cross_entropy(logits.flatten(0, 1), labels.flatten().to(logits.device), reduction="sum").item()
        seconds = time.perf_counter() - start
    print(json.dumps({
        "engine": f"transformers {transformers.__version__}, torch {torch.__version__}", "device": arguments.device,
        "dtype": arguments.dtype, "threads": torch.get_num_threads(), "window": arguments.window,
        "batch": arguments.batch, "num_tokens": len(ids), "nll": nll, "ppl": math.exp(nll / len(ids)),
        "seconds": round(seconds, 3), "tokens_per_s": round(len(ids) / seconds, 1),
    }))


if __name__ == "__main__":
    main()
