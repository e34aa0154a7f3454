#!/usr/bin/env python3
"""Golden files for the model tests, computed by transformers in float32.

    make_model_golden.py [--out tests/data/golden] [NAME…]    tiny random checkpoints, one folder per case
    make_model_golden.py --demo models/austen-moe [--out …]   austen-moe.json: perplexity, routing and greedy tokens

Needs tools/requirements.txt. Rerun it when a case is added; the seeds are fixed, so old cases change only by rounding.

A case folder is a checkpoint as published (config.json, safetensors) and golden.safetensors with ids0, logits0, ids1,
logits1: two sequences and the logits [tokens, vocab] float32 at every position, from the weights as stored.
Draws whose routing is a close call are rejected, so that float32 noise cannot flip an expert.
The cases of DeepSeek-V2 are below, those of the other families in golden_families.py.
"""

import argparse
import json
import math
import pathlib
import shutil

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM
from transformers.models.deepseek_v2 import modeling_deepseek_v2

import demo_model
import golden_families

SEQUENCE_LENGTHS = (17, 5)
# Float32 logits of networks this small agree to about 1e-6 between implementations: scores a thousand times that far
# apart are never confused.
MIN_ROUTING_GAP = 1e-3
GREEDY_PROMPT = "It was not till the next morning that Elizabeth could speak to her sister of what had passed."
NUM_GREEDY = 64

BASE = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2, q_lora_rank=None, kv_lora_rank=16, qk_nope_head_dim=8,
    qk_rope_head_dim=4, v_head_dim=8, first_k_dense_replace=0, n_routed_experts=4, num_experts_per_tok=2,
    n_shared_experts=1, topk_method="greedy", n_group=None, topk_group=None, norm_topk_prob=False,
    routed_scaling_factor=1.0, attention_bias=False, mlp_bias=False, tie_word_embeddings=False, hidden_act="silu",
    rms_norm_eps=1e-6, max_position_embeddings=64, bos_token_id=0, eos_token_id=1,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
)
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16,
        "beta_fast": 32, "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707}

# name -> (what differs from BASE, how it is stored)
CASES = {
    "plain": (dict(), {}),
    "dense_first": (dict(num_hidden_layers=3, first_k_dense_replace=1, n_shared_experts=2, n_routed_experts=6,
                         num_experts_per_tok=3, routed_scaling_factor=1.5, tie_word_embeddings=True), {}),
    "group_limited": (dict(q_lora_rank=24, topk_method="group_limited_greedy", n_routed_experts=8, n_group=4,
                           topk_group=2, num_experts_per_tok=3, routed_scaling_factor=2.5, n_shared_experts=2,
                           first_k_dense_replace=1, v_head_dim=12), {}),
    # Top-k wider than the experts left in the allowed groups cannot happen; as wide as them can: all are chosen.
    "group_limited_full": (dict(topk_method="group_limited_greedy", n_routed_experts=6, n_group=3, topk_group=2,
                                num_experts_per_tok=4), {}),
    "yarn_old_spelling": (dict(rope_parameters=YARN, q_lora_rank=16, qk_rope_head_dim=8, first_k_dense_replace=1),
                          {"old_spelling": True}),
    # Eight frequencies, of which the ramp between kept and stretched ones spans indices 3 to 8.
    "yarn_new_spelling": (dict(rope_parameters=YARN | {"mscale": 1.3, "mscale_all_dim": 0.6, "beta_fast": 16,
                                                       "beta_slow": 2, "rope_theta": 50.0, "factor": 8.0,
                                                       "original_max_position_embeddings": 512},
                               qk_rope_head_dim=16, max_position_embeddings=4096), {}),
    "yarn_defaults": (dict(rope_parameters={k: v for k, v in YARN.items() if not k.startswith(("mscale", "beta"))},
                           qk_rope_head_dim=8), {}),
    "plain_old_spelling": (dict(rope_parameters={"rope_type": "default", "rope_theta": 50.0}, qk_rope_head_dim=8),
                           {"old_spelling": True}),
    "norm_topk": (dict(norm_topk_prob=True, routed_scaling_factor=2.0, n_routed_experts=5, first_k_dense_replace=1),
                  {}),
    "norm_topk_of_one": (dict(norm_topk_prob=True, routed_scaling_factor=1.5, n_routed_experts=6,
                              num_experts_per_tok=1), {}),
    "norm_topk_group_limited": (dict(norm_topk_prob=True, routed_scaling_factor=16.0, n_routed_experts=8, n_group=2,
                                     topk_group=1, topk_method="group_limited_greedy"), {}),
    "no_shared_experts": (dict(n_shared_experts=None, n_routed_experts=5, routed_scaling_factor=3.0), {}),
    "attention_bias": (dict(attention_bias=True, q_lora_rank=20, hidden_size=48, num_attention_heads=3,
                            num_key_value_heads=3, v_head_dim=16, vocab_size=101), {}),
    "attention_bias_no_q_lora": (dict(attention_bias=True, tie_word_embeddings=True, rms_norm_eps=1e-5), {}),
    "all_experts": (dict(num_experts_per_tok=4, moe_intermediate_size=8), {}),
    "all_dense": (dict(first_k_dense_replace=2), {}),
    "sharded": (dict(num_hidden_layers=3, first_k_dense_replace=1, hidden_size=48, q_lora_rank=24,
                     n_routed_experts=6), {"shards": "90KB"}),
    "bfloat16": (dict(first_k_dense_replace=1, n_shared_experts=2, q_lora_rank=24, hidden_size=48),
                 {"dtype": torch.bfloat16}),
    "float16": (dict(tie_word_embeddings=True, routed_scaling_factor=2.0), {"dtype": torch.float16}),
}


