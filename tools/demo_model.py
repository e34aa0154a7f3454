"""The demo models: their shapes, their forward pass for training, and the definition of held-out perplexity.

The forward pass uses the parameters of transformers' own model classes but computes every expert for every token and
masks (an MoE this small is one wide MLP), which keeps the GPU busy and lets dropout and the load-balance loss in.
`check_against_transformers` holds the two implementations together. What differs between the families is the shape,
the attention and the gate: see FAMILIES.
"""

import math
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, DeepseekV2Config, Qwen3MoeConfig

END_OF_TEXT_ID = 0
CONTEXT = 1024
EVAL_WINDOW = 512


COMMON = dict(
    hidden_size=256,
    intermediate_size=768,
    num_attention_heads=8,
    num_experts_per_tok=4,
    moe_intermediate_size=64,
    max_position_embeddings=CONTEXT,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    tie_word_embeddings=True,
    bos_token_id=END_OF_TEXT_ID,
    eos_token_id=END_OF_TEXT_ID,
    attention_dropout=0.0,
)


def deepseek_v2_config(vocab_size):
    """13.3 million parameters: latent attention, a dense first layer, shared experts, a group-limited gate."""
    return DeepseekV2Config(
        **COMMON,
        vocab_size=vocab_size,
        num_hidden_layers=7,
        num_key_value_heads=8,
        q_lora_rank=128,
        kv_lora_rank=96,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=32,
        first_k_dense_replace=1,
        n_routed_experts=32,
        n_shared_experts=2,
        topk_method="group_limited_greedy",
        n_group=4,
        topk_group=2,
        norm_topk_prob=False,
        routed_scaling_factor=4.0,  # 4 of 32 scores sum to about 1/8 before the gate has learned
    )


def qwen3_moe_config(vocab_size):
    """6.8 million parameters: grouped-query attention with normalised heads, and experts in every layer."""
    return Qwen3MoeConfig(
        **COMMON,
        vocab_size=vocab_size,
        num_hidden_layers=6,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=16,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        attention_bias=False,
        use_sliding_window=False,
        rms_norm_eps=1e-6,
    )


