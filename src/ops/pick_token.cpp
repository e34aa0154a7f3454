#include "ops/pick_token.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/error.h"

namespace eps::ops {
namespace {

struct Largest {
  float logit = 0.0F;
  bool is_valid = false;  // no logit is NaN or +infinity, and not all are -infinity
};

// Only this many of the best candidates contribute to the entropy of top-h. Source  transformers' TopHLogitsWarper
constexpr size_t kMostOfTopH = 100;

Largest find_largest(std::span<const float> logits) {
  // Sixteen independent maxima let the compiler use vector instructions: a step of a large batch samples from millions
  // of logits.
  constexpr size_t kLanes = 16;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::array<float, kLanes> top;
  std::array<uint32_t, kLanes> bad{};
  top.fill(-kInfinity);
  const auto add = [&](size_t lane, float v) {
    top[lane] = v > top[lane] ? v : top[lane];
    bad[lane] |= v < kInfinity ? 0U : 1U;  // true for NaN, because every comparison with it is false
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

// Returns the `top_k` best candidates whose logit is not -infinity, best first.
std::vector<Candidate> best_candidates(std::span<const float> logits, int64_t top_k) {
  std::vector<Candidate> out;
  out.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] != -std::numeric_limits<float>::infinity()) out.push_back({logits[i], static_cast<int32_t>(i)});
  }
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

// Candidates with their weights exp((logit - largest) / temperature), best first. There is always at least one.
class WeightedCandidates {
 public:
  WeightedCandidates(std::vector<Candidate> candidates, double temperature) : candidates_(std::move(candidates)) {
    weights_.reserve(candidates_.size());
    const double top = candidates_.front().logit;
    for (const Candidate& c : candidates_) {
      weights_.push_back(std::exp((static_cast<double>(c.logit) - top) / temperature));
      total_ += weights_.back();
    }
    // Candidates whose weight underflows to 0 are at the end. The first candidate always has weight 1.
    while (weights_.back() == 0.0) weights_.pop_back();
  }

  void keep_first(size_t count) {
    if (count >= weights_.size()) return;
    weights_.resize(std::max<size_t>(count, 1));
    total_ = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  }

  // Keeps the smallest prefix whose weights reach `part` of the sum.
  void keep_mass(double part) {
    if (part >= 1.0) return;
    double sum = 0;
    size_t kept = 0;
    for (; kept < weights_.size() && sum < part * total_; ++kept) sum += weights_[kept];
    keep_first(kept);
  }

  // Keeps the best candidate, those with the same weight, and all others with at least this probability.
  void keep_probable(double least) {
    const double best = weights_.front();
    const auto end = std::ranges::find_if(weights_, [&](double w) { return w / total_ < least && w < best; });
    keep_first(static_cast<size_t>(end - weights_.begin()));
  }

  void keep_min_p(double min_p) {
    if (min_p > 0.0) keep_probable(min_p * weights_.front() / total_);
  }

  void keep_top_h(double part) {
    const std::span<const double> best = std::span(weights_).first(std::min(kMostOfTopH, weights_.size()));
    const double sum = std::accumulate(best.begin(), best.end(), 0.0);
    double entropy = 0;
    for (const double w : best) entropy += entropy_term(w / sum);
    double so_far = 0;
    size_t kept = 0;
    for (; kept < best.size(); ++kept) {
      so_far += entropy_term(best[kept] / sum);
      if (so_far > part * entropy) break;
    }
    keep_first(kept);
  }

