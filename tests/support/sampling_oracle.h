// Which tokens may be sampled from logits, and the rows and settings that samplers are tested with.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "ops/op_params.h"
#include "support/random_values.h"

namespace eps::test {

// How an implementation rounds a weight w = exp(-x): by (3·x + 4)·unit·w (x takes three operations, exp is good to two
// ulp, which is four units) and by `step` whatever its size.
struct WeightRounding {
  double unit;
  double step;
};
inline WeightRounding host_rounding() { return {0x1p-53, 0}; }
// pick_token.h: multiples of 2^-k, so half of that. 2^k is the largest of which `vocab` make 2^62 at most, hence
// 2^k > 2^62 / (2 · vocab).
inline WeightRounding device_rounding(size_t vocab) { return {0x1p-24, static_cast<double>(vocab) * 0x1p-62}; }

// One row's candidates, sorted: the full sort that the implementations avoid.
class SamplingOracle {
 public:
  explicit SamplingOracle(std::span<const float> logits) : logits_(logits), order_(logits.size()) {
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) { return logit(a) > logit(b); });
  }

  // Whether `token` can be sampled when all sums are off by no more than `rounding` explains. Where no boundary is
  // that close, exactly one token is allowed.
  bool allows(const ops::SampleParams& params, const WeightRounding& rounding, int32_t token) const {
    const bool is_any_bad =
        std::any_of(logits_.begin(), logits_.end(), [](float v) { return std::isnan(v) || (std::isinf(v) && v > 0); });
    if (is_any_bad || std::isinf(logit(order_.front()))) return token == ops::kNoToken;
    if (token < 0 || token >= std::ssize(logits_)) return false;
    if (std::isinf(logit(token))) return false;  // masked
    if (params.temperature == 0.0) return token == order_.front();
    const size_t n = order_.size();
    const size_t best = params.top_k > 0 ? std::min(n, static_cast<size_t>(params.top_k)) : n;
    std::vector<double> sums = {0.0};  // sums[i]: of the first i candidates
    double slack = 0;                  // of any of them
    for (size_t i = 0; i < best; ++i) {
      const double x = (logit(order_.front()) - logit(order_[i])) / params.temperature;
      const double weight = std::exp(-x);
      sums.push_back(sums.back() + weight);
      if (weight > 0) slack += (3 * x + 4) * rounding.unit * weight;
      slack += rounding.step;
    }
    slack += static_cast<double>(best) * 0x1p-52 * sums.back();  // of adding up in f64, here and there
    // The fewest and the most candidates that top-p may leave.
    size_t fewest = best;
    size_t most = best;
    if (params.top_p < 1.0) {
      const auto reaching = [&](double goal) {
        const auto at = std::lower_bound(sums.begin() + 1, sums.end(), goal);
        return std::min(best, static_cast<size_t>(at - sums.begin()));
      };
      fewest = reaching(params.top_p * sums.back() - 2 * slack);
      most = reaching(params.top_p * sums.back() + 2 * slack);
    }
    const auto rank = static_cast<size_t>(std::find(order_.begin(), order_.end(), token) - order_.begin());
    return rank < most && sums[rank] - slack <= params.uniform * (sums[most] + slack) &&
           sums[rank + 1] + slack >= params.uniform * (sums[fewest] - slack);
  }

 private:
  double logit(int32_t id) const { return logits_[static_cast<size_t>(id)]; }

  std::span<const float> logits_;
  std::vector<int32_t> order_;  // best first, the lowest id among equals
};

inline const std::vector<int64_t> kPickVocabs = {1, 2, 33, 1025, 102'400};

struct PickRow {
  std::string what;
  std::vector<float> logits;
};

inline std::vector<PickRow> pick_rows(int64_t vocab, RandomValues& random) {
  const auto last = static_cast<size_t>(vocab) - 1;
  std::vector<PickRow> out;
  out.push_back({"normal", random.normal(vocab, 3.0)});
  out.push_back({"equal", std::vector<float>(last + 1, -7.5F)});
  out.push_back({"ties", random.normal(vocab, 2.0)});
  for (float& v : out.back().logits) v = std::round(2 * v) / 2;
  out.push_back({"one far above", random.normal(vocab)});
  out.back().logits[last / 2] = 60.0F;
  out.push_back({"the ends of f32", random.normal(vocab)});
  out.back().logits[last] = std::numeric_limits<float>::lowest();
  out.back().logits[0] = std::numeric_limits<float>::max();
  out.push_back({"large", random.normal(vocab, 1e4)});
  out.push_back({"both zeros", std::vector<float>(last + 1, 0.0F)});
  for (size_t i = 0; i <= last; i += 2) out.back().logits[i] = -0.0F;
  constexpr float kMasked = -std::numeric_limits<float>::infinity();
  out.push_back({"all but the last masked", std::vector<float>(last + 1, kMasked)});
  out.back().logits[last] = -3.0F;
  out.push_back({"every other one masked", random.normal(vocab)});
  for (size_t i = 1; i <= last; i += 2) out.back().logits[i] = kMasked;
  out.push_back({"all masked", std::vector<float>(last + 1, kMasked)});
  out.push_back({"masked and infinite", std::vector<float>(last + 1, kMasked)});
  out.back().logits[last / 2] = -kMasked;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(), kMasked}) {
    for (const size_t at : {size_t{0}, last / 2, last}) {
      out.push_back({fmt::format("{} at {}", bad, at), random.normal(vocab)});
      out.back().logits[at] = bad;
    }
  }
  return out;
}

// Every setting with every other one, at both ends of the interval and between.
inline std::vector<ops::SampleParams> sample_params(int64_t vocab, RandomValues& random) {
  std::vector<ops::SampleParams> out = {{}};
  for (const double temperature : {1e-6, 0.1, 0.7, 1.0, 30.0, 1e9}) {
    for (const int64_t top_k : {int64_t{0}, int64_t{1}, int64_t{5}, vocab / 2, vocab, vocab + 3}) {
      for (const double top_p : {1.0, 0.9, 0.3, 1e-12}) {
        for (const double uniform : {0.0, static_cast<double>(random.bits() >> 11) * 0x1p-53, 1 - 0x1p-53}) {
          out.push_back({temperature, top_k, top_p, uniform});
        }
      }
    }
  }
  return out;
}

// Every `stride`-th, beginning anywhere below it.
inline std::vector<ops::SampleParams> some_of(const std::vector<ops::SampleParams>& params, size_t stride,
                                              RandomValues& random) {
  std::vector<ops::SampleParams> out;
  for (size_t i = static_cast<size_t>(random.bits()) % stride; i < params.size(); i += stride) out.push_back(params[i]);
  return out;
}

}  // namespace eps::test
