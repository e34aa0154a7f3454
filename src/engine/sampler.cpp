#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace eps {

void check_sampling(const SamplingOptions& options) {
  const auto refuse = [](const char* flag, double got, const char* wanted) {
    fail(ErrorKind::kUsage, flag,
         {.what = "not a sampling setting", .got = fmt::format("{}", got), .wanted = wanted, .hint = ""});
  };
  if (!(options.temperature >= 0.0) || !std::isfinite(options.temperature)) {
    refuse("--temperature", options.temperature, "a number from 0 (greedy)");
  }
  if (options.top_k < 0) refuse("--top-k", static_cast<double>(options.top_k), "0 (off) or more");
  if (!(options.top_p > 0.0 && options.top_p <= 1.0)) refuse("--top-p", options.top_p, "above 0, at most 1 (off)");
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), state_(options.seed) { check_sampling(options); }

// splitmix64, top 53 bits.
double Sampler::uniform() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

int32_t Sampler::pick(std::span<const float> logits) {
  EPS_CHECK(!logits.empty());
  if (options_.temperature == 0.0) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) candidates_.push_back({logits[i], static_cast<int32_t>(i)});
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  if (options_.top_k > 0 && options_.top_k < std::ssize(candidates_)) {
    std::nth_element(candidates_.begin(), candidates_.begin() + options_.top_k, candidates_.end(), better);
    candidates_.resize(static_cast<size_t>(options_.top_k));
  }
  std::sort(candidates_.begin(), candidates_.end(), better);
  weights_.clear();
  double total = 0;
  const double top = candidates_.front().logit;
  for (const Candidate& c : candidates_) {
    weights_.push_back(std::exp((static_cast<double>(c.logit) - top) / options_.temperature));
    total += weights_.back();
  }
  // Top-p keeps the fewest tokens whose probabilities reach p; always at least one.
  size_t kept = weights_.size();
  if (options_.top_p < 1.0) {
    double sum = 0;
    for (kept = 0; kept < weights_.size() && sum < options_.top_p * total; ++kept) sum += weights_[kept];
    kept = std::max<size_t>(kept, 1);
    total = sum;
  }
  double draw = uniform() * total;
  for (size_t i = 0; i < kept; ++i) {
    draw -= weights_[i];
    if (draw < 0) return candidates_[i].id;
  }
  return candidates_[kept - 1].id;  // rounding left a sliver of the interval
}

}  // namespace eps
