#include "plan/plan_cache.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/error.h"

namespace eps::plan {
namespace {

// If no expert has this many rows, the loads of individual experts are noise and are not part of the key.
constexpr int64_t kFewRows = 64;

// Rounds a count down to its leading one and the two bits after it; exact up to 3. The code fits in a byte.
uint8_t code_of(int64_t count) {
  if (count < 4) return static_cast<uint8_t>(count);
  const int octave = 63 - __builtin_clzll(static_cast<uint64_t>(count));
  return static_cast<uint8_t>(octave * 4 + ((count >> (octave - 2)) & 3) - 4);
}

// The middle of the counts with this code.
int64_t count_of(uint8_t code) {
  if (code < 4) return code;
  const int octave = (code + 4) / 4;
  const int64_t step = int64_t{1} << (octave - 2);
  return (int64_t{4} + (code + 4) % 4) * step + step / 2;
}

// Distributes `visits` visits with `rows` rows in total over the two counts next to the mean.
void fill_visits(int64_t visits, int64_t rows, int64_t* by_count, int top_k) {
  if (visits == 0) return;
  const int64_t low = std::clamp<int64_t>(rows / visits, 1, top_k);
  const int64_t more = low < top_k ? std::clamp<int64_t>(rows - low * visits, 0, visits) : 0;
  by_count[low] += visits - more;
  if (more > 0) by_count[low + 1] += more;
}

}  // namespace

void find_bucket(const MoeProblem& problem, LoadBucket& bucket) {
  std::string& key = bucket.key;
  const size_t num_ranks = problem.tokens_per_rank.size();
  key.resize(1 + num_ranks + num_ranks * num_ranks + problem.load.size());
  auto* at = reinterpret_cast<uint8_t*>(key.data());
  int64_t most = 0;
  for (const int64_t rows : problem.load) most = std::max(most, rows);
  const bool few = most < kFewRows;
  *at++ = few ? 1 : 0;
  for (const int64_t tokens : problem.tokens_per_rank) *at++ = code_of(tokens);
  if (few) {
    key.resize(1 + num_ranks + 1);
    const int64_t rows = std::accumulate(problem.load.begin(), problem.load.end(), int64_t{0});
    key.back() = static_cast<char>(code_of(rows));
    return;
  }
  for (const int64_t tokens : problem.routing.tokens_between) *at++ = code_of(tokens);
  for (const int64_t rows : problem.load) *at++ = code_of(rows);
}

MoeProblem LoadBucket::problem(const MoeProblem& like) const {
  MoeProblem out = like;
  const auto num_ranks = like.tokens_per_rank.size();
  const auto ranks = static_cast<int64_t>(num_ranks);
  const auto* at = reinterpret_cast<const uint8_t*>(key.data());
  const bool few = *at++ == 1;
  for (int64_t& tokens : out.tokens_per_rank) tokens = count_of(*at++);
  moe::RoutingSummary& routing = out.routing;
  const int64_t experts = std::ssize(like.load);
  if (few) {
    // Spreads rows over the experts, and tokens over the ranks, as evenly as possible.
    const int64_t rows = count_of(*at);
    for (int64_t e = 0; e < experts; ++e)
      out.load[static_cast<size_t>(e)] = rows * (e + 1) / experts - rows * e / experts;
    for (size_t home = 0; home < num_ranks; ++home) {
      const int64_t tokens = out.tokens_per_rank[home];
      const int64_t copies = std::min(tokens * ranks, tokens * like.shape.top_k);
      for (size_t r = 0; r < num_ranks; ++r) {
        const auto d = static_cast<int64_t>(r);
        // Rotated by the home rank. Otherwise, with one token per rank, all tokens would go to the same rank.
        const size_t to = (r + home) % num_ranks;
        routing.tokens_between[home * num_ranks + to] = copies * (d + 1) / ranks - copies * d / ranks;
      }
    }
  } else {
    for (int64_t& tokens : routing.tokens_between) tokens = count_of(*at++);
    for (int64_t& rows : out.load) rows = count_of(*at++);
  }
  routing.partials_between = routing.tokens_between;
  for (size_t r = 0; r < num_ranks; ++r) routing.partials_between[r * num_ranks + r] = 0;
  for (size_t e = 0; e < out.load.size(); ++e) routing.local_load[e] = out.load[e] / ranks;
  std::fill(routing.visits.begin(), routing.visits.end(), 0);
  const size_t width = routing.visits.size() / num_ranks;
  for (size_t r = 0; r < num_ranks; ++r) {
    int64_t visits = 0;
    for (size_t home = 0; home < num_ranks; ++home) {
      if (home != r) visits += routing.tokens_between[home * num_ranks + r];
    }
    int64_t rows = 0;
    const auto first = static_cast<size_t>(like.placement.first_expert(static_cast<int>(r)));
    for (size_t e = first; e < first + static_cast<size_t>(like.placement.experts_per_rank()); ++e) {
      rows += out.load[e] - routing.local_load[e];
    }
    if (width > 1) fill_visits(visits, rows, &routing.visits[r * width], static_cast<int>(width) - 1);
  }
  return out;
}

size_t PlanCache::Hash::operator()(const std::string& key) const {
  // FNV-1a over words instead of bytes: keys have hundreds of bytes, and a lookup must take less than a microsecond.
  uint64_t hash = 14695981039346656037ULL;
  size_t i = 0;
  for (; i + 8 <= key.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, key.data() + i, 8);
    hash = (hash ^ word) * 1099511628211ULL;
    hash ^= hash >> 29;
  }
  for (; i < key.size(); ++i) hash = (hash ^ static_cast<uint8_t>(key[i])) * 1099511628211ULL;
  return hash ^ (hash >> 32);
}

const Plan& PlanCache::plan(const MoeProblem& problem) {
  find_bucket(problem, bucket_);
  const auto it = plans_.find(bucket_.key);
  if (it != plans_.end()) {
    ++num_hits_;
    return *it->second;
  }
  ++num_misses_;
  if (plans_.size() >= most_plans_) plans_.clear();  // all at once, so that every rank discards the same plans
  auto plan = std::make_unique<const Plan>(planner_.plan(bucket_.problem(problem), option_));
  return *plans_.emplace(bucket_.key, std::move(plan)).first->second;
}

}  // namespace eps::plan
