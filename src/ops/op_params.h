// Plain parameter types of ops. They depend on nothing but the language, so that kernels can include this header.
#pragma once

#include <cstdint>

namespace eps::ops {

enum class TopkMethod : uint8_t {
  kGreedy,              // the best top_k of all experts
  kGroupLimitedGreedy,  // only experts of the `topk_group` best groups; a group is ranked by its best expert
};

struct GateParams {
  int num_experts = 0;
  int top_k = 0;
  TopkMethod method = TopkMethod::kGreedy;
  int num_groups = 1;
  int topk_group = 1;
  bool norm_topk_prob = false;         // divide the weights by their sum; the scaling factor is then not applied
  float routed_scaling_factor = 1.0F;  // otherwise multiply the weights by this
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

// How one token is sampled from a row of logits. The candidates are ordered by descending logit, equal logits by
// ascending id. The first `top_k` are kept; of those, the smallest prefix whose weights exp((logit - largest) /
// temperature) reach `top_p` of their sum. The result is the first remaining candidate at which the running sum of the
// weights exceeds `uniform` of their total.
struct SampleParams {
  double temperature = 0.0;  // 0: the first candidate, whatever the other settings are
  int64_t top_k = 0;         // 0: all
  double top_p = 1.0;        // (0, 1]
  double uniform = 0.0;      // [0, 1)
};
inline constexpr int32_t kNoToken = -1;

struct RowPair {
  float* dst;
  const float* src;
};

}  // namespace eps::ops
