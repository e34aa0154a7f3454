#include "ops/cpu/cpu_gate.h"

#include <algorithm>

namespace eps::ops {
namespace {

constexpr float kTaken = -1.0F;  // below every probability

// Returns the index of the largest of `count` values; the lowest index if several are equal.
int argmax(const float* values, int count) {
  return static_cast<int>(std::max_element(values, values + count) - values);
}

// Sets the scores of all groups except the best `topk_group` to 0, as in the models' published code.
void mask_groups(const GateParams& p, float* scores) {
  const int size = p.num_experts / p.num_groups;
  constexpr int kMaxGroups = 1024;  // enforced when the configuration is read
  float best[kMaxGroups];
  for (int g = 0; g < p.num_groups; ++g) best[g] = *std::max_element(scores + g * size, scores + (g + 1) * size);
  for (int i = 0; i < p.topk_group; ++i) best[argmax(best, p.num_groups)] = kTaken;
  for (int g = 0; g < p.num_groups; ++g) {
    if (best[g] != kTaken) std::fill(scores + g * size, scores + (g + 1) * size, 0.0F);
  }
}

}  // namespace

void gate_token(const GateParams& p, const VectorOps& vec, float* scores, int32_t* topk_idx, float* topk_weight) {
  vec.softmax(scores, p.num_experts);
  if (p.method == TopkMethod::kGroupLimitedGreedy) mask_groups(p, scores);
  float sum = 0.0F;
  for (int i = 0; i < p.top_k; ++i) {
    const int e = argmax(scores, p.num_experts);
    topk_idx[i] = e;
    topk_weight[i] = scores[e];
    sum += scores[e];
    scores[e] = kTaken;
  }
  const bool normalize = p.norm_topk_prob && p.top_k > 1;
  for (int i = 0; i < p.top_k; ++i) {
    topk_weight[i] = normalize ? topk_weight[i] / (sum + 1e-20F) : topk_weight[i] * p.routed_scaling_factor;
  }
}

}  // namespace eps::ops
