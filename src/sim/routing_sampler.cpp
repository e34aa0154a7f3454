#include "sim/routing_sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace eps::sim {
namespace {

// If a token already has the most popular expert, nearly every sample may be rejected. After this many rejections the
// token's other experts are sampled from the allowed ones only, which takes a step per expert of the layer.
constexpr int kMaxRejections = 32;

constexpr uint64_t kPopularityStream = ~uint64_t{0};  // ranks take two each, from 0

}  // namespace

struct RoutingSampler::Token {
  uint64_t stamp = 0;
  int num_groups = 0;
};

RoutingSampler::RoutingSampler(const RoutingParams& params) : params_(params) {
  const int experts = params.num_experts;
  EPS_CHECK(params.top_k >= 1 && params.top_k <= experts, "top-{} of {} experts", params.top_k, experts);
  EPS_CHECK(params.num_groups >= 1 && experts % params.num_groups == 0, "{} groups of {} experts", params.num_groups,
            experts);
  EPS_CHECK(params.topk_group >= 1 && params.topk_group <= params.num_groups, "{} of {} groups", params.topk_group,
            params.num_groups);
  group_size_ = experts / params.num_groups;
  EPS_CHECK_LE(params.top_k, params.topk_group * group_size_);
  const auto count = static_cast<size_t>(experts);
  log_popularity_.assign(count, 0.0);
  if (params.skew.alpha > 0) {
    // Normalised gamma samples are a Dirichlet sample. For small alpha they underflow, so this computes logarithms:
    // gamma(a) = gamma(a + 1) * u^(1/a).
    RandomStream random(params.seed, kPopularityStream);
    const double alpha = params.skew.alpha;
    for (double& v : log_popularity_) v = std::log(random.gamma(alpha + 1)) + std::log(random.uniform()) / alpha;
    const double most = *std::max_element(log_popularity_.begin(), log_popularity_.end());
    for (double& v : log_popularity_) v -= most;
  }
  make_alias_table();
  for (uint64_t rank = 0; rank < static_cast<uint64_t>(params.num_ranks); ++rank) {
    expert_streams_.emplace_back(params.seed, 2 * rank);
    weight_streams_.emplace_back(params.seed, 2 * rank + 1);
  }
  taken_.assign(count, 0);
  group_taken_.assign(static_cast<size_t>(params.num_groups), 0);
  allowed_.assign(count, 0.0);
}

// The alias table makes a sample cost the same for any number of experts.
//
// Source  Walker 1977, Vose 1991
void RoutingSampler::make_alias_table() {
  const size_t count = log_popularity_.size();
  std::vector<double> share(count);  // popularity relative to the average: 1 if all are equally popular
  double sum = 0;
  for (size_t e = 0; e < count; ++e) sum += share[e] = std::exp(log_popularity_[e]);
  for (double& s : share) s *= static_cast<double>(count) / sum;
  std::vector<size_t> below;
  std::vector<size_t> above;
  for (size_t e = 0; e < count; ++e) (share[e] < 1 ? below : above).push_back(e);
  keep_below_.assign(count, ~uint32_t{0});
  alias_.resize(count);
  for (size_t e = 0; e < count; ++e) alias_[e] = static_cast<int32_t>(e);
  while (!below.empty() && !above.empty()) {
    const size_t small = below.back();
    const size_t large = above.back();
    below.pop_back();
    keep_below_[small] = static_cast<uint32_t>(share[small] * 0x1p32);
    alias_[small] = static_cast<int32_t>(large);
    share[large] -= 1 - share[small];
    if (share[large] >= 1) continue;
    above.pop_back();
    below.push_back(large);
  }
}

bool RoutingSampler::may_take(const Token& token, int32_t expert) const {
  const auto e = static_cast<size_t>(expert);
  if (taken_[e] == token.stamp) return false;
  return token.num_groups < params_.topk_group || group_taken_[e / static_cast<size_t>(group_size_)] == token.stamp;
}

void RoutingSampler::take(Token& token, int32_t expert) {
  const auto e = static_cast<size_t>(expert);
  taken_[e] = token.stamp;
  uint64_t& group = group_taken_[e / static_cast<size_t>(group_size_)];
  if (group != token.stamp) ++token.num_groups;
  group = token.stamp;
}

int32_t RoutingSampler::sample(RandomStream& random) const {
  const uint64_t bits = random.bits();
  // The upper half selects a column (with a negligible bias below 2^-24 for a thousand experts), the lower half decides
  // between the column and its alias.
  const auto column = static_cast<size_t>(((bits >> 32) * keep_below_.size()) >> 32);
  return static_cast<uint32_t>(bits) < keep_below_[column] ? static_cast<int32_t>(column) : alias_[column];
}

int32_t RoutingSampler::sample_among_allowed(const Token& token, RandomStream& random) {
  const size_t count = log_popularity_.size();
  double most = -INFINITY;
  for (size_t e = 0; e < count; ++e) {
    if (may_take(token, static_cast<int32_t>(e))) most = std::max(most, log_popularity_[e]);
  }
  double sum = 0;
  for (size_t e = 0; e < count; ++e) {
    const bool allowed = may_take(token, static_cast<int32_t>(e));
    sum += allowed_[e] = allowed ? std::exp(log_popularity_[e] - most) : 0.0;
  }
  double left = random.uniform() * sum;
  int32_t last = 0;
  for (size_t e = 0; e < count; ++e) {
    if (allowed_[e] == 0) continue;
    last = static_cast<int32_t>(e);
    left -= allowed_[e];
    if (left < 0) break;
  }
  return last;
}

void RoutingSampler::sample_token(RandomStream& random, int32_t* experts) {
  Token token{++stamp_, 0};
  int rejections = 0;
  for (int i = 0; i < params_.top_k;) {
    int32_t expert = 0;
    if (rejections < kMaxRejections) {
      expert = sample(random);
      if (!may_take(token, expert)) {
        ++rejections;
        continue;
      }
    } else {
      expert = sample_among_allowed(token, random);
    }
    take(token, expert);
    experts[i++] = expert;
  }
  std::sort(experts, experts + params_.top_k);
}

moe::Routing RoutingSampler::next_experts(int rank, int64_t num_tokens) {
  RandomStream& random = expert_streams_[static_cast<size_t>(rank)];
  const auto top_k = static_cast<size_t>(params_.top_k);
  const size_t rows = static_cast<size_t>(num_tokens) * top_k;
  moe::Routing routing{num_tokens, params_.top_k, std::vector<int32_t>(rows), {}};
  for (size_t begin = 0; begin < rows; begin += top_k) sample_token(random, routing.expert_idx.data() + begin);
  return routing;
}

moe::Routing RoutingSampler::next(int rank, int64_t num_tokens) {
  moe::Routing routing = next_experts(rank, num_tokens);
  RandomStream& random = weight_streams_[static_cast<size_t>(rank)];
  const auto top_k = static_cast<size_t>(params_.top_k);
  routing.weight.resize(routing.expert_idx.size());
  for (size_t begin = 0; begin < routing.weight.size(); begin += top_k) {
    float* weight = routing.weight.data() + begin;
    float sum = 0;
    for (size_t i = 0; i < top_k; ++i) sum += weight[i] = 0.05F + 0.95F * static_cast<float>(random.uniform());
    for (size_t i = 0; i < top_k; ++i) weight[i] /= sum;
  }
  return routing;
}

}  // namespace eps::sim
