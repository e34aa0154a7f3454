// Plain parameter types of ops. They depend on nothing but the language, so that kernels can include this header.
#pragma once

#include <cstdint>

namespace eps::ops {

enum class RouterScore : uint8_t {
  kSoftmax,  // over all experts
  kSigmoid,  // of each logit
};

enum class TopkMethod : uint8_t {
  kGreedy,              // the best top_k of all experts
  kGroupLimitedGreedy,  // only experts of the `topk_group` best groups; a group is ranked by its best expert
  kGroupLimitedTop2,    // the same; a group is ranked by the sum of its two best experts
};

struct GateParams {
  int num_experts = 0;
  int top_k = 0;
  TopkMethod method = TopkMethod::kGreedy;
  int num_groups = 1;
  int topk_group = 1;
  bool norm_topk_prob = false;         // divide the weights by their sum
  float routed_scaling_factor = 1.0F;  // then multiply them by this
  RouterScore score = RouterScore::kSoftmax;
  // A bias per expert is added to the scores by which experts and groups are chosen, but not to the weights.
  bool correction = false;

  bool limits_groups() const { return method != TopkMethod::kGreedy; }
};

// out = g · sigmoid(alpha · g) · (u + up_shift), where g = min(gate, limit) and u = up limited to ±limit
struct SwigluParams {
  float limit = 0.0F;  // 0: none
  float alpha = 1.0F;
  float up_shift = 0.0F;
  bool operator==(const SwigluParams&) const = default;
};

// Which elements of a head are rotated together, and where they are in it if only a part of them is.
enum class RopePairs : uint8_t {
  kAdjacent,  // (2i, 2i + 1)
  kHalves,    // (i, i + rope_dim / 2)
};
enum class RopePlace : uint8_t { kLast, kFirst };

struct RopeLayout {
  RopePairs pairs = RopePairs::kAdjacent;
  RopePlace place = RopePlace::kLast;
  bool operator==(const RopeLayout&) const = default;
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

// Query heads h · num_heads / num_kv_heads and following use key-value head h.
struct GqaParams {
  int num_heads = 0;
  int num_kv_heads = 0;  // divides num_heads
  int head_dim = 0;      // of queries, keys and values
  float softmax_scale = 0.0F;

  int group() const { return num_heads / num_kv_heads; }
  int64_t q_width() const { return int64_t{num_heads} * head_dim; }
  int64_t kv_width() const { return int64_t{num_kv_heads} * head_dim; }
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