class PublishedRouter(torch.nn.Module):
    """The gate of DeepSeek's published modelling code. transformers 5.17 reads norm_topk_prob but ignores it; here,
    with more than one expert per token, the weights are divided by their sum and then NOT scaled; else they are scaled.
    """

    def __init__(self, gate, config):
        super().__init__()
        self.weight = gate.weight
        self.config = config
        self.smallest_gap = math.inf

    def note_gap(self, values, kept):
        if kept < values.shape[-1]:
            ordered = values.sort(-1, descending=True).values
            self.smallest_gap = min(self.smallest_gap, (ordered[:, kept - 1] - ordered[:, kept]).min().item())

    def forward(self, hidden_states):
        config = self.config
        logits = hidden_states.reshape(-1, config.hidden_size).float() @ self.weight.float().T
        scores = logits.softmax(-1)
        eligible = scores
        if config.topk_method == "group_limited_greedy":
            grouped = scores.view(len(scores), config.n_group, -1)
            group_scores = grouped.amax(-1)
            self.note_gap(group_scores, config.topk_group)
            kept = torch.zeros_like(group_scores).scatter_(1, group_scores.topk(config.topk_group, -1).indices, 1.0)
            eligible = (grouped * kept[..., None]).flatten(1)
        self.note_gap(eligible, config.num_experts_per_tok)
        weights, indices = eligible.topk(config.num_experts_per_tok, -1)
        if config.num_experts_per_tok > 1 and config.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        else:
            weights = weights * config.routed_scaling_factor
        return logits, weights, indices


