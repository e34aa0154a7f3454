// A cache of plans by load: a layer with about the same load as before needs no new plan.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "plan/planner.h"

namespace eps {

// A problem rounded to its bucket. Rows and tokens keep two bits after the leading one; where no expert has 64 rows
// (decoding), the rows of single experts are reduced to their total. The rest is spread as evenly as possible.
struct LoadBucket {
  std::string key;
  // The problem that represents the whole bucket: a function of `key` and those fields of `like` that are the same for
  // all batches of a layer.
  MoeProblem problem(const MoeProblem& like) const;
};

// One per rank and layer shape. Plans are made for the bucket's problem, not for the first one that falls into it, so
// that ranks agree and a run does not depend on what ran before.
class PlanCache {
 public:
  // `planner` outlives the cache.
  PlanCache(const Planner& planner, PipelineOption option, size_t most_plans = 1024)
      : planner_(planner), option_(option), most_plans_(most_plans) {}

  // The plan of the problem's bucket; valid until the next call. All problems must be of one layer shape, strategy,
  // placement and wire.
  const Plan& plan(const MoeProblem& problem);

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
  int64_t num_hits_ = 0;
  int64_t num_misses_ = 0;
};

// Writes `problem`'s bucket over `bucket`, reusing its memory.
void find_bucket(const MoeProblem& problem, LoadBucket& bucket);

}  // namespace eps
