// The latent key/value cache of one sequence: per layer, one normalised latent and one rotated key a token.
#pragma once

#include <cstdint>

#include "model/model_spec.h"
#include "ops/op_set.h"
#include "tensor/tensor.h"

namespace eps {

class KvCache {
 public:
  // In the memory and activation dtype of `ops`, which outlives the cache. Room for `max_tokens` is set aside as it is
  // needed, in steps.
  KvCache(const ModelSpec& spec, int64_t max_tokens, OpSet& ops);

  int64_t num_tokens() const { return num_tokens_; }
  int64_t max_tokens() const { return max_tokens_; }
  size_t num_bytes() const { return latent_.capacity() + k_pe_.capacity(); }

  // Makes room for `count` more tokens in every layer; ops of the step write them.
  // Errors  kUsage when the context would exceed max_tokens
  void extend(int64_t count);

  // Errors  kUsage when `count` more tokens would exceed max_tokens
  void require_room(int64_t count) const { require_fits(num_tokens_ + count); }

  // Sets room aside for `count` tokens in all, so that no step up to there has to.
  // Errors  as extend
  void reserve(int64_t count);

  // Forgets the tokens and keeps the room.
  void clear() { num_tokens_ = 0; }

  // The last `count` tokens as the new ones of a step, at rows from `q_begin` on. Valid until the next extend.
  StepSequence step_sequence(int64_t q_begin, int64_t count) const;

 private:
  void require_fits(int64_t count) const;
  void grow(int64_t capacity);

  OpSet* ops_;
  int64_t num_layers_;
  int64_t latent_dim_;
  int64_t rope_dim_;
  int64_t max_tokens_;
  int64_t num_tokens_ = 0;
  int64_t capacity_ = 0;
  Buffer latent_;  // [layers, capacity, kv_lora_rank]
  Buffer k_pe_;    // [layers, capacity, rope_dim]
};

}  // namespace eps
