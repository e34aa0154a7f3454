// How a model attends: the kind of its attention, its sizes and its options.
#pragma once

#include <cstdint>
#include <variant>

#include "arch/rope.h"
#include "ops/op_params.h"

namespace eps::arch {

// Multi-head latent attention (DeepSeek).
struct LatentAttention {
  ops::MlaParams mla;
  int q_lora_rank = 0;  // 0: one full-rank query projection
  bool bias = false;    // on the down projections and the output projection
  float lora_norm_eps = 1e-6F;
};

// RMS norms of queries and keys, before they are rotated.
enum class QkNorm : uint8_t {
  kNone,
  kHead,   // of each head, all with the same weight [head_dim]
  kWhole,  // of all heads of a token together
};

// Grouped-query attention: several query heads use one head of keys and values.
struct GroupedAttention {
  ops::GqaParams gqa;
  bool qkv_bias = false;
  bool o_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  float clip_qkv = 0.0F;  // queries, keys and values are limited to ±clip_qkv; 0: not
  bool sinks = false;     // one additional logit for each query head, whose value is zero
};

struct AttentionSpec {
  std::variant<LatentAttention, GroupedAttention> kind;
  RopeSpec rope;

  const LatentAttention* latent() const { return std::get_if<LatentAttention>(&kind); }
  const GroupedAttention* grouped() const { return std::get_if<GroupedAttention>(&kind); }

  int num_heads() const;
  int num_kv_heads() const;  // latent: as many as heads, because every head has keys of its own
  int qk_dim() const;        // of one head's query and key
  int v_dim() const;         // of one head's value

  // What the cache holds for a token in one layer: [first width] and [second width] elements, a latent and a rotated
  // key, or keys and values of all heads.
  struct CacheWidths {
    int64_t first = 0;
    int64_t second = 0;
  };
  CacheWidths cache_widths() const;
  int64_t cache_elements_per_token() const { return cache_widths().first + cache_widths().second; }

  // Of the projections, their biases and the norms inside attention.
  int64_t parameters(int64_t hidden) const;
};

}  // namespace eps::arch
