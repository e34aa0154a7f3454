"""Arctic as published, which transformers does not have: grouped-query attention and norms as Mixtral's, and layers in
which a dense FFN runs beside the experts. The FFN reads the residual stream after attention, the experts before it.
"""

import torch
from torch import nn
from transformers import MixtralConfig
from transformers.modeling_outputs import CausalLMOutput
from transformers.models.mixtral.modeling_mixtral import MixtralAttention, MixtralRMSNorm, MixtralRotaryEmbedding


class ArcticConfig:
    """The settings of config.json, and the MixtralConfig of the parts that are Mixtral's."""

    model_type = "arctic"

    def __init__(self, **settings):
        self.settings = settings
        self.tie_word_embeddings = settings["tie_word_embeddings"]
        names = ("vocab_size", "hidden_size", "num_attention_heads", "num_key_value_heads", "max_position_embeddings",
                 "rms_norm_eps", "rope_parameters")
        self.mixtral = MixtralConfig(**{name: settings[name] for name in names})
        self.mixtral._attn_implementation = "eager"

    def __getattr__(self, name):
        return self.settings[name]

    def to_dict(self):
        return dict(self.settings)


class Mlp(nn.Module):
    def __init__(self, hidden, inner):
        super().__init__()
        self.w1 = nn.Linear(hidden, inner, bias=False)
        self.w2 = nn.Linear(inner, hidden, bias=False)
        self.w3 = nn.Linear(hidden, inner, bias=False)

    def forward(self, x):
        return self.w2(nn.functional.silu(self.w1(x)) * self.w3(x))


class SparseMoe(nn.Module):
    def __init__(self, config, is_moe):
        super().__init__()
        self.top_k = config.num_experts_per_tok
        if is_moe:
            self.gate = nn.Linear(config.hidden_size, config.num_local_experts, bias=False)
            self.experts = nn.ModuleList(Mlp(config.hidden_size, config.intermediate_size)
                                         for _ in range(config.num_local_experts))
        else:
            self.mlp = Mlp(config.hidden_size, config.intermediate_size)

    def forward(self, x):
        if hasattr(self, "mlp"):
            return self.mlp(x)
        weights, experts = torch.topk(self.gate(x).softmax(-1), self.top_k, -1)
        if self.top_k > 1:
            weights = weights / weights.sum(-1, keepdim=True)
        rows = [sum(w * self.experts[e](row) for w, e in zip(ws, es)) for row, ws, es in
                zip(x.flatten(0, 1), weights.flatten(0, 1), experts.flatten(0, 1).tolist())]
        return torch.stack(rows).view_as(x)


class Layer(nn.Module):
    def __init__(self, config, index):
        super().__init__()
        is_moe = (index + 1) % config.moe_layer_frequency == 0
        self.is_parallel = is_moe and config.parallel_attn_mlp_res
        norm = lambda: MixtralRMSNorm(config.hidden_size, eps=config.rms_norm_eps)  # noqa: E731
        self.self_attn = MixtralAttention(config.mixtral, index)
        self.block_sparse_moe = SparseMoe(config, is_moe)
        self.input_layernorm, self.post_attention_layernorm = norm(), norm()
        if self.is_parallel:
            self.residual_layernorm = norm()
            self.residual_mlp = Mlp(config.hidden_size, config.hidden_size)

    def forward(self, x, mask, positions):
        attended = x + self.self_attn(self.input_layernorm(x), position_embeddings=positions, attention_mask=mask)[0]
        if not self.is_parallel:
            return attended + self.block_sparse_moe(self.post_attention_layernorm(attended))
        dense = self.residual_mlp(self.residual_layernorm(attended))
        return attended + dense + self.block_sparse_moe(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = MixtralRMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class ArcticForCausalLM(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.rotary = [MixtralRotaryEmbedding(config.mixtral)]  # in a list: its buffers are no weights

    def forward(self, ids):
        x = self.model.embed_tokens(ids)
        length = ids.shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1)[None, None]
        positions = self.rotary[0](x, torch.arange(length)[None])
        for layer in self.model.layers:
            x = layer(x, mask, positions)
        return CausalLMOutput(logits=self.lm_head(self.model.norm(x)))

    def save_pretrained(self, folder):
        from safetensors.torch import save_file
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / "model.safetensors", {"format": "pt"})
