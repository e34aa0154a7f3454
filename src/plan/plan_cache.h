// Caches plans by load, so that a layer with about the same load as an earlier one is not planned again.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "plan/planner.h"

namespace eps::plan {

// A problem rounded to its bucket. Rows and tokens keep the two bits after the leading one. If no expert has 64 rows
// (decoding), only the total of the experts' rows is kept. Everything else is spread as evenly as possible.
struct LoadBucket {
  std::string key;
  // Returns the problem that represents the whole bucket: a function of `key` and of those fields of `like` that are
  // the same for all batches of a layer.
  MoeProblem problem(const MoeProblem& like) const;
};

// There is one cache per rank and layer shape. Plans are made for the bucket's problem, not for the first problem in
// the bucket, so that ranks agree and results do not depend on earlier batches.
class PlanCache {
 public:
  // `planner` must outlive the cache.
  PlanCache(const Planner& planner, PipelineOption option, size_t most_plans = 1024)
      : planner_(planner), option_(option), most_plans_(most_plans) {}

  // The plan of the problem's bucket; valid until the next call. All problems must be of one layer shape, strategy,
  // placement and wire.
  const Plan& plan(const MoeProblem& problem);

  // As Planner::plan_without_load; valid as long as the cache. All calls must be of one placement and wire.
  const Plan& plan_without_load(const moe::ExpertPlacement& placement, int64_t tokens_per_rank, const Wire& wire);

  int64_t num_hits() const { return num_hits_; }
  int64_t num_misses() const { return num_misses_; }

 private:
  struct Hash {
    size_t operator()(const std::string& key) const;
  };

  const Planner& planner_;
  PipelineOption option_;
  size_t most_plans_;
  LoadBucket bucket_;
  std::unordered_map<std::string, std::unique_ptr<const Plan>, Hash> plans_;
  std::map<int64_t, std::unique_ptr<const Plan>> plans_without_load_;  // by tokens_per_rank
  int64_t num_hits_ = 0;
  int64_t num_misses_ = 0;
};

// Sets `bucket` to that of `problem` and reuses its memory.
void find_bucket(const MoeProblem& problem, LoadBucket& bucket);

}  // namespace eps::plan