  // Keeps the candidates whose information content is closest to the entropy, until their probabilities reach `mass`.
  void keep_typical(double mass) {
    const double expected = entropy();
    std::vector<double> distance(weights_.size());
    for (size_t i = 0; i < weights_.size(); ++i) distance[i] = std::abs(-std::log(weights_[i] / total_) - expected);
    std::vector<size_t> order(weights_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::stable_sort(order, [&](size_t a, size_t b) { return distance[a] < distance[b]; });
    double sum = 0;
    size_t last = 0;
    for (; last + 1 < order.size(); ++last) {
      sum += weights_[order[last]] / total_;
      if (sum >= mass) break;
    }
    const double farthest = distance[order[last]];
    std::vector<Candidate> kept;
    std::vector<double> weights;
    for (size_t i = 0; i < weights_.size(); ++i) {
      if (!(distance[i] <= farthest) && i != order.front()) continue;
      kept.push_back(candidates_[i]);
      weights.push_back(weights_[i]);
    }
    candidates_ = std::move(kept);
    weights_ = std::move(weights);
    total_ = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  }

  double entropy() const {
    double sum = 0;
    for (const double w : weights_) sum += entropy_term(w / total_);
    return sum;
  }

  // Returns the first candidate at which the running sum of the weights exceeds `uniform` of their total.
  int32_t at(double uniform) const {
    double rest = uniform * total_;
    for (size_t i = 0; i < weights_.size(); ++i) {
      rest -= weights_[i];
      if (rest < 0) return candidates_[i].id;
    }
    return candidates_[weights_.size() - 1].id;  // reached only if rounding leaves a small remainder of the total
  }

 private:
  static double entropy_term(double p) { return p > 0 ? -p * std::log(p) : 0.0; }

  std::vector<Candidate> candidates_;  // may be longer than weights_; candidates beyond its end have been discarded
  std::vector<double> weights_;
  double total_ = 0;
};

}  // namespace

bool all_finite(std::span<const float> logits) {
  return std::ranges::all_of(logits, [](float v) { return std::isfinite(v); });
}

bool can_sample(std::span<const float> logits) { return !logits.empty() && find_largest(logits).is_valid; }

int32_t sample_token(std::span<const float> logits, const SampleParams& params, const TokenCuts& cuts) {
  EPS_CHECK(!logits.empty());
  if (params.temperature == 0.0) {
    const auto best = std::ranges::max_element(logits);
    return *best == -std::numeric_limits<float>::infinity() ? kNoToken : static_cast<int32_t>(best - logits.begin());
  }
  std::vector<Candidate> best = best_candidates(logits, cuts.top_h ? 0 : params.top_k);
  if (best.empty()) return kNoToken;
  WeightedCandidates candidates(std::move(best), params.temperature);
  if (cuts.top_h) {
    candidates.keep_top_h(*cuts.top_h);
    if (params.top_k > 0) candidates.keep_first(static_cast<size_t>(params.top_k));
  }
  candidates.keep_mass(params.top_p);
  candidates.keep_min_p(cuts.min_p);
  if (cuts.typical_p < 1.0) candidates.keep_typical(cuts.typical_p);
  if (cuts.epsilon_cutoff > 0.0) candidates.keep_probable(cuts.epsilon_cutoff);
  if (cuts.eta_cutoff > 0.0) {
    const double flat = std::sqrt(cuts.eta_cutoff) * std::exp(-candidates.entropy());
    candidates.keep_probable(std::min(cuts.eta_cutoff, flat));
  }
  return candidates.at(params.uniform);
}

int32_t pick_token(std::span<const float> logits, const SampleParams& params) {
  EPS_CHECK(!logits.empty());
  const Largest largest = find_largest(logits);
  if (!largest.is_valid) return kNoToken;
  if (params.temperature == 0.0) return static_cast<int32_t>(std::ranges::find(logits, largest.logit) - logits.begin());
  return sample_token(logits, params, {});
}

void pick_tokens_on_host(TensorView logits, std::span<const SampleParams> params, std::span<int32_t> tokens) {
  EPS_CHECK_EQ(logits.dim(0), std::ssize(params));
  EPS_CHECK_EQ(params.size(), tokens.size());
  const auto vocab = static_cast<size_t>(logits.dim(1));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = pick_token(std::span(logits.as<const float>() + i * vocab, vocab), params[i]);
  }
}

}  // namespace eps::ops
