// The latent key/value cache of one sequence: for each layer and token, one normalised latent and one rotated key.
#pragma once

#include <cstdint>

#include "model/model_spec.h"
#include "ops/op_set.h"
#include "tensor/tensor.h"

namespace eps::model {

class KvCache {
 public:
  // Uses the memory and the activation dtype of `ops`, which outlives the cache. The memory grows in steps, up to that
  // for `max_tokens`.
  KvCache(const ModelSpec& spec, int64_t max_tokens, ops::OpSet& ops);

  int64_t num_tokens() const { return num_tokens_; }
  int64_t max_tokens() const { return max_tokens_; }
  size_t num_bytes() const { return latent_.capacity() + k_pe_.capacity(); }

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
  int64_t latent_dim_;
  int64_t rope_dim_;
  int64_t max_tokens_;
  int64_t num_tokens_ = 0;
  int64_t capacity_ = 0;
  Buffer latent_;  // [layers, capacity, kv_lora_rank]
  Buffer k_pe_;    // [layers, capacity, rope_dim]
};

}  // namespace eps::model
