// Plain descriptions that ops take; nothing here needs more than the language, so kernels can include it.
#pragma once

#include <cstdint>

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

struct RowPair {
  float* dst;
  const float* src;
};

}  // namespace eps
