"""The golden checkpoints of the families other than DeepSeek-V2, for make_model_golden.py.

A case is a family, what differs from the family's base settings, and how it is stored. Settings are the arguments of
the family's configuration class in transformers; `published` turns them into a config.json as the model's authors
publish it, where that is spelled differently.
"""

import torch
import transformers
from transformers.integrations import mxfp4

import arctic_reference

SHAPE = dict(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False)
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "rope_theta": 200.0, "factor": 2.5}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 200.0, "factor": 2.0}
LATENT = dict(num_key_value_heads=4, q_lora_rank=None, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8,
              v_head_dim=12)


class Family:
    def __init__(self, config, model, base, published=None, module=transformers):
        self.config = getattr(module, config)
        self.model = getattr(module, model)
        self.base = SHAPE | {"rope_parameters": PLAIN} | base
        self.published = published or old_rope


def old_rope(settings):
    """rope_theta and rope_scaling instead of rope_parameters."""
    out = dict(settings)
    rope = dict(out.pop("rope_parameters"))
    out["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        out["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    kind = rope.pop("rope_type")
    out["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    return out


def published_dbrx(settings):
    out = {key: value for key, value in settings.items() if key != "rope_parameters"}
    return out | {"attn_config": out["attn_config"] | {"rope_theta": settings["rope_parameters"]["rope_theta"]}}


FAMILIES = {
    "qwen3_moe": Family("Qwen3MoeConfig", "Qwen3MoeForCausalLM", dict(
        head_dim=16, intermediate_size=48, moe_intermediate_size=16, num_experts=8, num_experts_per_tok=3,
        norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[], attention_bias=False, hidden_act="silu",
        rms_norm_eps=1e-6, use_sliding_window=False, sliding_window=None, max_window_layers=2)),
    "qwen2_moe": Family("Qwen2MoeConfig", "Qwen2MoeForCausalLM", dict(
        intermediate_size=48, moe_intermediate_size=16, shared_expert_intermediate_size=40, num_experts=6,
        num_experts_per_tok=2, norm_topk_prob=False, decoder_sparse_step=1, mlp_only_layers=[], hidden_act="silu",
        rms_norm_eps=1e-6, use_sliding_window=False, sliding_window=None, max_window_layers=2, qkv_bias=True)),
    "mixtral": Family("MixtralConfig", "MixtralForCausalLM", dict(
        intermediate_size=24, num_local_experts=4, num_experts_per_tok=2, hidden_act="silu", rms_norm_eps=1e-5,
        sliding_window=None)),
    "olmoe": Family("OlmoeConfig", "OlmoeForCausalLM", dict(
        num_key_value_heads=4, intermediate_size=16, num_experts=8, num_experts_per_tok=4, norm_topk_prob=False,
        clip_qkv=None, attention_bias=False, hidden_act="silu", rms_norm_eps=1e-5)),
    "deepseek_v3": Family("DeepseekV3Config", "DeepseekV3ForCausalLM", LATENT | dict(
        intermediate_size=48, moe_intermediate_size=16, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=3,
        n_group=4, topk_group=2, norm_topk_prob=True, routed_scaling_factor=2.5, first_k_dense_replace=1,
        attention_bias=False, rope_interleave=True, hidden_act="silu", rms_norm_eps=1e-6)),
    "glm4_moe": Family("Glm4MoeConfig", "Glm4MoeForCausalLM", dict(
        head_dim=16, intermediate_size=48, moe_intermediate_size=16, n_routed_experts=8, n_shared_experts=1,
        num_experts_per_tok=3, n_group=1, topk_group=1, norm_topk_prob=True, routed_scaling_factor=1.0,
        first_k_dense_replace=1, attention_bias=True, use_qk_norm=False, hidden_act="silu", rms_norm_eps=1e-5,
        rope_parameters=PLAIN | {"partial_rotary_factor": 0.5})),
    "dbrx": Family("DbrxConfig", "DbrxForCausalLM", dict(
        d_model=32, n_heads=4, n_layers=2, max_seq_len=64,
        attn_config={"clip_qkv": 1.5, "kv_n_heads": 2, "rope_theta": 10000.0},
        ffn_config={"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2}), published_dbrx),
    "arctic": Family("ArcticConfig", "ArcticForCausalLM", dict(
        intermediate_size=24, num_local_experts=4, num_experts_per_tok=2, hidden_act="silu", rms_norm_eps=1e-5,
        moe_layer_frequency=1, parallel_attn_mlp_res=True, use_residual=True), module=arctic_reference),
    # Rows of MXFP4 have a multiple of 32 values.
    "gpt_oss": Family("GptOssConfig", "GptOssForCausalLM", dict(
        head_dim=16, intermediate_size=32, num_local_experts=4, num_experts_per_tok=2, hidden_act="silu",
        rms_norm_eps=1e-5, sliding_window=6, attention_bias=True, swiglu_limit=7.0,
        rope_parameters=YARN | {"rope_theta": 150000.0, "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                                "truncate": False})),
    "granitemoe": Family("GraniteMoeConfig", "GraniteMoeForCausalLM", dict(
        intermediate_size=16, num_local_experts=6, num_experts_per_tok=2, hidden_act="silu", rms_norm_eps=1e-6,
        attention_bias=False, attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.4,
        logits_scaling=1.7)),
}
for unwanted in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                 "max_position_embeddings"):
    del FAMILIES["dbrx"].base[unwanted]

# name -> (family, what differs from its base, how it is stored)
CASES = {
    "qwen3_moe": ("qwen3_moe", dict(), {"old_spelling": True}),
    "qwen3_moe_dense_layers": ("qwen3_moe", dict(
        num_hidden_layers=5, decoder_sparse_step=2, mlp_only_layers=[1], attention_bias=True, norm_topk_prob=False,
        tie_word_embeddings=True, head_dim=8, num_key_value_heads=1), {}),
    "qwen3_moe_window": ("qwen3_moe", dict(use_sliding_window=True, sliding_window=6, rope_parameters=YARN,
                                           num_key_value_heads=4), {"old_spelling": True}),
    "qwen3_moe_bfloat16": ("qwen3_moe", dict(num_experts=4, num_experts_per_tok=2), {"dtype": torch.bfloat16}),
    "qwen3_moe_fp8": ("qwen3_moe", dict(hidden_size=48, num_experts=4, num_experts_per_tok=2), {"fp8": (32, 20)}),
    "qwen2_moe": ("qwen2_moe", dict(), {"old_spelling": True}),
    "qwen2_moe_window": ("qwen2_moe", dict(
        num_hidden_layers=4, use_sliding_window=True, sliding_window=5, max_window_layers=3, qkv_bias=False,
        mlp_only_layers=[1], norm_topk_prob=True), {"old_spelling": True}),
    "qwen2_moe_layer_types": ("qwen2_moe", dict(
        num_hidden_layers=3, use_sliding_window=True, sliding_window=4, decoder_sparse_step=2,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"]), {}),
    "mixtral": ("mixtral", dict(rope_parameters=PLAIN | {"rope_theta": 1e6}), {"old_spelling": True}),
    "mixtral_window": ("mixtral", dict(sliding_window=7, head_dim=12, rope_parameters=LINEAR, num_local_experts=6,
                                       num_experts_per_tok=1), {}),
    "mixtral_llama3": ("mixtral", dict(rope_parameters=LLAMA3, head_dim=16, num_hidden_layers=1),
                       {"old_spelling": True}),
    "olmoe": ("olmoe", dict(clip_qkv=0.8), {"old_spelling": True}),
    "olmoe_shared_heads": ("olmoe", dict(num_key_value_heads=2, attention_bias=True, norm_topk_prob=True,
                                         rope_parameters=DYNAMIC, tie_word_embeddings=True), {}),
    "deepseek_v3": ("deepseek_v3", dict(q_lora_rank=24, rope_parameters=YARN | {
        "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1}, num_hidden_layers=3),
                    {"old_spelling": True, "mtp": True}),
    "deepseek_v3_halves": ("deepseek_v3", dict(rope_interleave=False, n_group=1, topk_group=1, norm_topk_prob=False,
                                               attention_bias=True, n_shared_experts=2), {}),
    "deepseek_v3_top1": ("deepseek_v3", dict(num_experts_per_tok=1, n_group=2, topk_group=1, q_lora_rank=16,
                                             routed_scaling_factor=1.5, first_k_dense_replace=0), {}),
    "deepseek_v3_fp8": ("deepseek_v3", dict(q_lora_rank=24, hidden_size=40), {"fp8": (16, 24), "old_spelling": True}),
    "glm4_moe": ("glm4_moe", dict(), {"old_spelling": True, "mtp": True}),
    "glm4_moe_qk_norm": ("glm4_moe", dict(use_qk_norm=True, attention_bias=False, n_group=4, topk_group=2,
                                          routed_scaling_factor=2.0, num_hidden_layers=3, n_shared_experts=2), {}),
    "dbrx": ("dbrx", dict(rope_parameters=PLAIN | {"rope_theta": 500000.0}), {"old_spelling": True}),
    "dbrx_not_normalised": ("dbrx", dict(
        attn_config={"clip_qkv": 100.0, "kv_n_heads": 1, "rope_theta": 10000.0},
        ffn_config={"ffn_hidden_size": 24, "moe_num_experts": 6, "moe_top_k": 3,
                    "moe_normalize_expert_weights": None}), {"old_spelling": True}),
    "arctic": ("arctic", dict(), {"old_spelling": True}),
    "arctic_alternating": ("arctic", dict(num_hidden_layers=4, moe_layer_frequency=2, num_experts_per_tok=1,
                                          num_local_experts=6, num_key_value_heads=1), {"old_spelling": True}),
    "arctic_plain": ("arctic", dict(parallel_attn_mlp_res=False, use_residual=False, rope_parameters=LINEAR),
                     {"old_spelling": True}),
    "gpt_oss": ("gpt_oss", dict(), {"old_spelling": True}),
    "gpt_oss_full_attention": ("gpt_oss", dict(
        num_hidden_layers=3, layer_types=["full_attention", "full_attention", "sliding_attention"], sliding_window=4,
        num_key_value_heads=1, num_local_experts=6, num_experts_per_tok=3), {}),
    "gpt_oss_mxfp4": ("gpt_oss", dict(hidden_size=64, num_attention_heads=2), {"mxfp4": True, "old_spelling": True}),
    # An epsilon that matters, since residual_multiplier is folded into it.
    "granite_moe": ("granitemoe", dict(tie_word_embeddings=True, rms_norm_eps=0.02), {"old_spelling": True}),
    "granite_moe_bias": ("granitemoe", dict(attention_bias=True, num_local_experts=4, num_experts_per_tok=1,
                                            num_key_value_heads=1, logits_scaling=1.0),
                         {"dtype": torch.bfloat16}),
}


def config_json(family, settings, model, storage):
    """config.json as transformers writes it, or as the model was published."""
    common = {"architectures": [type(model).__name__], "model_type": model.config.model_type}
    if storage.get("old_spelling"):
        return common | FAMILIES[family].published(settings) | {"torch_dtype": "float32"}
    out = model.config.to_dict()
    out.pop("transformers_version", None)
    return out | common


def build(family, settings):
    config = FAMILIES[family].config(**settings)
    config._attn_implementation = "eager"
    return FAMILIES[family].model(config).eval()


class Mxfp4:
    """Stores the experts of gpt-oss as published: two e2m1 values in a byte and an exponent for each 32 of them."""

    @staticmethod
    def config():
        return {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn",
                                                                                           "lm_head"]}}

    def draw(self, tensors, generator):
        """Replaces each stack [experts, in, out] by packed [experts, out, in / 32, …]; also returns it as transformers
        unpacks it."""
        packed, plain = dict(tensors), {}
        for name, stack in tensors.items():
            if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                continue
            experts, inputs, outputs = stack.shape
            del packed[name]
            blocks = torch.randint(256, (experts, outputs, inputs // 32, 16), generator=generator, dtype=torch.uint8)
            scales = torch.randint(122, 126, (experts, outputs, inputs // 32), generator=generator, dtype=torch.uint8)
            packed[name + "_blocks"], packed[name + "_scales"] = blocks, scales
            plain[name] = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).contiguous()
        return packed, plain


class Fp8:
    """Stores matrices in e4m3 with a scale for each block, as DeepSeek-V3 does, and what is left of them."""

    def __init__(self, block):
        self.block = block

    def config(self):
        return {"quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                                        "weight_block_size": list(self.block)}}

    @staticmethod
    def applies(name, tensor):
        kept = ("embed_tokens", "lm_head", "norm", "gate.weight")
        return tensor.ndim == 2 and not any(part in name for part in kept)

    def pack(self, matrix):
        """e4m3 values, and the factors [blocks of rows, blocks of columns] that they are multiplied by."""
        rows, columns = self.block
        n, k = matrix.shape
        scales = torch.empty(-(-n // rows), -(-k // columns))
        values = torch.empty(n, k, dtype=torch.float8_e4m3fn)
        for i in range(scales.shape[0]):
            for j in range(scales.shape[1]):
                part = (slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns))
                scales[i, j] = matrix[part].abs().max() / 448.0
                values[part] = (matrix[part] / scales[i, j]).to(torch.float8_e4m3fn)
        return values, scales

    def unpack(self, values, scales):
        rows, columns = self.block
        n, k = values.shape
        factors = scales.repeat_interleave(rows, 0)[:n].repeat_interleave(columns, 1)[:, :k]
        return (values.float() * factors).to(torch.bfloat16).float()