class NoSharedExperts(torch.nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def moe_blocks(model):
    return [layer.mlp for layer in model.model.layers if isinstance(layer.mlp, modeling_deepseek_v2.DeepseekV2Moe)]


def draw_weights(model, generator):
    """Every matrix keeps the size of what it multiplies; norms and biases are far from 1 and 0, so that none can be
    left out unnoticed; the gate is sharper, so that its choices are clear."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("norm.weight"):
            parameter.copy_(1.0 + 0.3 * noise)
        elif name.endswith("bias"):
            parameter.copy_(0.3 * noise)
        elif "embed_tokens" in name:
            parameter.copy_(noise * (parameter.shape[-1] ** -0.5 if model.config.tie_word_embeddings else 1.0))
        else:
            parameter.copy_(noise * parameter.shape[-1] ** -0.5 * (2.0 if name.endswith("gate.weight") else 1.0))


def config_json(settings, dtype, old_spelling):
    """config.json: in transformers 5's spelling, or in the one of the published DeepSeek-V2 checkpoints."""
    out = {"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", **settings}
    dtype_name = str(dtype).removeprefix("torch.")
    if not old_spelling:
        return out | {"dtype": dtype_name}
    rope = dict(out.pop("rope_parameters"))
    out["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    out["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    return out | {"torch_dtype": dtype_name, "moe_layer_freq": 1, "scoring_func": "softmax", "aux_loss_alpha": 0.001,
                  "seq_aux": True, "ep_size": 1, "pretraining_tp": 1}


def build(settings):
    config = DeepseekV2Config(**settings | {"n_shared_experts": settings["n_shared_experts"] or 1})
    model = DeepseekV2ForCausalLM(config).eval()
    for block in moe_blocks(model):
        block.gate = PublishedRouter(block.gate, config)
        if not settings["n_shared_experts"]:
            block.shared_experts = NoSharedExperts()
    return model


@torch.no_grad()
def make_case(name, folder, seed):
    changes, storage = CASES[name]
    settings = BASE | changes
    dtype = storage.get("dtype", torch.float32)
    while True:
        generator = torch.Generator().manual_seed(seed)
        model = build(settings)
        draw_weights(model, generator)
        model.to(dtype).float()  # rounded to what will be stored
        tensors = {}
        for index, length in enumerate(SEQUENCE_LENGTHS):
            ids = torch.randint(settings["vocab_size"], (length,), generator=generator)
            tensors[f"ids{index}"] = ids.to(torch.int32)
            tensors[f"logits{index}"] = model(ids[None]).logits[0].contiguous()
        gap = min([block.gate.smallest_gap for block in moe_blocks(model)], default=math.inf)
        if gap >= MIN_ROUTING_GAP:
            break
        seed += 1000
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, max_shard_size=storage.get("shards", "5GB"))
    (folder / "generation_config.json").unlink()
    written = config_json(settings, dtype, storage.get("old_spelling", False))
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    save_file(tensors, folder / "golden.safetensors", {"transformers": transformers.__version__, "seed": str(seed)})
    for path in folder.iterdir():
        path.chmod(0o644)
    check_case(folder, settings, tensors)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name:26} seed {seed:6} gap {gap:.4f} logits ±{tensors['logits0'].abs().max():.2f} {size // 1024} KiB")


def check_case(folder, settings, tensors):
    """Reads the folder back with transformers alone, where transformers computes what DeepSeek published."""
    if settings["norm_topk_prob"] or not settings["n_shared_experts"]:
        return
    model = DeepseekV2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for index in range(len(SEQUENCE_LENGTHS)):
        logits = model(tensors[f"ids{index}"].long()[None]).logits[0]
        difference = (logits - tensors[f"logits{index}"]).abs().max().item()
        if not difference < 1e-4:
            raise SystemExit(f"make_model_golden: {folder.name}: logits of the file read back differ by {difference}")


class GapWatch:
    """Notes the smallest gap between the last value that any torch.topk keeps and the first that it leaves out."""

    def __enter__(self):
        self.smallest = math.inf
        self.functions = torch.topk, torch.Tensor.topk

        def topk(values, k, dim=-1, **options):
            self.note(values, k, dim)
            return self.functions[0](values, k, dim, **options)

        torch.topk = torch.Tensor.topk = topk
        return self

    def __exit__(self, *_):
        torch.topk, torch.Tensor.topk = self.functions

    def note(self, values, k, dim):
        if k < values.shape[dim]:
            ordered = values.detach().sort(dim, descending=True).values.transpose(dim, -1)
            self.smallest = min(self.smallest, (ordered[..., k - 1] - ordered[..., k]).min().item())


def draw_family_weights(model, generator):
    """As draw_weights, for every family's names."""
    tied = model.config.tie_word_embeddings
    for name, parameter in list(model.named_parameters()) + list(model.named_buffers()):
        if name.endswith("inv_freq"):
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name.split(".")[-2] and name.endswith("weight"):
            parameter.copy_(1.0 + 0.3 * noise)
        elif parameter.ndim == 1:
            parameter.copy_(0.3 * noise)
        elif "embed_tokens" in name or "wte" in name:
            parameter.copy_(noise * (parameter.shape[-1] ** -0.5 if tied else 1.0))
        else:
            is_router = name.endswith(("gate.weight", "router.layer.weight", "router.weight"))
            parameter.copy_(noise * parameter.shape[-1] ** -0.5 * (2.0 if is_router else 1.0))


def read_tensors(folder):
    out = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            out |= {name: file.get_tensor(name) for name in file.keys()}
    return out


def add_mtp_layer(folder, num_layers):
    """A layer for multi-token prediction after the last one, which the model does not run."""
    tensors = read_tensors(folder)
    last = f"model.layers.{num_layers - 1}."
    extra = {name.replace(last, f"model.layers.{num_layers}."): tensor.clone() for name, tensor in tensors.items()
             if name.startswith(last)}
    extra[f"model.layers.{num_layers}.eh_proj.weight"] = torch.ones(4, 8)
    save_file(tensors | extra, folder / "model.safetensors", {"format": "pt"})


@torch.no_grad()
def make_family_case(name, folder, seed):
    family, changes, storage = golden_families.CASES[name]
    settings = golden_families.FAMILIES[family].base | changes
    dtype = storage.get("dtype", torch.float32)
    fp8 = golden_families.Fp8(storage["fp8"]) if "fp8" in storage else None
    mxfp4 = golden_families.Mxfp4() if "mxfp4" in storage else None
    while True:
        generator = torch.Generator().manual_seed(seed)
        model = golden_families.build(family, settings)
        draw_family_weights(model, generator)
        for parameter in model.parameters():  # rounded to what will be stored; buffers such as frequencies are not
            parameter.copy_(parameter.to(dtype).float())
        packed = {}
        if fp8:
            shutil.rmtree(folder, ignore_errors=True)
            model.save_pretrained(folder)
            for key, tensor in read_tensors(folder).items():
                packed[key] = fp8.pack(tensor) if fp8.applies(key, tensor) else tensor
            unpacked = {key: fp8.unpack(*value) if isinstance(value, tuple) else value for key, value in packed.items()}
            save_file(unpacked, folder / "model.safetensors", {"format": "pt"})
            model = type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        if mxfp4:
            packed, plain = mxfp4.draw(dict(model.named_parameters()), generator)
            for key, values in plain.items():
                model.get_parameter(key).copy_(values)
        tensors = {}
        with GapWatch() as gaps:
            for index, length in enumerate(SEQUENCE_LENGTHS):
                ids = torch.randint(settings["vocab_size"], (length,), generator=generator)
                tensors[f"ids{index}"] = ids.to(torch.int32)
                tensors[f"logits{index}"] = model(ids[None]).logits[0].contiguous()
        if gaps.smallest >= MIN_ROUTING_GAP:
            break
        seed += 1000
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    written = golden_families.config_json(family, settings, model, storage)
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    check_family_case(folder, family, settings, tensors)
    if fp8:
        stored = {}
        for key, value in packed.items():
            if isinstance(value, tuple):
                stored[key], stored[key + "_scale_inv"] = value
            else:
                stored[key] = value
        save_file(stored, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(written | fp8.config(), indent=2) + "\n")
    if mxfp4:
        save_file({key: value.contiguous() for key, value in packed.items()}, folder / "model.safetensors",
                  {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(written | mxfp4.config(), indent=2) + "\n")
    if storage.get("mtp"):
        add_mtp_layer(folder, settings["num_hidden_layers"])
        (folder / "config.json").write_text(json.dumps(written | {"num_nextn_predict_layers": 1}, indent=2) + "\n")
    save_file(tensors, folder / "golden.safetensors", {"transformers": transformers.__version__, "seed": str(seed)})
    for path in folder.iterdir():
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name:26} seed {seed:6} gap {gaps.smallest:.4f} logits ±{tensors['logits0'].abs().max():.2f} "
          f"{size // 1024} KiB")


