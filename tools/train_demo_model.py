#!/usr/bin/env python3
"""Trains a demo model from scratch (a few minutes on one large GPU): models/austen-moe, or models/austen-qwen3.

    train_demo_model.py --text DIR --tokenizer models/austen-moe/tokenizer.json --out OUT [--family qwen3_moe]
                        [--teacher CHECKPOINT ...]

DIR as austen_text.py writes it. OUT receives the best checkpoint by held-out loss (bfloat16, published tensor names)
and log.json, which ends with the perplexity that transformers computes from the checkpoint in float32. With teachers
(checkpoints of earlier runs with other seeds) the model also learns their averaged predictions, which on so little text
generalises better than the text alone.
"""

import argparse
import copy
import json
import math
import pathlib
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging

import demo_model
from austen_text import BLOCK_BREAK
from demo_model import CONTEXT, END_OF_TEXT_ID

SHARD_SIZE = {"deepseek_v2": "11MB", "qwen3_moe": "15MB"}  # files well under 16 MB: three of them, and one


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--family", choices=demo_model.FAMILIES, default="deepseek_v2")
    parser.add_argument("--teacher", type=pathlib.Path, nargs="*", default=[])
    parser.add_argument("--teacher-weight", type=float, default=0.8)
    parser.add_argument("--steps", type=int, default=4200)
    parser.add_argument("--max-seconds", type=float, default=3600.0, help="shortens the schedule, decay included")
    parser.add_argument("--finish-by", type=float, metavar="UNIX_TIME",
                        help="shortens it further, to end at this time whatever the start and the compiler took")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--context", type=int, default=CONTEXT)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--attention-dropout", type=float, default=0.1)
    parser.add_argument("--token-noise", type=float, default=0.1, help="share of input tokens replaced by random ones")
    parser.add_argument("--router-noise", type=float, default=0.1)
    parser.add_argument("--balance", type=float, default=0.003, help="weight of the load-balance loss")
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--eval-every", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    return parser.parse_args()


class Windows:
    """Random windows of the training text, half of them starting at a paragraph."""

    def __init__(self, text, tokenizer, device):
        stream = []
        for block in text.split(BLOCK_BREAK):
            stream += tokenizer.encode(block, add_special_tokens=False).ids + [END_OF_TEXT_ID]
        self.ids = torch.tensor(stream, device=device)
        breaks = self.ids == tokenizer.token_to_id("\u010a\u010a")  # two line feeds, in byte-level spelling
        self.paragraphs = breaks.nonzero().flatten() + 1

    def draw(self, batch, length, token_noise, vocab_size):
        device = self.ids.device
        last = len(self.ids) - length
        anywhere = torch.randint(last + 1, (batch,), device=device)
        paragraph = self.paragraphs[torch.randint(len(self.paragraphs), (batch,), device=device)].clamp(max=last)
        begin = torch.where(torch.rand(batch, device=device) < 0.5, anywhere, paragraph)
        labels = self.ids[begin[:, None] + torch.arange(length, device=device)]
        inputs = torch.roll(labels, 1, 1)
        noisy = torch.rand(inputs.shape, device=device) < token_noise * torch.rand(batch, 1, device=device) * 2
        inputs = torch.where(noisy, torch.randint(vocab_size, inputs.shape, device=device), inputs)
        inputs[:, 0] = END_OF_TEXT_ID
        return inputs, labels


def make_optimizer(model, arguments):
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": arguments.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    fused = next(model.parameters()).is_cuda
    return torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=(0.9, 0.98), fused=fused)


def schedule(progress, warmup=0.03):
    """Linear warm-up, then half a cosine down to a hundredth."""
    if progress < warmup:
        return max(progress, 1e-4) / warmup
    done = min((progress - warmup) / (1.0 - warmup), 1.0)
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done))


def save(model, folder):
    """Writes the published tensor names: transformers splits its fused experts again when it saves."""
    rounded = copy.deepcopy(model).to(torch.bfloat16)
    rounded.config.dtype = torch.bfloat16
    rounded.generation_config = GenerationConfig(
        do_sample=True, temperature=0.8, top_p=0.95, max_new_tokens=256, bos_token_id=END_OF_TEXT_ID,
        eos_token_id=END_OF_TEXT_ID, pad_token_id=END_OF_TEXT_ID)
    rounded.save_pretrained(folder, max_shard_size=SHARD_SIZE[model.config.model_type])


def stored_perplexity(folder, heldout, device):
    """The held-out perplexity of the files: transformers' forward pass, float32."""
    torch.set_float32_matmul_precision("highest")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    nll = demo_model.heldout_nll(lambda ids: model(ids.to(device)).logits, heldout)
    return math.exp(nll / len(heldout))


