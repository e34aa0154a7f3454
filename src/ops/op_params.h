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

// How one token is sampled from a row of logits: its candidates in the order of their logits, the largest first and the
// lowest id among equals; of them the first `top_k`; of those the fewest whose weights exp((logit - largest) /
// temperature) reach `top_p` of the sum; of those the first at which the running sum of weights exceeds `uniform` of
// their sum.
struct SampleParams {
  double temperature = 0.0;  // 0: the first candidate, whatever the rest says
  int64_t top_k = 0;         // 0: all
  double top_p = 1.0;        // (0, 1]
  double uniform = 0.0;      // [0, 1)
};
inline constexpr int32_t kNoToken = -1;

struct RowPair {
  float* dst;
  const float* src;
};

}  // namespace eps
