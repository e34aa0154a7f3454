// The key/value cache of one sequence. For each layer and token: with latent attention one normalised latent and one
// rotated key, with grouped-query attention the keys and values of all key-value heads.
#pragma once

#include <cstdint>

#include "arch/model_spec.h"
#include "ops/op_set.h"
#include "tensor/tensor.h"

namespace eps::model {

class KvCache {
 public:
  // Uses the memory of `ops`, which outlives the cache, and the dtype that it wants (StepSequence). The memory grows in
  // steps, up to that for `max_tokens`.
  KvCache(const arch::ModelSpec& spec, int64_t max_tokens, ops::OpSet& ops);

  int64_t num_tokens() const { return num_tokens_; }
  int64_t max_tokens() const { return max_tokens_; }
  size_t num_bytes() const { return first_.capacity() + second_.capacity(); }

  // Adds `count` tokens, which the ops of the step then write in every layer.
  // Errors  kUsage if there would be more than max_tokens
  void extend(int64_t count);

  // Errors  kUsage if `count` more tokens would exceed max_tokens
  void require_room(int64_t count) const { require_fits(num_tokens_ + count); }

  // Allocates memory for `count` tokens in total, so that no step up to that length has to.
  // Errors  as extend
  void reserve(int64_t count);

  // Removes all tokens, but keeps the memory.
  void clear() { num_tokens_ = 0; }

  // Describes the last `count` tokens as the new tokens of a step, in its rows from `q_begin` on. Valid until the next
  // extend or reserve.
  ops::StepSequence step_sequence(int64_t q_begin, int64_t count) const;

 private:
  void require_fits(int64_t count) const;
  void grow(int64_t capacity);

  ops::OpSet* ops_;
  int64_t num_layers_;
  bool is_latent_;
  arch::AttentionSpec::CacheWidths widths_;
  DType dtype_;
  int64_t max_tokens_;
  int64_t num_tokens_ = 0;
  int64_t capacity_ = 0;
  Buffer first_;   // [layers, capacity, widths_.first]
  Buffer second_;  // [layers, capacity, widths_.second]
};

}  // namespace eps::model
