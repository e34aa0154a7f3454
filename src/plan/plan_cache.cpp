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
  const auto* at = reinterpret_cast<const uint8_t*>(key.data());
  const bool few = *at++ == 1;
  for (int64_t& tokens : out.tokens_per_rank) tokens = count_of(*at++);
  if (few) {
    spread_evenly(out, count_of(*at));
  } else {
    for (int64_t& tokens : out.routing.tokens_between) tokens = count_of(*at++);
    for (int64_t& rows : out.load) rows = count_of(*at++);
  }
  estimate_routing(out);
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

const Plan& PlanCache::plan_without_load(const moe::ExpertPlacement& placement, int64_t tokens_per_rank,
                                         const Wire& wire) {
  std::unique_ptr<const Plan>& plan = plans_without_load_[tokens_per_rank];
  if (plan == nullptr) {
    ++num_misses_;
    plan = std::make_unique<const Plan>(planner_.plan_without_load(placement, tokens_per_rank, wire));
  }
  return *plan;
}

}  // namespace eps::plan
