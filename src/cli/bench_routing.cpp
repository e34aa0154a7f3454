#include "cli/bench_routing.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "base/error.h"

namespace eps::cli {
namespace {

// Logarithms of the experts' popularity.
std::vector<double> draw_popularity(int num_experts, Skew skew, std::mt19937_64& rng) {
  std::vector<double> out(static_cast<size_t>(num_experts), 0.0);
  if (skew.alpha == 0) return out;
  // Gamma draws, normalised, are a Dirichlet draw; the sum does not matter to who is drawn. For small alpha a gamma
  // draw underflows: gamma(a) = gamma(a + 1) * u^(1/a), so take that in logarithms.
  std::gamma_distribution<double> gamma(skew.alpha + 1, 1.0);
  std::uniform_real_distribution<double> uniform(1e-300, 1.0);
  for (double& v : out) v = std::log(gamma(rng)) + std::log(uniform(rng)) / skew.alpha;
  return out;
}

}  // namespace

Skew parse_skew(const std::string& text) {
  if (text == "uniform") return {};
  const std::string prefix = "dirichlet:";
  if (text.starts_with(prefix)) {
    size_t used = 0;
    double alpha = 0;
    try {
      alpha = std::stod(text.substr(prefix.size()), &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used == text.size() - prefix.size() && used > 0 && alpha >= 1e-3 && alpha <= 1e6) return {alpha};
  }
  fail(ErrorKind::kUsage, "--skew",
       {.what = "unknown skew",
        .got = text,
        .wanted = "uniform, or dirichlet:ALPHA with ALPHA from 0.001 (one expert gets most) to 1000000 (even)",
        .hint = "dirichlet:0.3"});
}

std::vector<Routing> random_routing(int num_ranks, int64_t tokens_per_rank, int num_experts, int top_k, Skew skew,
                                    uint64_t seed) {
  EPS_CHECK_LE(top_k, num_experts);
  std::mt19937_64 rng(seed);
  const std::vector<double> popularity = draw_popularity(num_experts, skew, rng);
  std::uniform_real_distribution<double> uniform(1e-12, 1.0);
  std::uniform_real_distribution<float> weight(0.05F, 1.0F);
  std::vector<double> key(popularity.size());
  std::vector<int32_t> order(popularity.size());
  std::vector<Routing> out;
  for (int rank = 0; rank < num_ranks; ++rank) {
    Routing routing{tokens_per_rank, top_k, {}, {}};
    for (int64_t t = 0; t < tokens_per_rank; ++t) {
      // The top_k of popularity + Gumbel noise are a draw without replacement.
      for (size_t e = 0; e < key.size(); ++e) key[e] = popularity[e] - std::log(-std::log(uniform(rng)));
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + top_k, order.end(), [&key](int32_t a, int32_t b) {
        return key[static_cast<size_t>(a)] > key[static_cast<size_t>(b)];
      });
      std::vector<float> weights(static_cast<size_t>(top_k));
      float sum = 0;
      for (float& w : weights) sum += w = weight(rng);
      for (int i = 0; i < top_k; ++i) {
        routing.expert_idx.push_back(order[static_cast<size_t>(i)]);
        routing.weight.push_back(weights[static_cast<size_t>(i)] / sum);
      }
    }
    normalize_routing(routing, num_experts);
    out.push_back(std::move(routing));
  }
  return out;
}

}  // namespace eps::cli