def make_model(config):
    model = AutoModelForCausalLM.from_config(config)
    # Branches add up along the residual stream: their last matrices start smaller the deeper the network.
    scale = 1.0 / math.sqrt(2.0 * config.num_hidden_layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj")):
                parameter.mul_(scale)
    return model


class Regularisation:
    """Probabilities used while training; all zero gives the plain forward pass."""

    def __init__(self, dropout=0.0, attention=0.0, router_noise=0.0):
        self.dropout = dropout
        self.attention = attention
        self.router_noise = router_noise


def rope_tables(config, dim, length, device):
    inv_freq = 1.0 / (config.rope_parameters["rope_theta"] ** (torch.arange(0, dim, 2, device=device).float() / dim))
    angle = torch.arange(length, device=device).float()[:, None] * inv_freq
    return angle.cos(), angle.sin()


def rotate_pairs(x, cos, sin):
    """Rotates neighbouring elements, as DeepSeek-V2 does."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


def rotate_halves(x, cos, sin):
    """Rotates element i with element i + n / 2, as most families do."""
    first, second = x.float().chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x.dtype)


def latent_attention(attn, x, cos, sin, reg):
    batch, length, _ = x.shape
    nope, rope = attn.qk_nope_head_dim, attn.qk_rope_head_dim
    if attn.q_lora_rank is None:
        q = attn.q_proj(x)
    else:
        q = attn.q_b_proj(attn.q_a_layernorm(attn.q_a_proj(x)))
    q = q.view(batch, length, attn.num_heads, nope + rope).transpose(1, 2)
    latent, k_rope = attn.kv_a_proj_with_mqa(x).split([attn.kv_lora_rank, rope], -1)
    kv = attn.kv_b_proj(attn.kv_a_layernorm(latent)).view(batch, length, attn.num_heads, -1).transpose(1, 2)
    k_nope, v = kv.split([nope, attn.v_head_dim], -1)
    q = torch.cat((q[..., :nope], rotate_pairs(q[..., nope:], cos, sin)), -1)
    k_rope = rotate_pairs(k_rope[:, None], cos, sin).expand(-1, attn.num_heads, -1, -1)
    k = torch.cat((k_nope, k_rope), -1)
    # The flash kernel wants one head size for q, k and v: zero columns make v as wide as q and are cut off again.
    v = F.pad(v, (0, nope + rope - attn.v_head_dim))
    out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True, dropout_p=reg.attention)
    return attn.o_proj(out[..., : attn.v_head_dim].transpose(1, 2).flatten(2))


def grouped_query_attention(attn, x, cos, sin, reg):
    batch, length, _ = x.shape
    by_head = (batch, length, -1, attn.head_dim)
    q = rotate_halves(attn.q_norm(attn.q_proj(x).view(by_head)).transpose(1, 2), cos, sin)
    k = rotate_halves(attn.k_norm(attn.k_proj(x).view(by_head)).transpose(1, 2), cos, sin)
    v = attn.v_proj(x).view(by_head).transpose(1, 2)
    k, v = (shared.repeat_interleave(attn.num_key_value_groups, 1) for shared in (k, v))
    out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True, dropout_p=reg.attention)
    return attn.o_proj(out.transpose(1, 2).flatten(2))


def router_scores(gate, x, router_noise):
    logits = F.linear(x.float(), gate.weight.float())
    if router_noise:
        logits = logits + router_noise * torch.randn_like(logits)
    return logits.softmax(-1)


def group_limited_route(gate, x, router_noise=0.0):
    """Weights [tokens, experts] (zero where not chosen), scores before the choice, and the mask of the choice."""
    with torch.autocast(device_type=x.device.type, enabled=False):
        scores = router_scores(gate, x, router_noise)
        grouped = scores.view(-1, gate.num_group, gate.num_experts // gate.num_group)
        best = grouped.amax(-1).topk(gate.topk_group, -1, sorted=False).indices
        group_mask = torch.zeros_like(grouped[..., 0]).scatter(1, best, 1.0)
        allowed = (grouped * group_mask[..., None]).flatten(1)
        chosen = allowed.topk(gate.top_k, -1, sorted=False).indices
        mask = torch.zeros_like(scores).scatter(1, chosen, 1.0)
        return scores * mask * gate.routed_scaling_factor, scores, mask


def normalised_route(gate, x, router_noise=0.0):
    """As group_limited_route, without groups and with weights that sum to 1."""
    with torch.autocast(device_type=x.device.type, enabled=False):
        scores = router_scores(gate, x, router_noise)
        mask = torch.zeros_like(scores).scatter(1, scores.topk(gate.top_k, -1, sorted=False).indices, 1.0)
        chosen = scores * mask
        return chosen / chosen.sum(-1, keepdim=True), scores, mask


class Family(NamedTuple):
    make_config: Callable  # vocabulary size -> configuration of transformers
    rotary_size: Callable  # configuration -> elements of a head that are rotated
    attention: Callable
    route: Callable


# By transformers' model_type.
FAMILIES = {
    "deepseek_v2": Family(deepseek_v2_config, lambda config: config.qk_rope_head_dim, latent_attention,
                          group_limited_route),
    "qwen3_moe": Family(qwen3_moe_config, lambda config: config.head_dim, grouped_query_attention, normalised_route),
}


def mixture(mlp, x, reg, route):
    """Output and load-balance loss (1 when balanced) of one mixture-of-experts block."""
    flat = x.flatten(0, 1)
    weights, scores, mask = route(mlp.gate, flat, reg.router_noise)
    experts, hidden = mlp.gate.num_experts, flat.shape[-1]
    both = F.linear(flat, mlp.experts.gate_up_proj.flatten(0, 1))
    gate, up = both.view(-1, experts, 2, mlp.experts.intermediate_dim).unbind(2)
    inner = F.dropout(F.silu(gate) * up, reg.dropout, reg.dropout > 0) * weights[..., None].to(gate.dtype)
    out = F.linear(inner.flatten(1), mlp.experts.down_proj.permute(1, 0, 2).reshape(hidden, -1))
    load = mask.mean(0) / mlp.gate.top_k
    balance = experts * (load * scores.mean(0)).sum()
    if hasattr(mlp, "shared_experts"):
        out = out + dense(mlp.shared_experts, flat, reg)
    return out.view_as(x), balance


def dense(mlp, x, reg):
    return mlp.down_proj(F.dropout(F.silu(mlp.gate_proj(x)) * mlp.up_proj(x), reg.dropout, reg.dropout > 0))


def forward(model, ids, reg=Regularisation()):
    """Logits [batch, length, vocab] and the mean load-balance loss over the layers."""
    family = FAMILIES[model.config.model_type]
    dropped = reg.dropout > 0
    cos, sin = rope_tables(model.config, family.rotary_size(model.config), ids.shape[1], ids.device)
    x = F.dropout(model.model.embed_tokens(ids), reg.dropout, dropped)
    balances = []
    for layer in model.model.layers:
        branch = family.attention(layer.self_attn, layer.input_layernorm(x), cos, sin, reg)
        x = x + F.dropout(branch, reg.dropout, dropped)
        normed = layer.post_attention_layernorm(x)
        if hasattr(layer.mlp, "gate"):
            branch, balance = mixture(layer.mlp, normed, reg, family.route)
            balances.append(balance)
        else:
            branch = dense(layer.mlp, normed, reg)
        x = x + F.dropout(branch, reg.dropout, dropped)
    x = F.dropout(model.model.norm(x), reg.dropout, dropped)
    return model.lm_head(x), torch.stack(balances).mean()


def check_against_transformers(model, ids):
    """Largest difference of the logits from transformers' own forward pass; raises when it is more than rounding."""
    with torch.no_grad():
        ours, _ = forward(model, ids)
        theirs = model(ids).logits
    difference = (ours - theirs).abs().max().item()
    if not difference < 1e-3 * max(1.0, theirs.abs().max().item()):
        raise SystemExit(f"demo_model: logits differ from transformers' by {difference}")
    return difference


def eval_windows(ids, window=EVAL_WINDOW):
    """Inputs [n, window] and labels [n, window]: consecutive windows, each after the begin-of-text token.

    The last window is padded (label -100); every token of `ids` is predicted exactly once.
    """
    ids = torch.as_tensor(ids)
    count = -(-len(ids) // window)
    labels = torch.full((count * window,), -100)
    labels[: len(ids)] = ids
    labels = labels.view(count, window)
    inputs = torch.full_like(labels, END_OF_TEXT_ID)
    inputs[:, 1:] = labels[:, :-1].clamp(min=0)
    return inputs, labels


@torch.no_grad()
def heldout_nll(logits_of, ids, window=EVAL_WINDOW, batch=16):
    """Sum of the negative log-likelihoods (natural log) over all tokens of `ids`; `logits_of` maps ids to logits."""
    inputs, labels = eval_windows(ids, window)
    total = 0.0
    for begin in range(0, len(inputs), batch):
        logits = logits_of(inputs[begin:begin + batch])
        target = labels[begin:begin + batch].to(logits.device)
        losses = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=-100, reduction="sum")
        total += losses.item()
    return total
