#include "ops/pick_token.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"

namespace eps {
namespace {

struct Largest {
  float logit = 0.0F;
  bool is_valid = false;  // no logit is NaN or +infinity, and not all are -infinity
};

Largest find_largest(std::span<const float> logits) {
  // Sixteen maxima side by side become vector instructions: a step of a large batch samples from millions of logits.
  constexpr size_t kLanes = 16;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::array<float, kLanes> top;
  std::array<uint32_t, kLanes> bad{};
  top.fill(-kInfinity);
  const auto add = [&](size_t lane, float v) {
    top[lane] = v > top[lane] ? v : top[lane];
    bad[lane] |= v < kInfinity ? 0U : 1U;  // NaN compares false
  };
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(lane, logits[i + lane]);
  }
  for (; i < logits.size(); ++i) add(0, logits[i]);
  const float largest = *std::ranges::max_element(top);
  const bool is_any_bad = std::ranges::any_of(bad, [](uint32_t b) { return b != 0; });
  return {largest, !is_any_bad && largest > -kInfinity};
}

struct Candidate {
  float logit;
  int32_t id;
};

// The candidates that top-k leaves, best first.
std::vector<Candidate> best_candidates(std::span<const float> logits, int64_t top_k) {
  std::vector<Candidate> out(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) out[i] = {logits[i], static_cast<int32_t>(i)};
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  if (top_k > 0 && top_k < std::ssize(out)) {
    std::nth_element(out.begin(), out.begin() + top_k, out.end(), better);
    out.resize(static_cast<size_t>(top_k));
  }
  std::sort(out.begin(), out.end(), better);
  return out;
}

}  // namespace

int32_t pick_token(std::span<const float> logits, const TokenDraw& draw) {
  EPS_CHECK(!logits.empty());
  const Largest largest = find_largest(logits);
  if (!largest.is_valid) return kNoToken;
  if (draw.temperature == 0.0) return static_cast<int32_t>(std::ranges::find(logits, largest.logit) - logits.begin());

  const std::vector<Candidate> candidates = best_candidates(logits, draw.top_k);
  std::vector<double> weights;
  weights.reserve(candidates.size());
  double total = 0;
  const double top = candidates.front().logit;
  for (const Candidate& c : candidates) {
    weights.push_back(std::exp((static_cast<double>(c.logit) - top) / draw.temperature));
    total += weights.back();
  }
  // Candidates of weight 0 are last in the order; the first one always weighs 1.
  while (weights.back() == 0.0) weights.pop_back();
  size_t kept = weights.size();
  if (draw.top_p < 1.0) {
    double sum = 0;
    for (kept = 0; kept < weights.size() && sum < draw.top_p * total; ++kept) sum += weights[kept];
    kept = std::max<size_t>(kept, 1);
    total = sum;
  }
  double rest = draw.uniform * total;
  for (size_t i = 0; i < kept; ++i) {
    rest -= weights[i];
    if (rest < 0) return candidates[i].id;
  }
  return candidates[kept - 1].id;  // rounding left a rest of the interval
}

void pick_tokens_on_host(TensorView logits, std::span<const TokenDraw> draws, std::span<int32_t> tokens) {
  EPS_CHECK_EQ(logits.dim(0), std::ssize(draws));
  EPS_CHECK_EQ(draws.size(), tokens.size());
  const auto vocab = static_cast<size_t>(logits.dim(1));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = pick_token(std::span(logits.as<const float>() + i * vocab, vocab), draws[i]);
  }
}

}  // namespace eps
