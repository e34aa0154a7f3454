// Plain descriptions that ops take.
#pragma once

#include <cstdint>
#include <vector>

namespace eps {

enum class TopkMethod : uint8_t {
  kGreedy,              // the best top_k of all experts
  kGroupLimitedGreedy,  // only among the experts of the best `topk_group` groups, a group ranked by its best expert
};

struct GateParams {
  int num_experts = 0;
  int top_k = 0;
  TopkMethod method = TopkMethod::kGreedy;
  int num_groups = 1;
  int topk_group = 1;
  bool norm_topk_prob = false;         // weights /= their sum; the scaling factor is then not applied
  float routed_scaling_factor = 1.0F;  // weights *= this otherwise
};

struct MlaParams {
  int num_heads = 0;
  int nope_dim = 0;  // per head, of q and k, without position
  int rope_dim = 0;  // per head of q; one shared key
  int v_dim = 0;     // per head
  int kv_lora_rank = 0;
  float softmax_scale = 0.0F;

  int q_dim() const { return nope_dim + rope_dim; }
};

// One sequence's new tokens: rows [q_begin, q_begin + q_count) of q, at positions context - q_count … context - 1.
// `latent` [context, kv_lora_rank] (normalised) and `k_pe` [context, rope_dim] (rotated) hold those tokens already.
struct MlaSequence {
  int64_t q_begin = 0;
  int64_t q_count = 0;
  int64_t context = 0;
  const float* latent = nullptr;
  const float* k_pe = nullptr;
};

// cos and sin [max_positions, rope_dim / 2], attention factor included.
struct RopeTable {
  int rope_dim = 0;
  std::vector<float> cos;
  std::vector<float> sin;
};

struct RowPair {
  float* dst;
  const float* src;
};

}  // namespace eps