def check_family_case(folder, family, settings, tensors):
    """Reads the folder back with transformers alone: config.json says what the model was built with."""
    if family == "arctic":  # which transformers does not have
        return
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    if family == "dbrx":  # transformers 5.17 ignores the rope_theta that published files have in attn_config
        options["rope_parameters"] = settings["rope_parameters"]
    model = golden_families.FAMILIES[family].model.from_pretrained(folder, **options).eval()
    for index in range(len(SEQUENCE_LENGTHS)):
        difference = (model(tensors[f"ids{index}"].long()[None]).logits[0] - tensors[f"logits{index}"]).abs().max()
        if not difference < 1e-4:
            raise SystemExit(f"make_model_golden: {folder.name}: logits of the file read back differ by {difference}")


class RowCounter:
    """Rows every routed expert receives, per mixture layer."""

    def __init__(self, model):
        gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
        self.rows = [torch.zeros(gate.weight.shape[0], dtype=torch.int64) for gate in gates]
        for layer, gate in enumerate(gates):
            gate.register_forward_hook(lambda _, __, output, layer=layer: self.add(layer, output[2]))

    def add(self, layer, indices):
        self.rows[layer] += torch.bincount(indices.flatten(), minlength=len(self.rows[layer]))


@torch.no_grad()
def greedy(model, prompt_ids):
    """The next tokens of largest logit and by how much each leads the runner-up."""
    ids, tokens, leads, cache = torch.tensor([prompt_ids]), [], [], None
    for _ in range(NUM_GREEDY):
        output = model(ids, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        top = output.logits[0, -1].topk(2)
        tokens.append(top.indices[0].item())
        leads.append(round((top.values[0] - top.values[1]).item(), 6))
        ids = torch.tensor([[tokens[-1]]])
    return tokens, leads


@torch.no_grad()
def make_demo(checkpoint, path):
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    prompt_ids = tokenizer.encode(GREEDY_PROMPT).ids
    tokens, leads = greedy(model, prompt_ids)
    text = (checkpoint / "heldout.txt").read_text(encoding="utf-8")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    counter = RowCounter(model)
    window = demo_model.EVAL_WINDOW
    full = len(ids) // window * window  # the last, shorter window runs alone: padding would be routed and counted
    nll = sum(demo_model.heldout_nll(lambda inputs: model(inputs).logits, part, size)
              for part, size in ((ids[:full], window), (ids[full:], len(ids) - full)) if part)
    path.write_text(json.dumps({
        "what": "transformers, float32 arithmetic on the stored bfloat16 weights",
        "transformers": transformers.__version__,
        "definition": "heldout.txt encoded without special tokens, cut into consecutive windows of `window` tokens "
                      "(the last one shorter), each predicted after the begin-of-text token with nothing before it; "
                      "nll is the sum over all tokens of -ln p, ppl = exp(nll / num_tokens)",
        "window": window, "num_tokens": len(ids), "nll": nll, "ppl": math.exp(nll / len(ids)),
        "rows_definition": "rows per layer (mixture layers only) and expert on those windows; a window's inputs are "
                           "the begin-of-text token and all its tokens but the last",
        "rows_per_expert": [rows.tolist() for rows in counter.rows],
        "prompt": GREEDY_PROMPT, "prompt_ids": prompt_ids, "greedy_ids": tokens,
        "greedy_text": tokenizer.decode(tokens), "greedy_leads": leads,
    }, indent=1).replace(",\n   ", ", ").replace(",\n  ", ", ") + "\n", encoding="utf-8")
    print(f"{len(ids)} tokens, perplexity {math.exp(nll / len(ids)):.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/data/golden"))
    parser.add_argument("--demo", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="only these cases")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.demo:
        make_demo(arguments.demo, arguments.out / f"{arguments.demo.resolve().name}.json")
        return
    for cases, make in ((CASES, make_case), (golden_families.CASES, make_family_case)):
        for index, name in enumerate(cases):
            if not arguments.names or name in arguments.names:
                make(name, arguments.out / name, seed=index + 1)


if __name__ == "__main__":
    main()
