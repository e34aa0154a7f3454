#include "engine/sequence_cache.h"

namespace eps::engine {

SequenceCache::SequenceCache(RankGroup& ranks, int rank, int64_t max_tokens) : rank_(rank) {
  const bool is_split = ranks.splits_attention();
  for (int r = is_split ? 0 : rank; r <= (is_split ? ranks.num_ranks() - 1 : rank); ++r) {
    owned_.push_back(std::make_unique<model::KvCache>(ranks.part_spec(), max_tokens, ranks.op_set(r)));
    parts_.push_back(owned_.back().get());
  }
}

void SequenceCache::reserve(int64_t count) {
  for (model::KvCache* part : parts_) part->reserve(count);
}

void SequenceCache::clear() {
  for (model::KvCache* part : parts_) part->clear();
}

PlacedChunk SequenceCache::chunk(std::span<const int32_t> ids, model::StepOutput output) const {
  PlacedChunk out{rank_, {parts_.front(), ids, output}};
  if (parts_.size() > 1) out.parts = parts_;
  return out;
}

}  // namespace eps::engine
