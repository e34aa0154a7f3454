// The key-value cache of one sequence on the ranks that attend for it: with data-parallel attention the rank that it
// belongs to, otherwise every rank, each with its own heads.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/rank_group.h"
#include "model/kv_cache.h"

namespace eps::engine {

class SequenceCache {
 public:
  // `ranks` outlive the cache.
  SequenceCache(RankGroup& ranks, int rank, int64_t max_tokens);

  int rank() const { return rank_; }
  // Errors  kUsage if `count` tokens do not fit
  void reserve(int64_t count);
  void clear();

  // New tokens of the sequence for a step. The cache and `ids` outlive it.
  PlacedChunk chunk(std::span<const int32_t> ids, model::StepOutput output) const;

 private:
  int rank_;
  std::vector<std::unique_ptr<model::KvCache>> owned_;
  std::vector<model::KvCache*> parts_;  // [num_ranks], or one
};

}  // namespace eps::engine
