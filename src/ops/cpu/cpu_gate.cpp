#include "ops/cpu/cpu_gate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace eps::ops {
namespace {

constexpr float kTaken = -std::numeric_limits<float>::infinity();  // below every score

// Returns the index of the largest of `count` values; the lowest index if several are equal.
int argmax(const float* values, int count) {
  return static_cast<int>(std::max_element(values, values + count) - values);
}

// The value that ranks a group: its best score, or the sum of its two best.
float rank_of_group(TopkMethod method, const float* scores, int size) {
  const float* best = std::max_element(scores, scores + size);
  if (method != TopkMethod::kGroupLimitedTop2) return *best;
  float second = kTaken;
  for (const float* s = scores; s < scores + size; ++s) {
    if (s != best) second = std::max(second, *s);
  }
  return *best + second;
}

// Makes the scores of all groups except the best `topk_group` the lowest, as in the models' published code: 0 for
// probabilities; corrected scores may be negative.
void mask_groups(const GateParams& p, float* scores) {
  const int size = p.num_experts / p.num_groups;
  const float masked = p.correction ? kTaken : 0.0F;
  constexpr int kMaxGroups = 1024;  // enforced when the configuration is read
  float best[kMaxGroups];
  for (int g = 0; g < p.num_groups; ++g) best[g] = rank_of_group(p.method, scores + g * size, size);
  for (int i = 0; i < p.topk_group; ++i) best[argmax(best, p.num_groups)] = kTaken;
  for (int g = 0; g < p.num_groups; ++g) {
    if (best[g] != kTaken) std::fill(scores + g * size, scores + (g + 1) * size, masked);
  }
}

}  // namespace

void gate_token(const GateParams& p, const VectorOps& vec, float* scores, const float* correction, int32_t* topk_idx,
                float* topk_weight) {
  if (p.score == RouterScore::kSigmoid) {
    for (int e = 0; e < p.num_experts; ++e) scores[e] = 1.0F / (1.0F + std::exp(-scores[e]));
  } else {
    vec.softmax(scores, p.num_experts);
  }
  // Without a correction, experts are chosen by their scores, in place.
  std::vector<float> corrected;
  float* choice = scores;
  if (p.correction) {
    corrected.assign(scores, scores + p.num_experts);
    vec.add(corrected.data(), correction, p.num_experts);
    choice = corrected.data();
  }
  if (p.limits_groups()) mask_groups(p, choice);
  float sum = 0.0F;
  for (int i = 0; i < p.top_k; ++i) {
    const int e = argmax(choice, p.num_experts);
    topk_idx[i] = e;
    topk_weight[i] = scores[e];
    sum += scores[e];
    choice[e] = kTaken;
  }
  for (int i = 0; i < p.top_k; ++i) {
    topk_weight[i] = (p.norm_topk_prob ? topk_weight[i] / (sum + 1e-20F) : topk_weight[i]) * p.routed_scaling_factor;
  }
}

}  // namespace eps::ops