def main():
    arguments = parse_arguments()
    logging.disable_progress_bar()
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    windows = Windows((arguments.text / "train.txt").read_text(encoding="utf-8"), tokenizer, device)
    heldout_text = (arguments.text / "heldout.txt").read_text(encoding="utf-8")
    heldout = tokenizer.encode(heldout_text, add_special_tokens=False).ids

    config = demo_model.FAMILIES[arguments.family].make_config(tokenizer.get_vocab_size())
    model = demo_model.make_model(config)
    demo_model.check_against_transformers(model, windows.ids[None, :64].cpu())  # CPU: no TF32, so routing agrees
    model = model.to(device)
    averaged, best = copy.deepcopy(model), copy.deepcopy(model)
    teachers = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(device).eval()
                for path in arguments.teacher]
    optimizer = make_optimizer(model, arguments)
    regularisation = demo_model.Regularisation(arguments.dropout, arguments.attention_dropout, arguments.router_noise)

    def autocast():
        return torch.autocast(device_type=device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")

    def teacher_probabilities(inputs):
        total = sum(demo_model.forward(teacher, inputs)[0].float().softmax(-1) for teacher in teachers)
        return total / len(teachers)

    def losses(inputs, labels, target):
        logits, balance = demo_model.forward(model, inputs, regularisation)
        log_p = logits.float().log_softmax(-1)
        text = -log_p.gather(-1, labels[..., None]).mean()
        taught = text if target is None else -(target * log_p).sum(-1).mean()
        return text, taught, balance

    def total_loss():
        inputs, labels = windows.draw(arguments.batch, arguments.context, arguments.token_noise, config.vocab_size)
        with autocast():
            target = None
            if teachers:
                with torch.no_grad():
                    target = teacher_probabilities(inputs)
            text, taught, balance = losses(inputs, labels, target)
        return (1.0 - weight) * text + weight * taught + arguments.balance * balance, text.detach()

    def evaluate(network):
        with autocast():
            nll = demo_model.heldout_nll(lambda ids: demo_model.forward(network, ids.to(device))[0], heldout)
        return nll / len(heldout)

    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(windows.ids)} training tokens, "
          f"{len(heldout)} held out, {len(teachers)} teachers", flush=True)
    unlogged = ("text", "tokenizer", "out", "teacher", "finish_by")
    log = {"settings": {k: v for k, v in vars(arguments).items() if k not in unlogged},
           "num_teachers": len(teachers), "train_tokens": len(windows.ids), "heldout_tokens": len(heldout),
           "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "curve": []}
    weight = arguments.teacher_weight if teachers else 0.0
    if arguments.compile:
        plain = losses, teacher_probabilities
        losses, teacher_probabilities = map(torch.compile, plain)
        try:
            total_loss()[0].backward()  # compiles now, outside the timed schedule
        except (RuntimeError, OSError) as error:  # needs a C compiler, and on a GPU Python's headers
            print(f"train_demo_model: training uncompiled, more slowly, because --compile failed: {error}", flush=True)
            losses, teacher_probabilities = plain
        log["compiled"] = losses is not plain[0]
        optimizer.zero_grad(set_to_none=True)
    start, best_loss, saved_at, running = time.time(), math.inf, 0.0, None
    max_seconds = arguments.max_seconds
    if arguments.finish_by:
        max_seconds = min(max_seconds, arguments.finish_by - start)
        if max_seconds <= 0.0:
            raise SystemExit(f"train_demo_model: --finish-by passed {-max_seconds:.0f} s before the first step")
    print(f"ready; the schedule has {max_seconds:.0f} s", flush=True)
    for step in range(arguments.steps + 1):
        seconds = time.time() - start
        progress = max(step / arguments.steps, seconds / max_seconds)
        last = progress >= 1.0
        if step % arguments.eval_every == 0 or last:
            loss = evaluate(averaged)
            row = {"step": step, "train": None if running is None else running.item(), "heldout": loss,
                   "seconds": round(seconds, 1)}
            log["curve"].append(row)
            print(json.dumps(row), flush=True)
            if not math.isfinite(loss):
                raise SystemExit("train_demo_model: the loss is not finite; lower --learning-rate")
            if loss < best_loss:
                best_loss = loss
                log["best"] = row
                best.load_state_dict(averaged.state_dict())
            if last or seconds - saved_at > 20:
                save(best, arguments.out)
                (arguments.out / "log.json").write_text(json.dumps(log, indent=1) + "\n")
                saved_at = seconds
        if last:
            break
        for group in optimizer.param_groups:
            group["lr"] = arguments.learning_rate * schedule(progress)
        loss, text = total_loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            decay = min(arguments.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1.0 - decay)
            running = text if running is None else torch.lerp(running, text, 0.05)
    log["perplexity"] = stored_perplexity(arguments.out, heldout, device)
    (arguments.out / "log.json").write_text(json.dumps(log, indent=1) + "\n")
    print(f"best held-out loss {best_loss:.4f}, perplexity of the files {log['perplexity']:.4f}")


if __name__ == "__main__":
    main()
