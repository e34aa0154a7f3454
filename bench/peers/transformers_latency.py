#!/usr/bin/env python3
"""Speed of a whole MoE model in Hugging Face transformers: a peer to compare `epsmoe bench sweep` with.

    transformers_latency.py
    transformers_latency.py --batch 8 --input-len 2048 --context 1024 --decode 64 --cuda-graph
    transformers_latency.py --config DIR/config.json --layers 4

The model has the sizes of DeepSeek-V2-Lite, or those of a config.json, and random bf16 weights made on the GPU: nothing
is downloaded, and routing comes out nearly even. One JSON line each:

    prefill              --batch prompts of --input-len random tokens, empty cache; logits of the last tokens only
    decode dynamic       one token at a time for one sequence, after --context tokens, with a DynamicCache
    decode static graph  --cuda-graph: the same with a StaticCache and one step captured as a CUDA graph
    decode compiled      --compile: with torch.compile(mode="reduce-overhead"), given up after --time-limit

Decoding is measured with each of --decode-experts, since the faster one differs between a prompt and a token. Times
are wall time from the call until the GPU is done; those of decoding are of single tokens, with the greedy choice of the
next one. Each is measured after a warm-up. A DynamicCache grows with every token, and the first token of a new length
can cost more: the same tokens are decoded once before they are timed (first_pass_median_us is of that pass).

limit_tflops is an 8192 x 8192 x 8192 bf16 torch.mm in the same run. Prefill's tflops counts products with the active
parameters and causal attention. Decoding is bound by memory: weight_gbps is the weights that one token needs, over its
time.
"""

import argparse
import json
import os
import signal
import time

from torch_moe_ffn import Parser, check_fits, fail, matmul_limit, note, positive, rates, require_cuda, spread

DEEPSEEK_V2_LITE = {
    "model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 10944,
    "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16, "kv_lora_rank": 512,
    "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1408,
    "first_k_dense_replace": 1, "topk_method": "greedy", "n_group": 1, "topk_group": 1,
    "norm_topk_prob": False, "routed_scaling_factor": 1.0, "max_position_embeddings": 163840, "rms_norm_eps": 1e-6,
    "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
                                          "mscale": 0.707, "mscale_all_dim": 0.707,
                                          "original_max_position_embeddings": 4096},
    "bos_token_id": 100000, "eos_token_id": 100001,
}
WARM_UP_TOKENS = 4
EXPERTS = ("grouped_mm", "batched_mm", "eager")


class TimeLimit(Exception):
    pass


def experts_list(text):
    names = text.split(",")
    if not set(names) <= set(EXPERTS):
        raise argparse.ArgumentTypeError(f"{text!r} names other experts than {', '.join(EXPERTS)}")
    return names


def read_config(path):
    if not path:
        return dict(DEEPSEEK_V2_LITE), "deepseek-v2-lite"
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError) as error:
        fail(f"--config {path}: {error.strerror if isinstance(error, OSError) else error}")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        fail(f'--config {path}: wanted an object with a "model_type" that transformers knows')
    return config, path


def import_transformers():
    try:
        import transformers
    except ImportError as error:
        fail(f"transformers is missing ({str(error).splitlines()[0]}): pip install 'transformers>=5'")
    return transformers


def make_model(torch, transformers, values, options, device="cuda"):
    """The model with random bf16 weights, and which implementation runs its experts."""
    values = {key: value for key, value in values.items() if key not in ("architectures", "auto_map", "torch_dtype")}
    try:
        config = transformers.AutoConfig.for_model(**values)
    except (TypeError, ValueError) as error:
        fail(f"transformers refuses the configuration: {' '.join(str(error).split())[:200]}")
    kind = {"dtype": torch.bfloat16, "attn_implementation": options.attention}
    with torch.device(device):
        try:
            model = transformers.AutoModelForCausalLM.from_config(config, experts_implementation=options.experts_impl,
                                                                  **kind)
        except (TypeError, ValueError, ImportError) as error:
            note(f"{options.experts_impl} experts refused ({str(error).splitlines()[0]}): the default is used")
            model = transformers.AutoModelForCausalLM.from_config(config, **kind)
    return model.eval(), getattr(model.config, "_experts_implementation", None) or "eager"


def first_of(config, *names):
    """The first of these settings that the configuration has: families spell them differently."""
    return next(getattr(config, name) for name in names if getattr(config, name, None) is not None)


