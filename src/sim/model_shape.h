// The sizes of a whole model that time and memory depend on, for every preset, including families that this build
// cannot run yet.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "plan/problem.h"

namespace eps::model {
struct ModelSpec;
}

namespace eps::sim {

struct AttentionShape {
  bool latent = false;  // multi-head latent attention (DeepSeek-V2); else grouped-query attention
  int num_heads = 0;
  int num_kv_heads = 0;      // grouped-query only
  int qk_dim = 0;            // of one head's query and key, rope included
  int v_dim = 0;             // of one head's value
  int64_t q_lora_rank = 0;   // latent only; 0: one full-rank query projection
  int64_t kv_lora_rank = 0;  // latent only
  int rope_dim = 0;          // latent only: of the shared rotated key
  bool operator==(const AttentionShape&) const = default;

  int64_t parameters(int64_t hidden) const;
  int64_t cache_elements_per_token() const;
};

struct ModelShape {
  std::string name;
  int num_layers = 0;
  int num_dense_layers = 0;  // layers without experts, which have an FFN of dense_inner instead
  int64_t dense_inner = 0;
  int64_t residual_inner = 0;  // a dense FFN beside the experts of every MoE layer (Arctic); 0: none
  int64_t hidden = 0;
  int64_t vocab_size = 0;
  bool tie_embeddings = false;
  AttentionShape attention;
  plan::MoeShape moe;
  int num_experts = 0;
  int num_groups = 1;  // groups of experts, of which a token uses at most topk_group
  int topk_group = 1;
  bool operator==(const ModelShape&) const = default;

  int num_moe_layers() const { return num_layers - num_dense_layers; }
  int64_t total_parameters() const;
};

ModelShape shape_of(const model::ModelSpec& spec, std::string name);

// "deepseek-v2", "deepseek-v2-lite", "mixtral-8x7b", "dbrx", "arctic", "qwen3-30b-a3b"
std::vector<std::string_view> shape_preset_names();
// Errors  kUsage, listing the presets
ModelShape shape_preset(std::string_view name);

// The memory of one rank in GB: weights, KV cache for `cached_tokens` tokens per rank and the working memory of one MoE
// layer. Attention is split over the ranks if the strategy has tensor-parallel attention, else every rank has all of
// it; experts are always distributed.
double memory_gb_per_rank(const ModelShape& shape, plan::Strategy strategy, int num_ranks, int64_t tokens_per_rank);

}  // namespace eps::sim