def count_parameters(model):
    """(all, active): active ones are multiplied with one token; the embedding is looked up, not multiplied."""
    config, every, active = model.config, 0, 0
    num_experts = first_of(config, "n_routed_experts", "num_experts", "num_local_experts")
    for name, parameter in model.named_parameters():
        every += parameter.numel()
        if ".experts." in name:
            active += parameter.numel() * config.num_experts_per_tok // num_experts
        elif "embed_tokens" not in name:
            active += parameter.numel()
    return every, active


def prefill_flops(model, active, batch, length):
    """Of the products and of causal attention: half of the scores are needed; the head sees the last tokens only."""
    config = model.config
    head = model.lm_head.weight.numel()
    products = 2 * (active - head) * batch * length + 2 * head * batch
    if getattr(config, "kv_lora_rank", None):
        widths = config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim
    else:
        widths = 2 * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    attention = config.num_hidden_layers * config.num_attention_heads * batch * length * length * widths
    return products + attention


def timed_us(torch, run):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return 1e6 * (time.perf_counter() - begin)


class Decoder:
    """One sequence that is continued token by token; `ids` is rewritten in place, as a CUDA graph needs it."""

    def __init__(self, torch, model, cache, prompt, step_model=None):
        self.torch, self.cache = torch, cache
        self.model = model if step_model is None else step_model
        logits = model(prompt, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        self.ids = logits[:, -1].argmax(-1, keepdim=True).clone()  # [1, 1] int64

    def step(self):
        logits = self.model(self.ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits
        self.ids.copy_(logits[:, -1].argmax(-1, keepdim=True))

    def capture(self):
        """A graph of one step: the cache counts its tokens on the GPU, so replays move on by themselves."""
        stream = self.torch.cuda.Stream()
        stream.wait_stream(self.torch.cuda.current_stream())
        with self.torch.cuda.stream(stream):
            for _ in range(2):
                self.step()
        self.torch.cuda.current_stream().wait_stream(stream)
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            self.step()
        return graph


def decode_times(torch, step, count):
    for _ in range(WARM_UP_TOKENS):
        step()
    return [timed_us(torch, step) for _ in range(count)]


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", help="config.json of a DeepSeek-V2 (default: DeepSeek-V2-Lite)")
    parser.add_argument("--layers", type=positive, help="only so many layers, for a quick look")
    parser.add_argument("--batch", type=positive, default=8, help="prompts of the prefill (default: 8)")
    parser.add_argument("--input-len", type=positive, default=2048, help="tokens of each (default: 2048)")
    parser.add_argument("--context", type=positive, default=1024, help="tokens before decoding begins (default: 1024)")
    parser.add_argument("--decode", type=positive, default=64, help="tokens to decode and time (default: 64)")
    parser.add_argument("--attention", default="sdpa", choices=("sdpa", "eager"), help="default: sdpa")
    parser.add_argument("--experts-impl", default="grouped_mm", choices=EXPERTS,
                        help="transformers' experts_implementation for the prefill (default: grouped_mm)")
    parser.add_argument("--decode-experts", type=experts_list, default=["grouped_mm", "batched_mm"],
                        metavar="NAME,NAME", help="those for decoding (default: grouped_mm,batched_mm)")
    parser.add_argument("--cuda-graph", action="store_true", help="decode with a StaticCache and a CUDA graph too")
    parser.add_argument("--compile", action="store_true", help="decode through torch.compile too (takes minutes)")
    parser.add_argument("--time-limit", type=positive, default=180, help="seconds for each --compile (default: 180)")
    parser.add_argument("--seed", type=int, default=1, help="of weights and tokens (default: 1)")
    parser.add_argument("-r", "--repetitions", type=positive, default=5, help="samples of the prefill (default: 5)")
    options = parser.parse_args()
    values, name = read_config(options.config)
    values["num_hidden_layers"] = options.layers or values.get("num_hidden_layers", 1)
    longest = max(options.input_len, options.context + options.decode + 4 * WARM_UP_TOKENS)
    if longest > values.get("max_position_embeddings", longest):
        fail(f"{longest} tokens are more than the model's max_position_embeddings, {values['max_position_embeddings']}")
    torch = require_cuda()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = import_transformers()
    torch.manual_seed(options.seed)
    limit_tflops = matmul_limit(torch)
    note(f"limit: {limit_tflops:.0f} TFLOP/s")

    # Counted without memory first, so that a model that is too large is refused and not half made.
    every, active = count_parameters(make_model(torch, transformers, values, options, "meta")[0])
    check_fits(torch, 2 * every)
    began = time.perf_counter()
    model, experts_impl = make_model(torch, transformers, values, options)
    torch.cuda.synchronize()
    note(f"{name}: {every / 1e9:.2f} billion parameters, {active / 1e9:.2f} active, made in "
         f"{time.perf_counter() - began:.1f} s; experts: {experts_impl}, {model.config._attn_implementation} attention")
    prefill_experts = experts_impl
    common = {"peer": "transformers", "device": torch.cuda.get_device_name(), "torch": torch.__version__,
              "transformers": transformers.__version__, "cuda": torch.version.cuda, "dtype": "bfloat16", "model": name,
              "layers": model.config.num_hidden_layers, "parameters": every, "active_parameters": active,
              "attention": model.config._attn_implementation}

    def tokens(*shape):
        return torch.randint(0, model.config.vocab_size, shape, device="cuda")

    def report_decode(what, step_times, **more):
        times = spread(step_times)
        note(f"{what}: {times['median_us'] * 1e-3:.2f} ms a token")
        print(json.dumps({
            **common, "what": what, "experts_implementation": experts_impl, "batch": 1, "context": options.context,
            **times, **more, "ms_per_token": round(times["median_us"] * 1e-3, 3),
            "tokens_per_s": round(1e6 / times["median_us"], 1),
            "weight_gbps": round(2 * active / times["median_us"] * 1e-3, 1), "tflops": None,
            "limit_tflops": round(limit_tflops, 1), "percent_of_limit": None,
        }), flush=True)

    def give_up(what, error):
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        note(f"{what}: {reason}")
        print(json.dumps({**common, "what": what, "experts_implementation": experts_impl, "batch": 1,
                          "context": options.context, "error": reason}), flush=True)

    def out_of_time(*_):
        raise TimeLimit(f"not compiled within {options.time_limit} s")

    def static_cache():
        return transformers.StaticCache(config=model.config,
                                        max_cache_len=options.context + options.decode + 4 * WARM_UP_TOKENS)

    with torch.inference_mode():
        prompts = tokens(options.batch, options.input_len)

        def prefill():
            cache = transformers.DynamicCache(config=model.config)
            model(prompts, past_key_values=cache, use_cache=True, logits_to_keep=1)

        prefill()
        times = spread([timed_us(torch, prefill) for _ in range(options.repetitions)])
        num_tokens = options.batch * options.input_len
        note(f"prefill: {times['median_us'] * 1e-3:.1f} ms, {num_tokens / times['median_us'] * 1e6:.0f} tokens/s")
        flops = prefill_flops(model, active, options.batch, options.input_len)
        print(json.dumps({**common, "what": "prefill", "experts_implementation": experts_impl, "batch": options.batch,
                          "input_len": options.input_len, **times,
                          "tokens_per_s": round(num_tokens / times["median_us"] * 1e6, 1),
                          **rates(flops, times["median_us"], limit_tflops)}), flush=True)

        prompt = tokens(1, options.context)

        def start(cache, step_model=None):
            # batched_mm copies the weights of each row's expert: fine for a token, too much for a prompt.
            model.set_experts_implementation(prefill_experts)
            decoder = Decoder(torch, model, cache, prompt, step_model)
            model.set_experts_implementation(experts_impl)
            return decoder

        for experts_impl in options.decode_experts:
            first, again = (
                decode_times(torch, start(transformers.DynamicCache(config=model.config)).step, options.decode)
                for _ in range(2))
            report_decode("decode dynamic", again, first_pass_median_us=spread(first)["median_us"])
            if options.cuda_graph:
                try:
                    decoder = start(static_cache())  # kept: the graph reads and writes its tensors
                    graph = decoder.capture()
                    report_decode("decode static graph", decode_times(torch, graph.replay, options.decode))
                except (RuntimeError, TypeError, ValueError) as error:
                    give_up("decode static graph", error)
            if options.compile:
                signal.signal(signal.SIGALRM, out_of_time)
                signal.alarm(options.time_limit)
                try:
                    compiled = torch.compile(model, mode="reduce-overhead")
                    decoder = start(static_cache(), compiled)
                    decode_times(torch, decoder.step, WARM_UP_TOKENS)  # compiles, then records the graph
                    signal.alarm(0)
                    report_decode("decode compiled", decode_times(torch, decoder.step, options.decode))
                except Exception as error:  # noqa: BLE001  a compiler may raise anything: the other results stand
                    signal.alarm(0)
                    give_up("decode compiled", error)


if __name__ == "__main__":
    main()
